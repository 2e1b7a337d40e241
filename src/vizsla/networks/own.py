"""A user's own network: one Python file, from a folder that the administrator allows. Light: no torch.

Such a file is a program. It is found and copied without running anything of it, and later only the run's copy is run.
"""

from __future__ import annotations

import hashlib
import linecache
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from vizsla import files
from vizsla.errors import InvalidInput, NotFound

SUFFIX = ".py"
COPY = "network.py"
"""The name of the copy in a run's folder."""

FUNCTION = "def network(num_classes, in_channels)"
MAX_BYTES = 1_000_000
MAX_LISTED = 1000
ALLOW = "Put the file into one of these folders; VIZSLA_NETWORK_PATHS names further ones, separated by ':'."


def is_own(net: str) -> bool:
    """Whether `net` is a file and not a name of the catalogue."""
    return net.endswith(SUFFIX)


def title(net: str) -> str:
    """A network's name for people: of a file, without its folder."""
    return Path(net).name if is_own(net) else net


def locate(net: str, folders: Sequence[Path]) -> Path:
    """The file that `net` names, with symbolic links followed, if it lies in one of the allowed `folders`.

    A relative path is looked for in each of them. Nothing is read or run.

    Raises:
        InvalidInput: it lies elsewhere.
        NotFound: there is no such file.
    """
    allowed = [_absolute(folder) for folder in folders]
    shown = ", ".join(map(str, allowed))
    places = [Path(net)] if Path(net).is_absolute() else [folder / net for folder in allowed]
    # Where a path leads is known only once its links and dots are gone; what lies elsewhere is not even looked for.
    try:
        inside = [path for place in places if any((path := place.resolve()).is_relative_to(root) for root in allowed)]
        found = next((path for path in inside if path.is_file()), None)
    except (OSError, ValueError, RuntimeError) as error:  # a NUL byte, a circle of links, a name that is too long
        raise InvalidInput(f"This cannot be the path of a file: {error}.", where=repr(net)) from None
    if not inside:
        raise InvalidInput(
            f"A network is run only from the folders that are allowed: {shown}.", where=net, remedy=ALLOW
        )
    if found is None:
        raise NotFound(f"There is no such file in {shown}.", where=net, remedy="Check --net.")
    return found


def find(folders: Sequence[Path]) -> list[str]:
    """The files in the allowed folders, each as it may be asked for; a folder that is not there holds none."""
    found = []
    for folder in map(_absolute, folders):
        for path in sorted(folder.glob(f"*{SUFFIX}"))[:MAX_LISTED]:
            if path.is_file() and not path.name.startswith(("_", ".")):
                found.append(path.name)
    return list(dict.fromkeys(found))


def _absolute(folder: Path) -> Path:
    if not folder.is_absolute():
        raise InvalidInput(
            "A folder of networks has to be given from the root on.",
            where=f"VIZSLA_NETWORK_PATHS: {folder}",
            remedy="Write its whole path.",
        )
    return folder.resolve()


def keep(path: Path, run_folder: Path) -> Path:
    """Copy the file's text into a run's folder; returns the copy.

    Raises:
        InvalidInput: it is not text, or too long to be a network.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode()
    except UnicodeDecodeError:
        raise InvalidInput("The file is not Python: it is no UTF-8 text.", where=str(path)) from None
    except OSError as error:
        raise InvalidInput(f"The file cannot be read: {error.strerror}.", where=str(path)) from None
    if len(content) > MAX_BYTES:
        raise InvalidInput(f"The file has more than {MAX_BYTES:,} bytes.", where=str(path), remedy="Give a short one.")
    with files.disk_errors(run_folder / COPY):
        files.write_text(run_folder / COPY, text)
    return run_folder / COPY


def require_unchanged(copy: Path, sha256: str) -> None:
    """Raise `InvalidInput` unless the copy is the one that the run began with. Nothing of it is run."""
    if not copy.is_file() or files.sha256(copy) != sha256:
        raise InvalidInput(
            "The run's copy of its network is missing or was changed since the run began.",
            where=str(copy),
            remedy="Put the copy back as it was, or train again.",
        )


def load(path: Path) -> Callable[..., Any]:
    """Run the file, and return its function `network`.

    Raises:
        InvalidInput: the file fails, or has no such function.
    """
    if not path.is_file():
        raise NotFound("There is no such file.", where=str(path), remedy="Check --net.")
    # Compiled here, not imported: Python would rather run a stale or foreign __pycache__ than the text.
    text = path.read_text(encoding="utf-8-sig")
    module = ModuleType(f"vizsla_network_{hashlib.sha256(text.encode()).hexdigest()[:16]}")
    module.__file__ = str(path)
    linecache.checkcache(str(path))
    sys.modules[module.__name__] = module  # dataclasses and pickle look their classes up here
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise refused(path, error, "The file of the network fails") from error
    function = getattr(module, "network", None)
    if not callable(function):
        raise InvalidInput(
            "The file defines no function `network`.", where=str(path), remedy=f"It has to hold: {FUNCTION}: ..."
        )
    found: Callable[..., Any] = function
    return found


def refused(path: Path, error: BaseException, what: str) -> InvalidInput:
    """What a user's code raised, with the last of its own lines on the way there."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        line = frame.lineno if frame.filename == str(path) else line
    said = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
    remedy = "Mend the file."
    if isinstance(error, ModuleNotFoundError):
        remedy = "A network is one file. What it imports has to be installed where Vizsla is."
    return InvalidInput(f"{what}: {reason}.", where=f"{path}:{line}" if line else str(path), remedy=remedy)
