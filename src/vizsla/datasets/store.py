"""The pixels of a dataset on disk: written one picture at a time, read in any order by any thread.

Raw pictures are one memory-mapped file, so that reading costs a copy; PNG (exact) and JPEG (smaller, lossy) are one
file of records with a table of offsets, decoded on reading. `pixels.json` is written last: without it the store is
not whole.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict

from vizsla import files, records
from vizsla.datasets.spec import Encoding
from vizsla.errors import InvalidInput

JPEG_QUALITY = 90
RAW_LIMIT_BYTES = 16 * 10**9

Pixels = npt.NDArray[np.uint8]

_DECODERS = min(4, os.cpu_count() or 1)
_INLINE = 8  # fewer records than this are decoded before a pool of threads would have started
_REBUILD = "Build the dataset again."


class Shape(NamedTuple):
    """Number of pictures, height and width in px, channels."""

    num_pictures: int
    height: int
    width: int
    channels: int


class PixelsFile(BaseModel):
    """What `pixels.json` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["vizsla.pixels/1"] = "vizsla.pixels/1"
    encoding: Encoding
    count: int
    height: int
    width: int
    channels: Literal[1, 3]


def choose_encoding(asked: Encoding | Literal["auto"], num_bytes: int) -> Encoding:
    """The encoding that "auto" means for so many bytes of raw pixels: raw while they are under 16 GB, else JPEG."""
    if asked != "auto":
        return asked
    return "raw" if num_bytes < RAW_LIMIT_BYTES else "jpeg"


def encode(picture: Pixels, encoding: Encoding) -> bytes:
    """The record of a picture (height, width, channels). Apart from the writer, so that threads can do it."""
    if encoding == "raw":
        return picture.tobytes()
    record = io.BytesIO()
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    if encoding == "png":
        image.save(record, "PNG", compress_level=3)
    else:
        image.save(record, "JPEG", quality=JPEG_QUALITY)
    return record.getvalue()


def shrunk(picture: Pixels, side: int) -> Pixels:
    """A picture of at most `side` px each way, in its proportions."""
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    image.thumbnail((side, side))
    return np.asarray(image).reshape(image.height, image.width, picture.shape[2])


class PixelWriter:
    """Appends pictures of one shape to a new store in `folder`; as a context manager, finishes it unless that failed.

    Raises:
        DiskFull: there is no room; the store has no `pixels.json` then.
    """

    def __init__(self, folder: Path, *, height: int, width: int, channels: Literal[1, 3], encoding: Encoding) -> None:
        self.folder = folder
        self.encoding: Encoding = encoding
        self.shape = (height, width, channels)
        self.count = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._channels: Literal[1, 3] = channels
        self._ends = [0]
        self._path = folder / _pixel_file(encoding)
        # Unbuffered: a record is large, and a full disk shows at the record that does not fit.
        self._file: IO[bytes] = self._path.open("wb", buffering=0)

    def append(self, picture: Pixels) -> int:
        """Write a picture (height, width, channels) and return its index."""
        assert picture.shape == self.shape, (picture.shape, self.shape)
        assert picture.dtype == np.uint8, picture.dtype
        return self.append_record(encode(picture, self.encoding))

    def append_record(self, record: bytes) -> int:
        """Write what `encode` made of a picture and return its index."""
        with files.disk_errors(self._path):
            rest = memoryview(record)
            while rest:
                rest = rest[self._file.write(rest) :]
        self._ends.append(self._ends[-1] + len(record))
        self.count += 1
        return self.count - 1

    def finish(self) -> None:
        """Flush the pixels to the disk and make the store whole."""
        with files.disk_errors(self._path):
            os.fsync(self._file.fileno())
            self._file.close()
            if self.encoding != "raw":
                with files.atomic(self.folder / "offsets.npy") as temporary, temporary.open("wb") as file:
                    np.save(file, np.array(self._ends, dtype=np.int64))
        height, width, _ = self.shape
        about = PixelsFile(
            encoding=self.encoding, count=self.count, height=height, width=width, channels=self._channels
        )
        files.write_json(self.folder / "pixels.json", about.model_dump(mode="json"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self._file.close()


class PixelStore:
    """The pictures of a store. Reading is safe from several threads and after a fork."""

    def __init__(self, about: PixelsFile, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64] | None) -> None:
        self.about = about
        self.shape = Shape(about.count, about.height, about.width, about.channels)
        self._data = data
        self._offsets = offsets

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a whole store.

        Raises:
            InvalidInput: it is unfinished, or its files are missing or not of the size they should have.
        """
        about = _about(folder)
        path = folder / _pixel_file(about.encoding)
        offsets = None if about.encoding == "raw" else _offsets(folder / "offsets.npy", about.count)
        pictures = (about.count, about.height, about.width, about.channels)
        shape = pictures if offsets is None else (int(offsets[-1]),)
        _require_size(path, math.prod(shape))
        # An empty file cannot be mapped.
        data = np.memmap(path, dtype=np.uint8, mode="r", shape=shape) if math.prod(shape) else np.empty(shape, np.uint8)
        return cls(about, data, offsets)

    def read(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Pixels:
        """The pictures at `indices`, in that order: uint8 of shape (len(indices), height, width, channels).

        Raises:
            IndexError: an index is outside of the store.
            InvalidInput: a record is damaged.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and not 0 <= int(wanted.min()) <= int(wanted.max()) < self.shape.num_pictures:
            raise IndexError(f"an index is not within 0 to {self.shape.num_pictures - 1}")
        if self._offsets is None:
            return np.asarray(self._data[wanted])
        out = np.empty((len(wanted), *self.shape[1:]), dtype=np.uint8)
        if len(wanted) < _INLINE or _DECODERS == 1:
            for place, index in enumerate(wanted):
                out[place] = self._decode(int(index))
            return out
        # A pool a call: threads of a lasting one would not survive a fork.
        with ThreadPoolExecutor(_DECODERS) as pool:
            for place, picture in enumerate(pool.map(self._decode, wanted.tolist())):
                out[place] = picture
        return out

    def _decode(self, index: int) -> Pixels:
        assert self._offsets is not None
        record = self._data[self._offsets[index] : self._offsets[index + 1]].tobytes()
        try:
            with Image.open(io.BytesIO(record), formats=(self.about.encoding,)) as image:
                return np.asarray(image).reshape(self.shape[1:])
        except (OSError, SyntaxError, ValueError) as error:
            raise InvalidInput(f"Picture {index} of the store is damaged: {error}.", remedy=_REBUILD) from None


def _pixel_file(encoding: Encoding) -> str:
    return "pixels.u8" if encoding == "raw" else "pixels.bin"


def _about(folder: Path) -> PixelsFile:
    return records.read(folder / "pixels.json", PixelsFile, remedy=_REBUILD)


def _offsets(path: Path, count: int) -> npt.NDArray[np.int64]:
    try:
        offsets = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidInput(f"The offsets cannot be read: {error}.", where=str(path), remedy=_REBUILD) from None
    if offsets.shape != (count + 1,) or offsets.dtype != np.int64 or (np.diff(offsets) < 0).any():
        raise InvalidInput("The offsets do not fit the store.", where=str(path), remedy=_REBUILD)
    return np.asarray(offsets, dtype=np.int64)


def _require_size(path: Path, expected: int) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise InvalidInput("The file of the pixels is missing.", where=str(path), remedy=_REBUILD) from None
    if size != expected:
        raise InvalidInput(
            f"The file of the pixels has {size:,} bytes and should have {expected:,}.",
            where=str(path),
            remedy=_REBUILD,
        )
