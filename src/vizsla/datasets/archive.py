"""Unpack an archive of pictures that anybody may have made: what could do harm is refused by the name of its entry.

An entry is written only as a new file below the folder, so no archive reaches anything else. Bounds hold for what is
really written, whatever the archive says of itself.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import lzma
import os
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from vizsla import files
from vizsla.errors import InvalidInput

MAX_ENTRIES = 2_000_000
MAX_PATH_BYTES, MAX_NAME_BYTES, MAX_DEPTH = 1000, 255, 16
# Pictures hardly shrink; a drawing without compression may, to a hundredth.
MAX_RATIO, FREE_OF_RATIO_BYTES = 100, 100_000_000
# The list of contents of a zip is read as a whole, and so are the longest headers of a tar.
MAX_READ_BYTES = 200_000_000
COPY_BYTES = 2**20
INNER = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
FORMATS = "Archives are zip, tar, tar.gz, tar.bz2 and tar.xz."
DAMAGES = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a compression that Python does not know
    RuntimeError,
    ValueError,
    struct.error,
    OverflowError,
)
"""what reading an archive raises that is damaged, or of a kind that Python does not know"""


class Unpacked(NamedTuple):
    """What was unpacked."""

    num_files: int
    num_bytes: int


class Entry(NamedTuple):
    """A file or folder in an archive."""

    name: str
    """as it is written, wherever it leads"""
    num_bytes: int
    """as the archive says"""
    is_folder: bool
    problem: str
    """why it cannot be unpacked, or "" """
    open: Callable[[], IO[bytes]]


def kind_of(path: Path) -> str | None:
    """The kind of archive that a file is by its first bytes: "zip", "tar", "gz", "bz2" or "xz"; None: no archive."""
    with path.open("rb") as file:
        start = file.read(512)
    for kind, sign in (
        ("zip", b"PK\3\4"),
        ("zip", b"PK\5\6"),
        ("gz", b"\x1f\x8b"),
        ("bz2", b"BZh"),
        ("xz", b"\xfd7zXZ\0"),
    ):
        if start.startswith(sign):
            return kind
    return "tar" if start[257:262] == b"ustar" else None


def unpack(archive: Path, folder: Path, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Unpacked:
    """Unpack an archive into a new folder.

    Args:
        on_progress: told how many bytes of the archive are done, and how many it has.

    Raises:
        InvalidInput: it is no archive, is damaged or encrypted, or has an entry that could do harm: one that lies
            elsewhere, a link, a device, a name that is there twice, an archive in the archive, or more than a picture
            can shrink to. `folder` holds what came before.
        DiskFull: there is no room for it.
    """
    kind = kind_of(archive)
    if kind is None:
        raise InvalidInput("The file is no archive that can be unpacked.", where=archive.name, remedy=FORMATS)
    folder.mkdir(parents=True)
    target = _Target(folder, archive)
    with archive.open("rb") as raw:
        try:
            for entry in entries(raw, kind):
                target.add(entry)
                on_progress(min(raw.tell(), target.archive_bytes), target.archive_bytes)
        except DAMAGES as error:
            raise target.damaged(error) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise target.damaged(error) from error  # what gzip and bz2 say of their data
    on_progress(target.archive_bytes, target.archive_bytes)
    return Unpacked(target.num_files, target.num_bytes)


def safe_path(name: str) -> str:
    """A name in an archive as a relative path, without "." and doubled slashes; "" is the folder itself.

    Raises:
        InvalidInput: it leads elsewhere, or is none that every machine can have.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    path = "/".join(parts)
    if problem := _path_problem(name, parts, path):
        raise InvalidInput(f"{problem}.", where=shown(name), remedy="Pack the folder again, with plain relative names.")
    return path


def _path_problem(name: str, parts: list[str], path: str) -> str:
    try:
        longest = max((len(part.encode()) for part in parts), default=0)
    except UnicodeEncodeError:
        return "The name is not valid UTF-8"
    rules = (
        (name.startswith("/") or (name[1:2] == ":" and name[0].isalpha()), "The path is absolute"),
        (".." in parts, "The path leads out of its folder"),
        ("\\" in name, "The name has a backslash"),
        (any(unicodedata.category(character) == "Cc" for character in name), "The name has a control character"),
        (longest > MAX_NAME_BYTES or len(path.encode()) > MAX_PATH_BYTES, "The name is too long"),
        (len(parts) > MAX_DEPTH, f"It lies more than {MAX_DEPTH} folders deep"),
    )
    return next((problem for is_so, problem in rules if is_so), "")


def shown(name: str) -> str:
    """A name out of an archive, fit for a message."""
    return ascii(name)[1:-1][:200] if not name.isprintable() else name[:200]


