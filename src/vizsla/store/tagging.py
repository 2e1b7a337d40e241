"""Tags are written into the folder of a thing and into the database, which follows the folders in whatever happened."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import warnings
from collections.abc import Sequence
from pathlib import Path

from vizsla import files
from vizsla.errors import Busy, Conflict, VizslaError
from vizsla.store import tagnames
from vizsla.store.rows import Kind
from vizsla.store.workspace import FINAL_FILE, PASSING, Workspace

TAGGING = "tagging"
"""the folder of a workspace whose lock is held while tags are changed"""
STAMP = "stamp"
"""The file in it that changes with every writing. The database has the stamp of the writing that it knows as the last.

The two differ after a kill between file and rows, when a backup of the database was brought back, when the table was
made just now, and when this file is lost: then all files of tags are read, and the rows are made anew."""

# Others write for the time of two flushes to the disk each. Who is stuck is not waited for by all threads of a server.
PATIENCE_S = 2.0


def write(ws: Workspace, kind: Kind, id: str, found: Sequence[str]) -> None:
    """Give a thing these tags, cleaned, and no others; also one that is being worked on.

    First there is a new stamp, then the thing's file is written, then its rows together with the stamp. Who is killed
    at any point of this, or fails, leaves stamps that differ, by which `heal` brings the rows to what the files say.
    All this happens under one lock, so that of two who write at a time the one whose file is the last also writes the
    last rows.

    Raises:
        FileNotFoundError: the thing was deleted at this moment. Nothing of it is left behind.
        Busy: others write for long.
    """
    lock = _lock(ws)
    try:
        lock.acquire(PATIENCE_S)
    except Conflict as error:
        what = f"Tags are being changed by others: {error.what}"
        raise Busy(what, where=error.where, remedy="Try again in some seconds; if it stays so, see to it.") from None
    try:
        # Where the rows were behind already, they still are when these are right, and `heal` has to do the rest.
        agreed, stamp = _agree(ws), secrets.token_hex(16)
        files.write_text(_folder(ws) / STAMP, stamp)
        there = _put(ws, kind, id, found)
        ws.store.tags.replace(id, found if there else [], stamp if agreed else None)
        if not there:
            raise FileNotFoundError(ws.folder(kind, id))
    finally:
        lock.release()


def _put(ws: Workspace, kind: Kind, id: str, found: Sequence[str]) -> bool:
    """Write the file of a thing; returns whether that was there to the end of it."""
    folder = ws.folder(kind, id)
    path = folder / tagnames.FILE
    try:
        files.write_text(path, "".join(f"{one}\n" for one in found)) if found else path.unlink(missing_ok=True)
    except FileNotFoundError:
        return False
    if ws.is_finished(kind, id):
        return True
    # Who deletes it takes that file first, and a folder into which something was put meanwhile would be left.
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
    return False


def heal(ws: Workspace) -> None:
    """Bring the rows of tags to what the files say, where the two may differ."""
    if _agree(ws):  # as nearly always; looked at without a lock
        return
    lock = _lock(ws)
    try:
        lock.acquire(patience_s=0)
    except (VizslaError, OSError):  # somebody writes, or the disk is full: it is done later
        return
    try:
        if not _agree(ws):
            _make_anew(ws)
    except (VizslaError, OSError) as error:
        warnings.warn(f"Lists do not know all tags yet: {error}", stacklevel=2)
    finally:
        lock.release()


def _make_anew(ws: Workspace) -> None:
    """Make all rows from the files. The lock is held.

    What cannot be read keeps its rows, and does not stop the rest; as the stamps differ then, it is tried again.
    """
    found: dict[str, list[str]] = {}
    unread: list[str] = []
    for kind in FINAL_FILE.keys() - PASSING:
        with os.scandir(ws.root / f"{kind}s") as folders:
            for item in folders:
                try:
                    found[item.name] = tagnames.of_folder(Path(item.path))
                except NotADirectoryError:
                    continue
                except OSError as error:
                    unread.append(item.name)
                    warnings.warn(f"Lists do not know all tags yet: {error}", stacklevel=3)
    stamp = _stamp(ws)
    if stamp is None:
        stamp = secrets.token_hex(16)
        files.write_text(_folder(ws) / STAMP, stamp)
    ws.store.tags.make_anew(found, unread, None if unread else stamp)


def _agree(ws: Workspace) -> bool:
    """Whether the rows are known to be what the files say."""
    stamp = _stamp(ws)
    return stamp is not None and stamp == ws.store.tags.stamp()


def _stamp(ws: Workspace) -> str | None:
    """What the file says. What cannot be read, or was not written here, is as good as none: there will be another."""
    try:
        text = (_folder(ws) / STAMP).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text if re.fullmatch("[0-9a-f]{32}", text) else None


def _lock(ws: Workspace) -> files.Lock:
    with contextlib.suppress(OSError):  # who takes the lock is told
        _folder(ws).mkdir(exist_ok=True)
    return files.Lock(_folder(ws))


def _folder(ws: Workspace) -> Path:
    return ws.root / TAGGING
