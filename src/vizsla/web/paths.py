"""Which files of the server a request may name."""

from __future__ import annotations

from pathlib import Path

from fastapi import Request

from vizsla.errors import InvalidInput

# The weights that a run finds by itself.
NO_PATH = "auto"


def require_allowed(request: Request, path: Path | str | None, *, where: str) -> None:
    """Raise `InvalidInput` unless a path lies in a folder that the server was told to allow.

    What lies elsewhere is refused alike, whether it is there or not.
    """
    if path is None or path == NO_PATH:
        return
    allowed: tuple[Path, ...] = request.app.state.allowed
    resolved = Path(path).resolve()
    if any(resolved.is_relative_to(folder) for folder in allowed):
        return
    raise InvalidInput(
        "The server may not read files there.",
        where=where,
        remedy="Name a folder that `vizsla serve` was told to allow, with --allow FOLDER.",
    )