class _Target:
    """The folder that is filled, and what was written into it so far."""

    def __init__(self, folder: Path, archive: Path) -> None:
        self.archive_bytes = archive.stat().st_size
        self.num_files = self.num_bytes = self._num_entries = 0
        self._folder = folder
        self._allowed_bytes = FREE_OF_RATIO_BYTES + MAX_RATIO * self.archive_bytes
        self._current = ""
        self._folders: dict[str, str] = {}
        self._files: set[int] = set()
        """hashes of the folded paths: the paths of millions of pictures would fill the memory"""

    def add(self, entry: Entry) -> None:
        """Write an entry, unless it is refused."""
        self._current = entry.name
        self._num_entries += 1
        if self._num_entries + len(self._folders) > MAX_ENTRIES:
            raise self._refused(f"The archive has more than {MAX_ENTRIES:,} files and folders", "Divide it.")
        if entry.problem:
            raise self._refused(entry.problem)
        path = safe_path(entry.name)
        if not path:
            return
        if entry.is_folder:
            self._claim_folders(path)
            (self._folder / path).mkdir(parents=True, exist_ok=True)
            return
        if path.lower().endswith(INNER):
            raise self._refused("It is an archive in the archive", "Unpack it, and pack the pictures themselves.")
        self._claim_file(path)
        self._require_room(entry.num_bytes)
        (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
        self._write(entry, self._folder / path)

    def damaged(self, error: Exception) -> InvalidInput:
        """What is said of an archive that cannot be read on."""
        where = f"after {shown(self._current)}" if self._current else "at its beginning"
        return InvalidInput(
            f"The archive is damaged or of a kind that is not known: {error}.",
            where=where,
            remedy=f"Pack it again, and compare its size and SHA-256. {FORMATS}",
        )

    def _write(self, entry: Entry, path: Path) -> None:
        with files.disk_errors(path), path.open("xb") as file, entry.open() as source:
            while piece := source.read(COPY_BYTES):
                self._require_room(len(piece))
                self.num_bytes += len(piece)
                file.write(piece)
        self.num_files += 1

    def _require_room(self, num_bytes: int) -> None:
        if self.num_bytes + num_bytes > self._allowed_bytes:
            raise self._refused(f"The archive grows to more than {MAX_RATIO} times its size", "Is it an archive bomb?")
        files.require_space(self._folder, num_bytes)

    def _claim_folders(self, path: str) -> None:
        """Note a folder and those above it."""
        parts = path.split("/")
        for length in range(1, len(parts) + 1):
            folder = "/".join(parts[:length])
            key = _folded(folder)
            known = self._folders.setdefault(key, folder)
            if known != folder:
                raise self._refused(f"The name differs from {shown(known)!r} in nothing but small and large letters")
            if hash(key) in self._files:
                raise self._refused("It is a folder and a file at once")

    def _claim_file(self, path: str) -> None:
        above, _, _ = path.rpartition("/")
        if above:
            self._claim_folders(above)
        key = _folded(path)
        if key in self._folders:
            raise self._refused("It is a folder and a file at once")
        if hash(key) in self._files:
            twice = (self._folder / path).exists()
            raise self._refused(
                "It is there twice" if twice else "The name differs from another in nothing but small and large letters"
            )
        self._files.add(hash(key))

    def _refused(self, problem: str, remedy: str = "") -> InvalidInput:
        default = "Leave it out, and pack the folder again."
        return InvalidInput(f"{problem}.", where=shown(self._current), remedy=remedy or default)


def _folded(path: str) -> str:
    """A path as a disk that does not tell small letters from large ones knows it."""
    return unicodedata.normalize("NFC", path).casefold()


class _Bounded:
    """A file of which no more than `MAX_READ_BYTES` are read at once, whatever the archive in it says."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self.last = b""
        """what was read last"""

    def read(self, size: int = -1) -> bytes:
        """As of a file; one of unknown length is read as far as the bound."""
        if size > MAX_READ_BYTES:
            raise ValueError(f"{size:,} bytes of names and headers")
        self.last = self._file.read(MAX_READ_BYTES if size < 0 else size)
        return self.last


def entries(raw: IO[bytes], kind: str) -> Iterator[Entry]:
    """What an archive holds, one after the other; each can be opened until the next one is asked for.

    Raises:
        One of `DAMAGES`, or an OSError without a number: it cannot be read on.
    """
    return _zip_entries(raw) if kind == "zip" else _tar_entries(raw, kind)


def _zip_entries(raw: IO[bytes]) -> Iterator[Entry]:
    with zipfile.ZipFile(cast(Any, _Bounded(raw))) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
            problem = ""
            if info.flag_bits & 0x1:
                problem = "It is encrypted"
            elif stat.S_ISLNK(kind):
                problem = "It is a link"
            elif kind and not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                problem = "It is no plain file"
            # The name as it is written: `filename` ends at a NUL.
            opens = functools.partial(archive.open, info)
            yield Entry(info.orig_filename, info.file_size, info.is_dir(), problem, opens)


def _tar_entries(raw: IO[bytes], kind: str) -> Iterator[Entry]:
    file = _Bounded(_plain(raw, kind))
    archive: Any  # its list of members is not among the types
    with tarfile.open(fileobj=cast(Any, file), mode="r:", errorlevel=2) as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # else each one is kept
            problem = ""
            if info.issym() or info.islnk():
                problem = "It is a link"
            elif not (info.isreg() or info.isdir()) or info.issparse():
                problem = "It is no plain file"
            opens = functools.partial(archive.extractfile, info)
            yield Entry(info.name, info.size, info.isdir(), problem, opens)
        # A header that cannot be read ends the list as a block of zeros does, which is the true end.
        if len(file.last) < tarfile.BLOCKSIZE or file.last.strip(b"\0"):
            raise tarfile.ReadError("it ends in the middle")


def _plain(raw: IO[bytes], kind: str) -> IO[bytes]:
    """The tar within its compression."""
    match kind:
        case "gz":
            return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
        case "bz2":
            return cast(IO[bytes], bz2.BZ2File(raw))
        case "xz":
            return cast(IO[bytes], lzma.LZMAFile(raw))
    return raw


def pictures_root(folder: Path) -> Path:
    """The folder of the classes in an unpacked archive, in which often lies one folder that holds all the others."""
    while True:
        with os.scandir(folder) as listing:
            entries = [entry for entry in listing if not entry.name.startswith((".", "__MACOSX"))]
        if len(entries) != 1 or not entries[0].is_dir(follow_symlinks=False):
            return folder
        inner = Path(entries[0].path)
        with os.scandir(inner) as listing:
            if not any(entry.is_dir(follow_symlinks=False) for entry in listing):
                return folder
        folder = inner
