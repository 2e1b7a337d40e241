"""Files that are whole or absent: atomic writes, content hashes, locks, free space.

A file is written beside its target, flushed to the disk and renamed over it. A reader, or the next start after a
power cut, sees the old content or the new one, never half of either. The cost is one fsync a file, so this is for
results, not for every line of a log.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from vizsla.errors import Conflict, DiskFull, InvalidInput

LOCK = ".lock"


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on leaving without an error it is fsynced and renamed to `path`.

    Raises:
        DiskFull: the disk has no room; `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with disk_errors(path):
            yield temporary
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InvalidInput: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput("A file that should be there is missing.", where=str(path)) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The file is not valid JSON: {error}.", where=str(path)) from None


def fsync(path: Path) -> None:
    """Wait until the content of a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" of the operating system into `DiskFull`, which says where and what to do."""
    try:
        yield
    except Exception as error:
        if not _says_full(error):
            raise
        raise DiskFull(
            "The disk is full.",
            where=str(path.parent),
            remedy="Free some space, or use a workspace on a larger disk with --workspace, and start again.",
        ) from error


def _says_full(error: Exception) -> bool:
    # Libraries in Rust and C++ (safetensors, Parquet) pass the message of the system on, but not always its number.
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)


def require_space(folder: Path, num_bytes: int, *, keep_free_bytes: int | None = None) -> None:
    """Raise `DiskFull` unless the disk of `folder` has room for `num_bytes` and some to spare.

    Args:
        keep_free_bytes: what has to stay free; by default 5 % of the disk, at most 1 GB.
    """
    free, spare = room(folder, keep_free_bytes)
    if free >= num_bytes + spare:
        return
    what = f"{num_bytes / 1e6:,.0f} MB are needed and {max(0, free - spare) / 1e6:,.0f} MB are free."
    if num_bytes == 0:
        what = f"{free / 1e6:,.0f} MB are free, and {spare / 1e6:,.0f} MB are to stay free."
    raise DiskFull(
        what, where=str(folder), remedy="Free some space, or use a workspace on a larger disk with --workspace."
    )


class Room(NamedTuple):
    """What is free on a disk, and what has to stay free for new work to begin; in bytes."""

    free_bytes: int
    keep_free_bytes: int


def room(folder: Path, keep_free_bytes: int | None = None) -> Room:
    """How the disk of `folder` stands; see `require_space`."""
    usage = shutil.disk_usage(folder)
    return Room(usage.free, min(usage.total // 20, 1_000_000_000) if keep_free_bytes is None else keep_free_bytes)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Lock:
    """An exclusive lock on a folder, held by one process. The kernel drops it when that process ends, however it ends.

    It can be handed to a child process, which then holds it alone: there is no moment in which nobody does.
    """

    def __init__(self, folder: Path, inherited: int | None = None) -> None:
        """`inherited` is the descriptor of a lock that the parent process took and handed over."""
        self.path = folder / LOCK
        self._inherited = inherited
        self._file: IO[str] | None = None

    def acquire(self, patience_s: float = 1.0) -> None:
        """Take the lock and write this process's id into it.

        Raises:
            Conflict: another process holds it.
            DiskFull: there is no room to say who holds it.
        """
        inherited = self._inherited
        with disk_errors(self.path):
            file = (
                os.fdopen(inherited, "r+")
                if inherited is not None
                else os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644), "r+")
            )
        if not _flock(file, patience_s):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise Conflict(
                f"Process {holder} is at work here.",
                where=str(self.path.parent),
                remedy="Wait until it is done, or stop it first.",
            )
        self._file = file
        try:
            self.say_holder(os.getpid())
        except BaseException:
            self.release()
            raise

    def say_holder(self, pid: int) -> None:
        """Write the id of the process that holds the lock, or is about to take it over, in one piece."""
        with disk_errors(self.path):
            os.pwrite(self.fileno(), f"{pid:<12}".encode(), 0)

    def fileno(self) -> int:
        """The descriptor to hand to a child process, which takes the lock over as `inherited`."""
        assert self._file is not None, "the lock is not held"
        return self._file.fileno()

    def release(self) -> None:
        """Let go of the lock; a child that it was handed to keeps it. Harmless when it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _flock(file: IO[str], patience_s: float) -> bool:
    """Try for the exclusive lock, again for a moment: `lock_holder` holds it shared while it looks."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)


def lock_holder(folder: Path) -> int | None:
    """The process id that holds the lock of `folder`, or None when nobody does."""
    try:
        descriptor = os.open(f"{folder}/{LOCK}", os.O_RDONLY)  # lists ask it of each of hundreds of folders
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(descriptor, 64).strip() or 0)
    finally:
        os.close(descriptor)
    return None
