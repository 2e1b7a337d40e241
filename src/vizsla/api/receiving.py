"""The bytes of an upload as they come: under its lock, with a bound, and whole on the disk before they count."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from vizsla import events, files
from vizsla.datasets import archive, upload
from vizsla.datasets.upload import MAX_BYTES, Status, Upload
from vizsla.errors import Conflict, InvalidInput, NotFound, TooLarge, VizslaError
from vizsla.events import EventLog
from vizsla.ids import new_id
from vizsla.store.workspace import Workspace

MAX_CHUNK_BYTES = 16 * 2**20
MAX_PICTURES = 2_000_000
ABANDONED_S = 24 * 3600
PASSING = ("Upload-Offset", "Upload-Lock")
"""`where` of the conflicts that end by themselves, or by a look at the upload; it is all that a client gets of them"""


class WrongOffset(Conflict):
    """The upload goes on elsewhere."""

    def __init__(self, offset: int) -> None:
        super().__init__(
            f"The upload goes on at byte {offset}.", where=PASSING[0], remedy="Send what follows from there."
        )
        self.offset = offset


class Receiving:
    """What comes of an archive or a picture, from an offset on; what came before it broke off stays.

    Holds the lock of the upload until it is closed.
    """

    def __init__(self, ws: Workspace, id: str, offset: int) -> None:
        """Raises what `append` does before anything is written."""
        self._ws, self._folder = ws, folder_of(ws, id)
        self._lock = locking(self._folder)
        try:
            record = upload.open_upload(self._folder)
            if record.kind == "folder":
                raise InvalidInput("A folder takes whole pictures.", where=id, remedy="PUT them below pictures/.")
            there = upload.offset(self._folder)
            if record.complete or offset != there:
                raise WrongOffset(there)
            refuse_used(ws, record)
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
        return status_of(self._ws, self._folder)

    def close(self) -> None:
        """Let go of the upload."""
        self._file.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ReceivingPicture:
    """A picture of a folder, as it comes; it is there when it is whole, and takes the place of an earlier one."""

    def __init__(self, ws: Workspace, id: str, path: str, *, max_bytes: int = MAX_BYTES) -> None:
        """Raises what `put_picture` does before anything is written."""
        self._folder = folder_of(ws, id)
        record = upload.open_upload(self._folder)
        if record.kind != "folder":
            raise InvalidInput("This upload is one file.", where=id, remedy="PATCH it, with Upload-Offset.")
        refuse_used(ws, record)
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
        with locked(self._folder, patience_s=10), files.disk_errors(self._folder):
            record = upload.open_upload(self._folder)
            refuse_used(self._ws, record)
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
        return status_of(self._ws, self._folder)

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


def changed_at(folder: Path) -> float:
    """When something of an upload came last, in seconds since 1970."""
    paths = (folder, *(folder / name for name in (upload.RECORD, upload.DATA, upload.LIST)))
    return max(path.stat().st_mtime for path in paths if path.exists())


def refuse_used(ws: Workspace, record: Upload) -> None:
    """Raise `Conflict` while something is being made from an upload."""
    job = ws.store.jobs.live_of(record.used_by) if record.used_by else None
    if job is not None:
        raise Conflict(
            f"The {job.kind} {job.name!r} is being made from the upload.",
            where=record.id,
            remedy="Wait until it is made.",
        )


def uploads_of(ws: Workspace) -> Path:
    """The folder in which uploads lie."""
    root = ws.root / upload.UPLOADS
    root.mkdir(exist_ok=True)
    return root


def folder_of(ws: Workspace, id: str) -> Path:
    """The folder of an upload of `ws.user`."""
    folder = uploads_of(ws) / id
    if not re.fullmatch("[0-9a-z]{1,16}", id) or upload.open_upload(folder).owner != ws.user:
        raise NotFound(f"There is no upload {id[:50]!r}.", where="upload", remedy="It may have been used, or swept.")
    return folder


def locking(folder: Path, patience_s: float = 0.3) -> files.Lock:
    """The lock of an upload, taken, to be released."""
    lock = files.Lock(folder)
    try:
        lock.acquire(patience_s)
    except Conflict:
        raise Conflict(
            "Another request is sending to this upload.", where=PASSING[1], remedy="Ask again soon."
        ) from None
    except FileNotFoundError:
        raise NotFound(f"There is no upload {folder.name!r}.", where="upload") from None
    return lock


@contextlib.contextmanager
def locked(folder: Path, patience_s: float = 0.3) -> Iterator[None]:
    """Hold the lock of an upload."""
    lock = locking(folder, patience_s)
    try:
        yield
    finally:
        lock.release()


def _is_visible(part: str) -> bool:
    return not part.startswith(".")


def status_of(ws: Workspace, folder: Path) -> Status:
    """How far an upload has come. What was to be made from it and came to nothing does not use it any more."""
    record = upload.open_upload(folder)
    if record.used_by is not None and not ws.store.known([record.used_by]):
        record = record.model_copy(update={"used_by": None})
    if record.kind == "folder":
        count, there = upload.came(folder)
    else:
        count, there = 0, upload.offset(folder)
    return Status(record, there, count, changed_at(folder) + ABANDONED_S)


@contextlib.contextmanager
def taken(ws: Workspace, ids: Sequence[str], thing: str) -> Iterator[None]:
    """Take uploads for what is put into the queue within; nobody changes them while that is made.

    Raises:
        InvalidInput: one is not whole, holds nothing, or is a single picture.
        Conflict: something else is being made from it.
    """
    with contextlib.ExitStack() as stack:
        for id in ids:
            folder = folder_of(ws, id)
            stack.enter_context(locked(folder))
            record = upload.open_upload(folder)
            refuse_used(ws, record)
            _require_whole(record, folder)
            stack.enter_context(_used(ws, folder, record, thing))
        yield


@contextlib.contextmanager
def _used(ws: Workspace, folder: Path, record: Upload, thing: str) -> Iterator[None]:
    """Say what an upload is used by, unless nothing is put into the queue within."""
    upload.write(folder, record.model_copy(update={"used_by": thing}))
    try:
        yield
    except BaseException:
        with contextlib.suppress(VizslaError):  # the database is away: what is not there uses nothing, see `status_of`
            if ws.store.jobs.live_of(thing) is None:
                upload.write(folder, record.model_copy(update={"used_by": None}))
        raise


@contextlib.contextmanager
def opened(ws: Workspace, id: str) -> Iterator[Path]:
    """The file of an archive that was uploaded; it is removed when what is done with it within has succeeded.

    Raises:
        InvalidInput: it is no archive, or not whole.
        Conflict: a dataset is being made from it, or another request is sending.
    """
    folder = folder_of(ws, id)
    with locked(folder):
        record = upload.open_upload(folder)
        refuse_used(ws, record)
        if record.kind != "archive":
            raise InvalidInput(f"The upload is a {record.kind}, not an archive.", where=id, remedy="Upload an archive.")
        _require_whole(record, folder)
        yield folder / upload.DATA
        upload.remove(folder)


def require_whole(ws: Workspace, id: str) -> None:
    """Raise what `taken` does of an upload of `ws.user`; it stays free."""
    folder = folder_of(ws, id)
    _require_whole(upload.open_upload(folder), folder)


def _require_whole(record: Upload, folder: Path) -> None:
    if record.kind == "picture":
        what = "What is made from an upload takes an archive or a folder, and this one is one picture."
    elif record.kind == "folder":
        what = "" if upload.came(folder)[0] else "The upload has no pictures yet."
    else:
        what = "" if record.complete else f"Of the upload {upload.offset(folder)} of {record.size} bytes are there."
    if what:
        raise InvalidInput(what, where=record.id, remedy="Upload the pictures first.")
