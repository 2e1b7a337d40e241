"""A model as one file: zip, tar, tar.gz or tar.bz2, written piece by piece and read with suspicion. Light: no torch."""

from __future__ import annotations

import bz2
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal, cast, get_args

from vizsla import files
from vizsla.datasets.archive import DAMAGES, Entry, entries, kind_of
from vizsla.errors import Conflict, InvalidInput
from vizsla.models.card import CARD, GRAPH, LABELS, WEIGHTS, Card, check_file, open_model

Format = Literal["zip", "tar", "tar.gz", "tar.bz2"]
FORMATS: tuple[Format, ...] = get_args(Format)
MEDIA_TYPES: dict[Format, str] = {
    "zip": "application/zip",
    "tar": "application/x-tar",
    "tar.gz": "application/gzip",
    "tar.bz2": "application/x-bzip2",
}
PIECE_BYTES = 2**20
# What is small in every model; weights and graph are as large as the network.
MAX_SMALL_BYTES = 50_000_000
MAX_RATIO, FREE_OF_RATIO_BYTES = 100, 10_000_000
MAX_ENTRIES = 100
_SMALL = (CARD, LABELS)
_PARTS = (CARD, GRAPH, WEIGHTS, LABELS)
_REMEDY = "Only archives that `vizsla model pack` has written are read."


def format_of(path: Path) -> Format:
    """The format that the ending of a file's name means.

    Raises:
        InvalidInput: it means none.
    """
    for format in FORMATS[::-1]:
        if path.name.lower().endswith(f".{format}"):
            return format
    if path.name.lower().endswith(".tgz"):
        return "tar.gz"
    raise InvalidInput(
        "The ending of the name says no format.", where=str(path), remedy=f"Use one of .{', .'.join(FORMATS)}."
    )


def pieces(folder: Path, format: Format) -> Iterator[bytes]:
    """The archive of a model, piece by piece; equal models give equal archives.

    Raises:
        InvalidInput: a file of the model is missing or has been changed; before the first piece.
    """
    card = open_model(folder)
    for name in card.files:
        check_file(folder, card, name)
    return _zip_pieces(folder, card) if format == "zip" else _tar_pieces(folder, card, format)


def write(packed: Iterator[bytes], out: Path) -> Path:
    """Write the pieces of an archive to a file, whole or not at all.

    Raises:
        Conflict: there is such a file.
        InvalidInput: there is no folder for it.
    """
    if out.exists():
        raise Conflict("There is such a file.", where=str(out), remedy="Choose another name, or remove it.")
    if not out.absolute().parent.is_dir():
        raise InvalidInput("There is no such folder.", where=str(out.parent), remedy="Make it first.")
    with files.atomic(out) as temporary, temporary.open("xb") as file:
        file.writelines(packed)
    return out


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from _pieces_of(file)


def _pieces_of(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece


class _Sink(io.RawIOBase):
    """Takes what a writer writes until it is taken away."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def _zip_pieces(folder: Path, card: Card) -> Iterator[bytes]:
    return zip_pieces(((f"{card.id}/{name}", (folder / name).open("rb")) for name in _PARTS), _made(card))


def zip_pieces(members: Iterable[tuple[str, IO[bytes]]], at: datetime) -> Iterator[bytes]:
    """Files as a zip, piece by piece, not made smaller: weights and pictures hardly shrink.

    Args:
        members: names in the zip, and files, which are closed.
        at: when they are said to have been changed.
    """
    sink = _Sink()
    with zipfile.ZipFile(cast(IO[bytes], sink), "w", zipfile.ZIP_STORED) as archive:
        for name, file in members:
            info = zipfile.ZipInfo(name, at.timetuple()[:6])
            info.external_attr = 0o100644 << 16
            with file, archive.open(info, "w", force_zip64=True) as member:
                for piece in _pieces_of(file):
                    member.write(piece)
                    yield sink.take()
    yield sink.take()


def _tar_pieces(folder: Path, card: Card, format: Format) -> Iterator[bytes]:
    compressors: dict[str, Callable[[], Any]] = {
        "tar.gz": lambda: zlib.compressobj(wbits=31),
        "tar.bz2": bz2.BZ2Compressor,
    }
    if format not in compressors:
        yield from _plain_tar(folder, card)
        return
    compressor = compressors[format]()
    for piece in _plain_tar(folder, card):
        if packed := compressor.compress(piece):
            yield packed
    yield compressor.flush()


def _plain_tar(folder: Path, card: Card) -> Iterator[bytes]:
    for name in _PARTS:
        info = tarfile.TarInfo(f"{card.id}/{name}")
        info.size, info.mtime = (folder / name).stat().st_size, int(_made(card).timestamp())
        yield info.tobuf(tarfile.PAX_FORMAT)
        yield from _read(folder / name)
        yield b"\0" * (-info.size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _made(card: Card) -> datetime:
    return datetime.fromisoformat(card.created_at)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the files of a model into a folder that is there; nothing else is written, and only those are read.

    Raises:
        InvalidInput: it is no archive, is damaged, lacks a part, or holds anything but a model.
        DiskFull: there is no room for it.
    """
    try:
        kind = kind_of(archive)
        if kind is None:
            raise _refused(archive, "The file is no archive")
        with archive.open("rb") as raw:
            found = _unpacked(entries(raw, kind), archive, folder)
    except (*DAMAGES, OSError) as error:
        raise InvalidInput(f"The archive cannot be read: {error}.", where=str(archive), remedy=_REMEDY) from error
    if missing := [name for name in _PARTS if name not in found]:
        raise _refused(archive, f"The archive lacks {', '.join(missing)}")


def _unpacked(held: Iterator[Entry], archive: Path, folder: Path) -> set[str]:
    left = FREE_OF_RATIO_BYTES + MAX_RATIO * archive.stat().st_size
    found: set[str] = set()
    folders: set[str] = set()
    for number, entry in enumerate(held, 1):
        if number > MAX_ENTRIES:
            raise _refused(archive, f"The archive has more than {MAX_ENTRIES} entries")
        above, _, name = entry.name.rstrip("/").rpartition("/")
        shown = ascii(entry.name[:100])
        if entry.is_folder and not above and name not in ("", ".", ".."):
            continue
        folders.add(above)
        # By the name alone, which is one of four: whatever stands before it leads nowhere.
        if entry.problem or entry.is_folder or name not in _PARTS or "/" in above or above == ".." or len(folders) > 1:
            raise _refused(archive, f"The archive holds {shown}, which is no part of a model")
        if name in found:
            raise _refused(archive, f"The archive holds {shown} twice")
        found.add(name)
        with entry.open() as source:
            left -= _write(source, folder / name, archive, min(left, MAX_SMALL_BYTES) if name in _SMALL else left)
    return found


def _write(source: IO[bytes], path: Path, archive: Path, limit: int) -> int:
    written = 0
    with files.disk_errors(path):
        with path.open("xb") as file:
            while piece := source.read(PIECE_BYTES):
                written += len(piece)
                if written > limit:
                    raise _refused(archive, f"{path.name} in the archive grows to more than {limit / 1e6:,.0f} MB")
                files.require_space(path.parent, len(piece))
                file.write(piece)
        files.fsync(path)
    return written


def _refused(archive: Path, what: str) -> InvalidInput:
    return InvalidInput(f"{what}.", where=str(archive), remedy=_REMEDY)
