"""The four faces of a verb: Python and the command line, each on a folder and on a server."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel

from vizsla.cli.main import main
from vizsla.cli.run import as_json
from vizsla.client.server import Server
from vizsla.errors import VizslaError
from vizsla.store.workspace import Workspace
from vizsla.training.run import RunStatus

Where = Workspace | Server

MEASURED = {"used_bytes", "use", "temperature_c", "power_w", "processes", "other_processes", "others"}
"""what devices do at one moment"""
MADE = {"seconds", "elapsed_s", "created_at", "changed_at", "at", "eta_s", "pictures_per_s", "data_wait"}
"""what differs between two things that were made alike: when, and how fast"""
ID_OR_NUMBER = re.compile(r"\b[0-9a-hjkmnp-tv-z]{10}\b|(?<=face)\d")


class Answer(NamedTuple):
    """What a command gave."""

    status: int
    told: Any


@dataclass(frozen=True)
class Faces:
    """A workspace, a server that has it, and the command line on both."""

    ws: Workspace
    server: Server
    person: tuple[str, str] | None = None
    """who signs in to the server, and with which password"""

    def python(self, number: int) -> Where:
        """What the verbs are given: the folder, or the server."""
        return self.server if number else self.ws

    def command(self, number: int, *args: object, given: str = "") -> Answer:
        """A command on the folder, or on the server and, by the environment, on a folder that it must not touch.

        Args:
            given: what it reads from its standard input, behind the password of who signs in.
        """
        if number:
            folder = self.ws.root.parent / "untouched"
            words = [*args, "--json", "--server", self.server.url]
            if self.person is not None:
                words += ["--as", self.person[0], *(["--password-stdin"] if "--password-stdin" not in args else [])]
                given = f"{self.person[1]}\n{given}"
            answer = _command(words, folder, given)
            assert not folder.exists()
            return answer
        return _command([*args, "--json"], self.ws.root, given)


def _command(args: list[object], folder: Path, given: str) -> Answer:
    """Run `vizsla ARGS` in this process, which is much faster than in one of its own."""
    out = io.StringIO()
    terminate, interrupt = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(io.StringIO()) as err,
        ):
            patch.setattr(sys, "argv", ["vizsla", *map(str, args)])
            patch.setattr(sys, "stdin", io.StringIO(given))
            patch.setenv("VIZSLA_WORKSPACE", str(folder))
            patch.setenv("COLUMNS", "120")
            with pytest.raises(SystemExit) as ended:
                main()
        assert isinstance(ended.value.code, int)
        assert out.getvalue(), (args, err.getvalue())
        return Answer(ended.value.code, json.loads(out.getvalue()))
    finally:
        signal.signal(signal.SIGTERM, terminate)
        signal.signal(signal.SIGINT, interrupt)


def refusal(verb: Callable[[], Any]) -> dict[str, str]:
    """What a verb is refused with."""
    try:
        found = verb()
    except VizslaError as error:
        return {"type": type(error).__name__, **error.as_dict()}
    raise AssertionError(f"it was not refused: {found}")


def plain(value: Any) -> Any:
    """A verb's answer as JSON, as commands print it."""
    if isinstance(value, RunStatus):
        return as_json(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value


def without(value: Any, names: set[str]) -> Any:
    """JSON without some fields."""
    if isinstance(value, dict):
        return {name: without(item, names) for name, item in value.items() if name not in names}
    return [without(item, names) for item in value] if isinstance(value, list) else value


def alike(value: Any) -> Any:
    """JSON of something that was made, in which what was made alike is equal: without ids, numbers of faces, times."""
    if isinstance(value, str):
        return ID_OR_NUMBER.sub("?", value)
    if isinstance(value, dict):
        return {alike(name): alike(item) for name, item in value.items() if name not in MADE}
    return [alike(item) for item in value] if isinstance(value, list | tuple) else value
