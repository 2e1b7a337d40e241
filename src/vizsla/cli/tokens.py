"""The tokens of servers, in a file that only their user can read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from vizsla import files, records
from vizsla.errors import InvalidInput

REMEDY = "Remove it, and ask for new tokens."


class Tokens(BaseModel):
    """What the file holds."""

    format: Literal["vizsla.tokens/1"] = "vizsla.tokens/1"
    tokens: dict[str, str] = {}
    """by address of the server"""


def path() -> Path:
    """Where the file lies."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "vizsla" / "tokens.json"


def find(url: str) -> str | None:
    """The token for a server, if there is one."""
    return _read().tokens.get(url)


def keep(url: str, token: str) -> None:
    """Keep a token for a server."""
    _write({**_read().tokens, url: token})


def forget(url: str) -> bool:
    """Remove the token for a server; returns whether there was one."""
    kept = _read().tokens
    if url not in kept:
        return False
    del kept[url]
    _write(kept)
    return True


def _read() -> Tokens:
    file = path()
    if not file.exists():
        return Tokens()
    if file.stat().st_mode & 0o077:
        raise InvalidInput("Others can read the tokens.", where=str(file), remedy=f"chmod 600 {file}")
    return records.read(file, Tokens, remedy=REMEDY)


def _write(kept: dict[str, str]) -> None:
    file = path()
    with files.disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    before = os.umask(0o077)
    try:
        files.write_json(file, Tokens(tokens=kept).model_dump(mode="json"))
    finally:
        os.umask(before)
