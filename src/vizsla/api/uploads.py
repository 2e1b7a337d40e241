"""Verbs on uploads: archives and pictures that come in pieces, and go on where they were cut off."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vizsla import events, files
from vizsla.api.receiving import (
    ABANDONED_S,
    MAX_CHUNK_BYTES,
    PASSING,
    Receiving,
    ReceivingPicture,
    changed_at,
    folder_of,
    locked,
    refuse_used,
    status_of,
    uploads_of,
)
from vizsla.api.served import served
from vizsla.client.server import Away, Server
from vizsla.datasets import archive, upload
from vizsla.datasets.read import in_order
from vizsla.datasets.scan import walk
from vizsla.datasets.upload import MAX_BYTES, Kind, Picture, Status, Upload
from vizsla.errors import Conflict, InvalidInput, NotFound, TooLarge, VizslaError
from vizsla.events import Event, ignore_event
from vizsla.ids import new_id
from vizsla.store.rows import Kind as MadeKind
from vizsla.store.workspace import Workspace

# What is lost when a line is cut, and how often is told how it goes.
PIECE_BYTES = 4 * 2**20
SENDERS = 4
PATIENCE_S, PAUSE_S = 60.0, 0.5
HASHED_BYTES_PER_S = 50e6
"""what a slow disk gives: a request that hashes a large upload holds it for longer than a line is waited for"""
MAX_LIVE = 100
LISTED_BYTES = 1_000_000
MADE_FROM_UPLOADS: tuple[MadeKind, ...] = ("dataset", "prediction")


@served
def create(
    ws: Workspace,
    name: str,
    *,
    kind: Kind = "archive",
    size: int | None = None,
    sha256: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> Status:
    """Begin an upload, which belongs to `ws.user`.

    Args:
        name: what it is called, such as the archive's file name.
        size: bytes of an archive or a picture; a folder takes pictures until it is used.
        sha256: what the whole shall have, as 64 hexadecimal digits; checked at the end.
        max_bytes: of any upload; a server has a bound of its own.

    Raises:
        InvalidInput: these do not go together.
        TooLarge: it is larger than uploads may be.
        DiskFull: there is no room for it.
        Conflict: there are many uploads already.
    """
    _check(name, kind, size, sha256)
    if (size or 0) > max_bytes:
        raise TooLarge(f"An upload has {max_bytes:,} bytes at most.", where="size", remedy="Divide it.")
    sweep(ws)
    if len(list_all(ws)) >= MAX_LIVE:
        raise Conflict(f"You have {MAX_LIVE} uploads that were not used.", remedy="Delete some of them.")
    root = uploads_of(ws)
    ws.require_space(size or 0)
    id = new_id()
    with files.disk_errors(root / id):
        (root / id).mkdir()
        if kind == "folder":
            (root / id / upload.PICTURES).mkdir()
        record = Upload(id=id, name=name, kind=kind, owner=ws.user, created_at=events.now(), size=size, sha256=sha256)
        upload.write(root / id, record)
    return status_of(ws, root / id)


def _check(name: str, kind: Kind, size: int | None, sha256: str | None) -> None:
    if not name.strip() or len(name) > 200 or not name.isprintable():
        raise InvalidInput("The name is empty, too long, or not to be printed.", where="name")
    if (size is None) != (kind == "folder"):
        what = "A folder has no size: its pictures do." if kind == "folder" else "The size in bytes is needed."
        raise InvalidInput(what, where="size")
    if size is not None and size < 1:
        raise InvalidInput("There is nothing to upload.", where="size")
    if sha256 is not None and (kind == "folder" or not re.fullmatch("[0-9a-f]{64}", sha256)):
        raise InvalidInput("This is no SHA-256 of one file: 64 hexadecimal digits.", where="sha256")


@served
def get(ws: Workspace, id: str) -> Status:
    """An upload of `ws.user`.

    Raises:
        NotFound: there is none; those of others are none either.
    """
    return status_of(ws, folder_of(ws, id))


@served
def list_all(ws: Workspace) -> list[Status]:
    """The uploads of `ws.user`, oldest first."""
    found = []
    for path in uploads_of(ws).iterdir():
        with contextlib.suppress(VizslaError, OSError):  # another's, or gone at this moment
            found.append(get(ws, path.name))
    return sorted(found, key=lambda status: (status.upload.created_at, status.upload.id))


@served
def delete(ws: Workspace, id: str) -> Upload:
    """Delete an upload.

    Raises:
        Conflict: something is being made from it, or another request is sending.
    """
    folder = folder_of(ws, id)
    with locked(folder):
        record = upload.open_upload(folder)
        refuse_used(ws, record)
        upload.remove(folder)
    return record


@served
def append(ws: Workspace, id: str, offset: int, data: bytes) -> Status:
    """Add a piece to an archive or a picture.

    Raises:
        WrongOffset: it goes on at another byte, which the error says.
        Conflict: another request is sending, or something is being made from it.
        TooLarge: see `Receiving.write`.
        DiskFull: there is no room.
    """
    with Receiving(ws, id, offset) as receiving:
        receiving.write(data)
        return receiving.finish()


@served
def put_picture(ws: Workspace, id: str, path: str, data: bytes) -> Status:
    """Put a picture into a folder, as CLASS/FILE; one that is there already is replaced.

    Raises:
        InvalidInput: the path leads elsewhere, or the upload is no folder.
        TooLarge: the picture, or all together.
        DiskFull: there is no room.
    """
    with ReceivingPicture(ws, id, path) as receiving:
        receiving.write(data)
        return receiving.finish()


@served
def pictures(ws: Workspace, id: str, after: int = 0) -> tuple[list[Picture], int]:
    """The pictures that came into a folder since the place `after`, and the place to go on from."""
    path = folder_of(ws, id) / upload.LIST
    if not events.is_place(path, after):
        raise InvalidInput("This is no place to go on from.", where="after", remedy="Begin without it.")
    lines, place = events.read(path, after, at_least=LISTED_BYTES)
    return [Picture(line["path"], line["bytes"], line["sha256"]) for line in lines], place


def send(ws: Workspace | Server, path: Path | str, *, on_event: Callable[[Event], None] = ignore_event) -> Status:
    """Upload an archive, or the files of a folder, and wait until all is there.

    It goes on where an upload of the same content was cut off, in this call or in one before. The `source` of what it
    returns stands for the pictures in a `DatasetSpec`, or as the source of a prediction; what is not used is removed
    after a day.

    Args:
        path: on this machine: an archive, or a folder of pictures of 16 MiB at most each; hidden files are left out.
        on_event: told `progress` events of the stage "upload", in bytes.

    Raises:
        InvalidInput: it is neither, has no pictures, or a file that cannot be sent.
        TooLarge: it is larger than uploads may be.
        DiskFull: there is no room for it there.
        Away: the server does not answer; what came stays, and the next call goes on from there.
    """
    place = Path(path).expanduser().absolute()
    try:
        if place.is_dir():
            return _send_folder(ws, place, on_event)
        if archive.kind_of(place) is not None:
            return _send_archive(ws, place, on_event)
    except OSError as error:
        raise InvalidInput(f"It cannot be read: {error.strerror}.", where=str(place)) from None
    raise InvalidInput(
        "This is neither a folder nor an archive.", where=str(place), remedy=f"Send one of these. {archive.FORMATS}"
    )


def sweep(ws: Workspace, *, older_than_s: float = ABANDONED_S) -> list[str]:
    """Remove the uploads that nobody has sent more of for so long, and those that were used; returns their ids."""
    swept = []
    for folder in sorted(uploads_of(ws).iterdir()):
        with contextlib.suppress(VizslaError, OSError), locked(folder, patience_s=0):
            if _is_done_with(ws, folder, older_than_s):
                upload.remove(folder)
                swept.append(folder.name)
    return swept


def _is_done_with(ws: Workspace, folder: Path, older_than_s: float) -> bool:
    used_by = None
    with contextlib.suppress(NotFound, InvalidInput):
        used_by = upload.open_upload(folder).used_by
    if used_by is not None and ws.store.jobs.live_of(used_by):
        return False
    used = used_by is not None and any(ws.is_finished(kind, used_by) for kind in MADE_FROM_UPLOADS)
    return used or time.time() - changed_at(folder) > older_than_s


def _send_archive(ws: Workspace | Server, path: Path, on_event: Callable[[Event], None]) -> Status:
    size, sha256 = path.stat().st_size, files.sha256(path)
    same = (one for one in list_all(ws) if (one.upload.size, one.upload.sha256) == (size, sha256))
    begun = next((one for one in same if one.upload.kind == "archive" and one.upload.used_by is None), None)
    status = begun or create(ws, _name(path), size=size, sha256=sha256)
    id = status.upload.id
    with path.open("rb") as file:
        while not status.upload.complete:
            _tell(on_event, status.offset, size)
            file.seek(status.offset)
            data = file.read(PIECE_BYTES)
            if not data and status.offset < size:
                raise InvalidInput("The file has become shorter while it was sent.", where=id, remedy="Send it again.")
            # Where all is there and was not looked at, an empty piece ends it.
            status = _append(ws, id, status.offset, data, size)
    _tell(on_event, size, size)
    return status


def _append(ws: Workspace | Server, id: str, offset: int, data: bytes, size: int) -> Status:
    ends_it = offset + len(data) >= size

    def moved() -> Status | None:
        status = get(ws, id)
        if ends_it and status.offset < offset:  # else a file that changes would be sent for ever
            what = "What came there was not what was promised, and the upload begins anew."
            raise InvalidInput(what, where=id, remedy="See whether the file was changed meanwhile, and send it again.")
        return status if status.offset != offset or status.upload.complete else None

    patience_s = PATIENCE_S + (size / HASHED_BYTES_PER_S if ends_it else 0.0)
    return _once_more(partial(append, ws, id, offset, data), moved, patience_s=patience_s)


class _Local(NamedTuple):
    """A file of a folder that is sent."""

    path: str
    """from the folder on"""
    file: Path
    size: int


def _send_folder(ws: Workspace | Server, folder: Path, on_event: Callable[[Event], None]) -> Status:
    found = {one.path: one for one in _files(folder)}
    id, there = _begun_folder(ws, folder, found)
    done, total = sum(found[path].size for path in there), sum(one.size for one in found.values())

    def put(one: _Local) -> int:
        _once_more(partial(put_picture, ws, id, one.path, one.file.read_bytes()))
        return one.size

    _tell(on_event, done, total)
    # Closed at once on an error, so that no thread goes on sending.
    with contextlib.closing(
        in_order((one for path, one in found.items() if path not in there), put, workers=SENDERS)
    ) as sent:
        for size in sent:
            done += size
            _tell(on_event, done, total)
    return get(ws, id)


def _begun_folder(ws: Workspace | Server, folder: Path, found: Mapping[str, _Local]) -> tuple[str, set[str]]:
    """The upload of a folder, and what of it is there: one that was begun, where all that it holds is as it is here."""
    for status in reversed(list_all(ws)):
        record = status.upload
        if (record.kind, record.name, record.used_by) == ("folder", _name(folder), None):
            listed = _listed(ws, record.id)
            if all(path in found and files.sha256(found[path].file) == hash for path, hash in listed.items()):
                return record.id, set(listed)
    return create(ws, _name(folder), kind="folder").upload.id, set()


def _listed(ws: Workspace | Server, id: str) -> dict[str, str]:
    """The hashes of the pictures that came into a folder, by path; of one that came twice, the last."""
    listed: dict[str, str] = {}
    after = 0
    while True:
        found, place = pictures(ws, id, after)
        listed |= {one.path: one.sha256 for one in found}
        if not found or place == after:
            return listed
        after = place


def _files(folder: Path) -> list[_Local]:
    """The files of a folder that are sent, by path; refused before anything is sent."""
    found = []
    for file, reason in walk(str(folder)):
        if reason is None:
            path = archive.safe_path(Path(file).relative_to(folder).as_posix())
            found.append(_Local(path, Path(file), Path(file).stat().st_size))
    if not found:
        raise InvalidInput("There are no pictures.", where=str(folder), remedy="Name a folder that has some.")
    for one in found:
        if one.size > MAX_CHUNK_BYTES:
            what = f"A file of a folder that is sent has {MAX_CHUNK_BYTES:,} bytes at most."
            raise InvalidInput(what, where=str(one.file), remedy="Remove it, or pack the folder and send the archive.")
    return sorted(found)


def _once_more(
    act: Callable[[], Status], moved: Callable[[], Status | None] = lambda: None, *, patience_s: float = PATIENCE_S
) -> Status:
    """Send a piece, and again where a line is cut; or what `moved` gives, where the piece is there nevertheless."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return act()
        except (Away, Conflict) as error:
            # The server has not noticed yet that the line was cut, or has all and looks whether it is whole.
            passing = isinstance(error, Away) or error.where in PASSING
            if not passing or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE_S)
        if (status := moved()) is not None:
            return status


def _name(path: Path) -> str:
    return path.name[-200:] or "pictures"


def _tell(on_event: Callable[[Event], None], done: int, total: int) -> None:
    on_event({"event": "progress", "at": events.now(), "stage": "upload", "done": done, "total": total})
