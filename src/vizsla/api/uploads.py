"""Verbs on uploads: archives and pictures that come in pieces, and go on where they were cut off."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from vizsla import events, files
from vizsla.datasets import archive, upload
from vizsla.datasets.upload import Kind, Upload
from vizsla.errors import Conflict, InvalidInput, NotFound, TooLarge, VizslaError
from vizsla.events import Event, EventLog
from vizsla.ids import new_id
from vizsla.store.workspace import Workspace

MAX_CHUNK_BYTES = 16 * 2**20
MAX_BYTES = 50 * 10**9
"""of an upload, unless a server says otherwise"""
MAX_PICTURES = 2_000_000
MAX_LIVE = 100
ABANDONED_S = 24 * 3600
LISTED_BYTES = 1_000_000


class Status(NamedTuple):
    """An upload, and how much of it is there."""

    upload: Upload
    offset: int
    """bytes that are there"""
    num_pictures: int
    """of a folder"""
    expires_at: float
    """when it is swept unless more of it comes, in seconds since 1970"""


class WrongOffset(Conflict):
    """The upload goes on elsewhere."""

    def __init__(self, offset: int) -> None:
        super().__init__(
            f"The upload goes on at byte {offset}.", where="Upload-Offset", remedy="Send what follows from there."
        )
        self.offset = offset


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
    root = _root(ws)
    ws.require_space(size or 0)
    id = new_id()
    with files.disk_errors(root / id):
        (root / id).mkdir()
        if kind == "folder":
            (root / id / upload.PICTURES).mkdir()
        record = Upload(id=id, name=name, kind=kind, owner=ws.user, created_at=events.now(), size=size, sha256=sha256)
        upload.write(root / id, record)
    return _status(root / id)


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


def get(ws: Workspace, id: str) -> Status:
    """An upload of `ws.user`.

    Raises:
        NotFound: there is none; those of others are none either.
    """
    return _status(_folder(ws, id))


def list_all(ws: Workspace) -> list[Status]:
    """The uploads of `ws.user`, oldest first."""
    found = []
    for path in _root(ws).iterdir():
        with contextlib.suppress(VizslaError, OSError):  # another's, or gone at this moment
            found.append(get(ws, path.name))
    return sorted(found, key=lambda status: (status.upload.created_at, status.upload.id))


def delete(ws: Workspace, id: str) -> Upload:
    """Delete an upload.

    Raises:
        Conflict: a dataset is being made from it, or another request is sending.
    """
    folder = _folder(ws, id)
    with _locked(folder):
        record = upload.open_upload(folder)
        _refuse_used(ws, record)
        upload.remove(folder)
    return record


class Receiving:
    """What comes of an archive or a picture, from an offset on; what came before it broke off stays.

    Holds the lock of the upload until it is closed.
    """

    def __init__(self, ws: Workspace, id: str, offset: int) -> None:
        """Raises what `append` does before anything is written."""
        self._folder = _folder(ws, id)
        self._lock = _lock(self._folder)
        try:
            record = upload.open_upload(self._folder)
            if record.kind == "folder":
                raise InvalidInput("A folder takes whole pictures.", where=id, remedy="PUT them below pictures/.")
            there = upload.offset(self._folder)
            if record.complete or offset != there:
                raise WrongOffset(there)
            _refuse_used(ws, record)
            assert record.size is not None
            self._left = min(record.size - there, MAX_CHUNK_BYTES)
            self._record = record
            ws.require_space()
            self._file = (self._folder / upload.DATA).open("ab", buffering=0)
        except BaseException:
            self._lock.release()
            raise

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            TooLarge: more than a request may send, or than were promised; nothing of `data` is kept.
            DiskFull: there is no room; what could be written stays.
        """
        if len(data) > self._left:
            limit = "than were promised" if self._left < MAX_CHUNK_BYTES else f"than {MAX_CHUNK_BYTES:,}"
            raise TooLarge(f"The request has more bytes {limit}.", where="size", remedy="Send smaller pieces.")
        self._left -= len(data)
        with files.disk_errors(self._folder):
            while data:
                data = data[self._file.write(data) :]

    def finish(self) -> Status:
        """Wait until all is on the disk; of an upload that is whole now, check the hash.

        Raises:
            InvalidInput: the hash is another. The upload begins anew.
        """
        with files.disk_errors(self._folder):
            os.fsync(self._file.fileno())
        if self._file.tell() == self._record.size:
            if self._record.sha256 not in (None, files.sha256(self._folder / upload.DATA)):
                self._file.truncate(0)
                raise InvalidInput(
                    "The SHA-256 is another one than was promised.",
                    where="sha256",
                    remedy="Send it again from byte 0; if that does not help, see whether the file is damaged.",
                )
            upload.write(self._folder, self._record.model_copy(update={"complete": True}))
        return _status(self._folder)

    def close(self) -> None:
        """Let go of the upload."""
        self._file.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def append(ws: Workspace, id: str, offset: int, data: bytes) -> Status:
    """Add a piece to an archive or a picture.

    Raises:
        WrongOffset: it goes on at another byte, which the error says.
        Conflict: another request is sending, or a dataset is being made from it.
        TooLarge: see `Receiving.write`.
        DiskFull: there is no room.
    """
    with Receiving(ws, id, offset) as receiving:
        receiving.write(data)
        return receiving.finish()


