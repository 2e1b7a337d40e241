"""Read the files of a dataset: in threads, a few dozen at most in flight, the results in order."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from vizsla.datasets.rows import Row
from vizsla.datasets.scan import Found, Scan, location
from vizsla.datasets.spec import DatasetSpec, Encoding
from vizsla.datasets.split import order_key
from vizsla.datasets.store import PixelWriter, encode
from vizsla.errors import InvalidInput
from vizsla.images.decode import Size, decode, measure, read
from vizsla.images.preprocess import Preprocess

Progress = Callable[[str, int, int], None]

IN_FLIGHT = 32
_COLOUR_SAMPLE = 32

T = TypeVar("T")
R = TypeVar("R")


def choose_preprocess(spec: DatasetSpec, scan: Scan) -> Preprocess:
    """The preprocessing that the spec asks for; with colour "auto", a sample of the pictures decides."""
    channels: Literal[1, 3] = 1 if spec.colour == "grey" or (spec.colour == "auto" and _are_grey(spec, scan)) else 3
    return Preprocess(
        width=spec.width,
        height=spec.height,
        channels=channels,
        resize=spec.resize,
        interpolation=spec.interpolation,
    )


def _are_grey(spec: DatasetSpec, scan: Scan) -> bool:
    candidates = [found for found in scan.files if found.reason is None]
    places = np.linspace(0, len(candidates) - 1, min(_COLOUR_SAMPLE, len(candidates))).round().astype(int)
    seen = 0
    for place in places.tolist():
        try:
            image = decode(location(spec, candidates[place]), target=Size(64, 64))
        except InvalidInput:
            continue
        seen += 1
        if not is_grey(image):
            return False
    return seen > 0


def is_grey(image: Image.Image) -> bool:
    """Whether a picture of mode L or RGB has no colour in any pixel."""
    if image.mode == "L":
        return True
    pixels = np.asarray(image)
    return bool((pixels == pixels[:, :, :1]).all())


class _Content(NamedTuple):
    """What reading a file gave."""

    row: Row
    record: bytes | None


def _read_file(spec: DatasetSpec, found: Found, preprocess: Preprocess, encoding: Encoding) -> _Content:
    row = Row(found.root, found.path, found.label, found.split)
    try:
        data = read(location(spec, found))
        row = dataclasses.replace(row, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        width, height = measure(data)
        row = dataclasses.replace(row, width=width, height=height)
        return _Content(row, encode(preprocess.to_array(data), encoding))
    except InvalidInput as error:
        return _Content(row.rejected(error.what), None)


def in_order(work: Iterable[T], do: Callable[[T], R], *, workers: int) -> Generator[R]:
    """`do` of each piece of work, in order, by so many threads; never more than `IN_FLIGHT` begun and not yielded."""
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for piece in work:
            waiting.append(pool.submit(do, piece))
            if len(waiting) >= IN_FLIGHT:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class Quota:
    """Counts the used pictures of each class and folder against `max_per_class`."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.used: Counter[tuple[str, str | None, str | None]] = Counter()

    def is_full(self, row: Row | Found) -> bool:
        """Whether no more of its class and folder are used."""
        return self.limit is not None and self.used[row.root, row.split, row.label] >= self.limit

    def take(self, row: Row) -> None:
        """Count one that is used."""
        self.used[row.root, row.split, row.label] += 1

    def refuse(self, row: Row) -> Row:
        """The row of one that is over the limit."""
        return row.rejected(f"over the limit of {self.limit} a class")


def read_all(
    spec: DatasetSpec, scan: Scan, preprocess: Preprocess, writer: PixelWriter, progress: Progress
) -> list[Row]:
    """Decode each file into the store; a row each, sorted as the scan, either with an index or with a reason.

    With `max_per_class`, the files of a class are taken in an order drawn from the seed until enough were usable.
    """
    rows = [Row(f.root, f.path, f.label, f.split, reason=f.reason) for f in scan.files if f.reason is not None]
    usable = [found for found in scan.files if found.reason is None]
    if spec.max_per_class is not None:
        usable.sort(key=lambda found: order_key(spec.seed, found.label or "", found.path))
    quota = Quota(spec.max_per_class)

    def do(found: Found) -> _Content:
        if quota.is_full(found):
            return _Content(quota.refuse(Row(found.root, found.path, found.label, found.split)), None)
        return _read_file(spec, found, preprocess, writer.encoding)

    # Closed at once on an error, so that no thread goes on reading.
    with contextlib.closing(in_order(usable, do, workers=os.cpu_count() or 1)) as contents:
        for row, record in contents:
            # Asked again, because which thread was faster must not matter.
            if quota.is_full(row):
                rows.append(quota.refuse(Row(row.root, row.path, row.label, row.split)))
            elif record is None:
                rows.append(row)
            else:
                quota.take(row)
                rows.append(dataclasses.replace(row, index=writer.append_record(record)))
            progress("read", len(rows), len(scan.files))
    order = {(found.root, found.path): place for place, found in enumerate(scan.files)}
    rows.sort(key=lambda row: order[row.root, row.path])
    return rows


def raw_bytes(spec: DatasetSpec, scan: Scan, preprocess: Preprocess) -> int:
    """The bytes that the pixels take at most, kept raw."""
    sizes = Counter((found.root, found.split, found.label) for found in scan.files if found.reason is None)
    limit = spec.max_per_class
    count = sum(size if limit is None else min(size, limit) for size in sizes.values())
    return count * preprocess.width * preprocess.height * preprocess.channels
