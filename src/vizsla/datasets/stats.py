"""What a dataset is like: sizes, copies, doubtful labels, and the mean and deviation of its training pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from vizsla.datasets.rows import Row
from vizsla.datasets.store import PixelStore

_CHUNK_BYTES = 8 * 2**20
_MAX_EXAMPLES = 10


class Range(BaseModel):
    """Least, middle and greatest of some sizes in px."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: int
    median: float
    max: int


class Copies(BaseModel):
    """Pictures whose content occurs more than once: how many contents, and the paths of a few of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int
    examples: list[list[str]]


class Statistics(BaseModel):
    """Facts about the used pictures of a dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Range = Field(description="Width of the original pictures in px.")
    height: Range = Field(description="Height of the original pictures in px.")
    duplicates: Copies = Field(description="The same file content more than once.")
    conflicting: Copies = Field(description="The same file content under different labels: at most one is right.")
    leaked: Copies = Field(description="The same file content in more than one split: the results will flatter.")
    mean: list[float] = Field(description="Mean of each channel over the train pictures, 0 to 1.")
    std: list[float] = Field(description="Standard deviation of each channel over the train pictures, 0 to 1.")
    disk_bytes: int = Field(description="Bytes that the dataset takes on the disk.")


class PixelMoments(NamedTuple):
    """The mean picture (height, width, channels; float32, 0 to 255), and mean and deviation a channel (0 to 1)."""

    picture: npt.NDArray[np.float32]
    mean: list[float]
    std: list[float]


def pixel_moments(store: PixelStore, indices: Sequence[int], progress: Callable[[str, int, int], None]) -> PixelMoments:
    """The moments of the pictures at `indices`, of which there must be one at least, read a few at a time."""
    _, height, width, channels = store.shape
    step = max(1, _CHUNK_BYTES // (height * width * channels))
    # Integers, so that the result does not depend on the order of the pictures or on the steps.
    total = np.zeros((height, width, channels), dtype=np.uint64)
    squares = np.zeros(channels, dtype=np.uint64)
    ordered = sorted(indices)
    for start in range(0, len(ordered), step):
        chunk = store.read(ordered[start : start + step])
        total += chunk.sum(axis=0, dtype=np.uint64)
        squares += np.square(chunk, dtype=np.uint16).sum(axis=(0, 1, 2), dtype=np.uint64)
        progress("measure", start + len(chunk), len(ordered))
    picture = total / len(ordered)
    mean = picture.mean(axis=(0, 1)) / 255
    variance = squares / (len(ordered) * height * width) / 255**2 - mean**2
    return PixelMoments(picture.astype(np.float32), mean.tolist(), np.sqrt(np.maximum(variance, 0)).tolist())


def describe(used: Sequence[Row], moments: PixelMoments, *, disk_bytes: int) -> Statistics:
    """The statistics of the rows that are used."""
    contents: dict[str, list[Row]] = defaultdict(list)
    for row in used:
        contents[str(row.sha256)].append(row)
    repeated = [rows for rows in contents.values() if len(rows) > 1]
    return Statistics(
        width=_range(row.width for row in used),
        height=_range(row.height for row in used),
        duplicates=_copies(repeated),
        conflicting=_copies(rows for rows in repeated if len({row.label for row in rows}) > 1),
        leaked=_copies(rows for rows in repeated if len({row.split for row in rows}) > 1),
        mean=moments.mean,
        std=moments.std,
        disk_bytes=disk_bytes,
    )


def _range(sizes: Iterable[int | None]) -> Range:
    values = np.array([size for size in sizes if size is not None])
    return Range(min=int(values.min()), median=float(np.median(values)), max=int(values.max()))


def _copies(repeated: Iterable[list[Row]]) -> Copies:
    groups = list(repeated)
    return Copies(count=len(groups), examples=[[_shown(row) for row in rows] for rows in groups[:_MAX_EXAMPLES]])


def _shown(row: Row) -> str:
    return row.path if row.root == "source" else f"{row.root}_folder/{row.path}"