class ReceivingPicture:
    """A picture of a folder, as it comes; it is there when it is whole, and takes the place of an earlier one."""

    def __init__(self, ws: Workspace, id: str, path: str, *, max_bytes: int = MAX_BYTES) -> None:
        """Raises what `put_picture` does before anything is written."""
        self._folder = _folder(ws, id)
        record = upload.open_upload(self._folder)
        if record.kind != "folder":
            raise InvalidInput("This upload is one file.", where=id, remedy="PATCH it, with Upload-Offset.")
        _refuse_used(ws, record)
        self._path = archive.safe_path(path)
        if not self._path or path.endswith("/") or not all(map(_is_visible, self._path.split("/"))):
            raise InvalidInput("This is no name of a picture.", where="path", remedy="Give CLASS/FILE.")
        self._ws, self._max_bytes = ws, max_bytes
        self._digest, self._num_bytes = hashlib.sha256(), 0
        ws.require_space(MAX_CHUNK_BYTES)
        self._temporary = self._folder / f".{new_id()}.tmp"
        self._file = self._temporary.open("xb", buffering=0)

    def write(self, data: bytes) -> None:
        """Append bytes; raises as `Receiving.write` does."""
        self._num_bytes += len(data)
        if self._num_bytes > MAX_CHUNK_BYTES:
            remedy = "Send larger pictures in an archive."
            raise TooLarge(f"A picture has {MAX_CHUNK_BYTES:,} bytes at most.", where=self._path, remedy=remedy)
        self._digest.update(data)
        with files.disk_errors(self._temporary):
            while data:
                data = data[self._file.write(data) :]

    def finish(self) -> Status:
        """Put the picture in its place, and its name into the list."""
        with _locked(self._folder, patience_s=10), files.disk_errors(self._folder):
            record = upload.open_upload(self._folder)
            _refuse_used(self._ws, record)
            place = self._folder / upload.PICTURES / self._path
            before = self._listed_bytes() if place.is_file() else None
            count, total = upload.came(self._folder)
            count, total = count + (before is None), total + self._num_bytes - (before or 0)
            if count > MAX_PICTURES or total > self._max_bytes:
                what = f"An upload has {MAX_PICTURES:,} pictures and {self._max_bytes:,} bytes at most."
                raise TooLarge(what, remedy="Divide it.")
            self._place(place)
            with EventLog(self._folder / upload.LIST) as log:
                log.write(
                    "picture",
                    path=self._path,
                    bytes=self._num_bytes,
                    sha256=self._digest.hexdigest(),
                    count=count,
                    total_bytes=total,
                )
        return _status(self._folder)

    def _listed_bytes(self) -> int | None:
        """Of the picture that has this place; None: it is not in the list, as before that the process was killed."""
        lines = events.backwards(self._folder / upload.LIST)
        return next((line["bytes"] for line in lines if line["path"] == self._path), None)

    def _place(self, place: Path) -> None:
        os.fsync(self._file.fileno())
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.replace(place)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise Conflict("It is a folder and a picture at once.", where=self._path) from None
        files.fsync(place.parent)

    def close(self) -> None:
        """Remove what did not become a picture."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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


def pictures(ws: Workspace, id: str, after: int = 0) -> tuple[list[Event], int]:
    """The pictures that came into a folder since the place `after`, and the place to go on from."""
    path = _folder(ws, id) / upload.LIST
    if not events.is_place(path, after):
        raise InvalidInput("This is no place to go on from.", where="after", remedy="Begin without it.")
    return events.read(path, after, at_least=LISTED_BYTES)


@contextlib.contextmanager
def taken(ws: Workspace, ids: Sequence[str], dataset: str) -> Iterator[None]:
    """Take uploads for a dataset that is put into the queue within; nobody changes them meanwhile or later.

    Raises:
        InvalidInput: one is not whole, holds nothing, or is a single picture.
        Conflict: another dataset is being made from it.
    """
    with contextlib.ExitStack() as stack:
        for id in ids:
            folder = _folder(ws, id)
            stack.enter_context(_locked(folder))
            record = upload.open_upload(folder)
            _refuse_used(ws, record)
            _require_whole(record, folder)
            upload.write(folder, record.model_copy(update={"used_by": dataset}))
        yield


def require_whole(ws: Workspace, id: str) -> None:
    """Raise what `taken` does of an upload of `ws.user`; it stays free."""
    folder = _folder(ws, id)
    _require_whole(upload.open_upload(folder), folder)


def _require_whole(record: Upload, folder: Path) -> None:
    if record.kind == "picture":
        what = "A dataset is made from an archive or a folder, and this upload is one picture."
    elif record.kind == "folder":
        what = "" if upload.came(folder)[0] else "The upload has no pictures yet."
    else:
        what = "" if record.complete else f"Of the upload {upload.offset(folder)} of {record.size} bytes are there."
    if what:
        raise InvalidInput(what, where=record.id, remedy="Upload the pictures first.")


def sweep(ws: Workspace, *, older_than_s: float = ABANDONED_S) -> list[str]:
    """Remove the uploads that nobody has sent more of for so long, and those that were used; returns their ids."""
    swept = []
    for folder in sorted(_root(ws).iterdir()):
        with contextlib.suppress(VizslaError, OSError), _locked(folder, patience_s=0):
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
    used = used_by is not None and ws.is_finished("dataset", used_by)
    return used or time.time() - _changed_at(folder) > older_than_s


def _changed_at(folder: Path) -> float:
    paths = (folder, *(folder / name for name in (upload.RECORD, upload.DATA, upload.LIST)))
    return max(path.stat().st_mtime for path in paths if path.exists())


def _refuse_used(ws: Workspace, record: Upload) -> None:
    job = ws.store.jobs.live_of(record.used_by) if record.used_by else None
    if job is not None:
        raise Conflict(
            f"The dataset {job.name!r} is being made from the upload.",
            where=record.id,
            remedy="Wait until it is made; its pictures are its own then.",
        )


def _root(ws: Workspace) -> Path:
    root = ws.root / upload.UPLOADS
    root.mkdir(exist_ok=True)
    return root


def _folder(ws: Workspace, id: str) -> Path:
    """The folder of an upload of `ws.user`."""
    folder = _root(ws) / id
    if not re.fullmatch("[0-9a-z]{1,16}", id) or upload.open_upload(folder).owner != ws.user:
        raise NotFound(f"There is no upload {id[:50]!r}.", where="upload", remedy="It may have been used, or swept.")
    return folder


def _lock(folder: Path, patience_s: float = 0.3) -> files.Lock:
    lock = files.Lock(folder)
    try:
        lock.acquire(patience_s)
    except Conflict:
        raise Conflict(
            "Another request is sending to this upload.", where=folder.name, remedy="Ask again soon."
        ) from None
    except FileNotFoundError:
        raise NotFound(f"There is no upload {folder.name!r}.", where="upload") from None
    return lock


@contextlib.contextmanager
def _locked(folder: Path, patience_s: float = 0.3) -> Iterator[None]:
    lock = _lock(folder, patience_s)
    try:
        yield
    finally:
        lock.release()


def _is_visible(part: str) -> bool:
    return not part.startswith(".")


def _status(folder: Path) -> Status:
    record = upload.open_upload(folder)
    if record.kind == "folder":
        count, there = upload.came(folder)
    else:
        count, there = 0, upload.offset(folder)
    return Status(record, there, count, _changed_at(folder) + ABANDONED_S)
