"""Tags are written into the folder of a thing and into the database, and agree after a crash between the two."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from vizsla import files
from vizsla.errors import VizslaError
from vizsla.store import tags
from vizsla.store.rows import Kind
from vizsla.store.workspace import Workspace

TAGGING = "tagging"
"""the folder of a workspace that names the things whose tags are being changed; its lock is held meanwhile"""

# Others write for the time of three flushes to the disk each.
PATIENCE_S = 10.0


def write(ws: Workspace, kind: Kind, id: str, found: Sequence[str]) -> None:
    """Give a thing these tags, cleaned, and no others; also one that is being worked on.

    First it is written down that the thing is being tagged, then its file is written, then its rows, and the first
    note is removed. Who is killed at any point of this, or fails, leaves the thing as it was, or the note by which
    `heal` brings the rows to what the file says. All this happens under one lock, so that of two who write at a time
    the one whose file is the last also writes the last rows.

    Raises:
        FileNotFoundError: the thing was deleted at this moment.
    """
    folder, note = ws.folder(kind, id), _notes(ws) / f"{kind}-{id}"
    path, lock = folder / tags.FILE, files.Lock(_notes(ws))
    lock.acquire(PATIENCE_S)
    try:
        files.write_text(note, "")
        files.write_text(path, "".join(f"{one}\n" for one in found)) if found else path.unlink(missing_ok=True)
        _settle(ws, note)
    finally:
        lock.release()


def heal(ws: Workspace) -> None:
    """Bring the rows of tags to what the files say, where the writing was cut short."""
    if not _left(ws):  # as nearly always; looked at without a lock
        return
    lock = files.Lock(_notes(ws))
    try:
        lock.acquire(patience_s=0)
    except VizslaError:  # somebody writes, or the disk is full: it is done later
        return
    try:
        for note in _left(ws):
            _settle(ws, note)
    except (VizslaError, OSError) as error:
        warnings.warn(f"Lists do not know all tags yet: {error}", stacklevel=2)
    finally:
        lock.release()


def _settle(ws: Workspace, note: Path) -> None:
    """The last steps of a writing. The lock is held."""
    kind, _, id = note.name.partition("-")
    ws.store.tags.replace(id, tags.of_folder(ws.folder(cast(Kind, kind), id)))
    note.unlink(missing_ok=True)


def _notes(ws: Workspace) -> Path:
    return ws.root / TAGGING


def _left(ws: Workspace) -> list[Path]:
    """The notes that there are. What begins with a dot is the lock, or a note of which nothing has come."""
    return [note for note in _notes(ws).iterdir() if not note.name.startswith(".")]
