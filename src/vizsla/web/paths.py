"""Which files of the server a request may name."""

from __future__ import annotations

from pathlib import Path

from fastapi import Request

from vizsla.errors import InvalidInput


def allowed(request: Request, path: Path | str, *, where: str) -> Path:
    """The path, with its links followed, if it lies in a folder that the server was told to allow.

    What lies elsewhere is refused alike, whether it is there or not. Links below the allowed folders are followed:
    who may write there may name any file that the server can read.

    Raises:
        InvalidInput: it does not lie there, or is not absolute.
    """
    folders: tuple[Path, ...] = request.app.state.allowed
    try:
        resolved = Path(path).resolve() if Path(path).is_absolute() else None
    except (OSError, ValueError, RuntimeError):  # a NUL, a loop of links
        resolved = None
    if resolved is None or not any(resolved.is_relative_to(folder) for folder in folders):
        raise InvalidInput(
            "The server may not read files there.",
            where=where,
            remedy="Name a folder that `vizsla serve` was told to allow, with --allow FOLDER.",
        )
    return resolved
