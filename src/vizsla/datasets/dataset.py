"""A built dataset: what `dataset.json` says, and how to read the rest of its folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Sequence
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from vizsla import records
from vizsla.datasets.scan import SPLITS, Root, Split
from vizsla.datasets.spec import DatasetSpec, Encoding
from vizsla.datasets.stats import Statistics
from vizsla.errors import InvalidInput, NotFound, did_you_mean
from vizsla.images.preprocess import Preprocess

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT: Literal["vizsla.dataset/1"] = "vizsla.dataset/1"


class Origin(BaseModel):
    """An archive, or an upload, that the pictures came in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="As the file was called, or as it was uploaded.")
    sha256: str = Field(description="Of the archive; of uploaded pictures, of the list of their hashes and paths.")
    num_bytes: int


class Dataset(BaseModel):
    """A finished dataset; the content of `dataset.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["vizsla.dataset/1"] = FORMAT
    id: str
    name: str
    created_at: str = Field(description="When it was finished; ISO 8601, UTC.")
    spec: DatasetSpec
    origins: dict[Root, Origin] = Field({}, description="Of each source that was no folder, what it was.")
    preprocess: Preprocess
    encoding: Encoding = Field(description="How the pixels are kept.")
    labels: list[str] = Field(description="The class names; a label's number is its place here.")
    counts: dict[Split, dict[str, int]] = Field(description="Pictures by split and label, zeros included.")
    found: int = Field(description="Files found: used and rejected.")
    used: int
    rejected: int
    rejected_reasons: dict[str, int] = Field(description="Rejected files by reason, the most frequent first.")
    fingerprint: str = Field(description="SHA-256 of the preprocessing and of each picture's label, split and content.")
    statistics: Statistics
    vizsla_version: str


class SplitArrays(NamedTuple):
    """The pictures of a split: places in the pixel store, numbers of the labels, paths relative to their folder."""

    indices: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    paths: list[str]


class Labelled(NamedTuple):
    """What the fingerprint knows of a picture."""

    label: str
    split: Split
    sha256: str


def open_dataset(folder: Path) -> Dataset:
    """Read `dataset.json`.

    Raises:
        NotFound: there is no such folder.
        InvalidInput: the dataset is unfinished, or of a format that this version does not know.
    """
    path = folder / "dataset.json"
    if not folder.is_dir():
        raise NotFound("There is no such dataset.", where=str(folder))
    if not path.exists():
        raise InvalidInput(
            "The dataset is unfinished.", where=str(folder), remedy="Wait until it is built, or build it again."
        )
    return records.read(path, Dataset, remedy="Build the dataset again.")


def read_images(folder: Path, split: str | None = None) -> pa.Table:
    """The rows of `images.parquet`: all files that were found, or the used ones of a split.

    Raises:
        InvalidInput: the split is unknown or empty.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    dataset = open_dataset(folder)
    if split is not None:
        _require_split(dataset, split)
    # `pq.read_table` takes a folder name such as "split=val" above for a column, and half a second to load pandas.
    table = pq.ParquetFile(folder / "images.parquet").read()
    return table if split is None else table.filter(pc.equal(table["split"], split))


def split_arrays(folder: Path, split: str) -> SplitArrays:
    """The pictures of a split, in the order of their paths.

    Raises:
        InvalidInput: the split is unknown or empty.
    """
    import pyarrow.parquet as pq

    dataset = open_dataset(folder)
    _require_split(dataset, split)
    number = {label: place for place, label in enumerate(dataset.labels)}
    indices: list[int] = []
    labels: list[int] = []
    paths: list[str] = []
    # To compare in Arrow would load pandas, where it is installed: a third of a second, for each worker that begins.
    for rows in pq.ParquetFile(folder / "images.parquet").iter_batches(columns=["index", "label", "path", "split"]):
        inside = [place == split for place in rows["split"].to_pylist()]
        indices += compress(rows["index"].to_pylist(), inside)
        labels += (number[label] for label in compress(rows["label"].to_pylist(), inside))
        paths += compress(rows["path"].to_pylist(), inside)
    return SplitArrays(np.array(indices, dtype=np.int64), np.array(labels, dtype=np.int64), paths)


def count_leaked(folder: Path, split: str) -> int:
    """How many pictures of a split lie, byte for byte, in another split too."""
    table = read_images(folder)
    elsewhere: set[str] = set()
    here: list[str] = []
    for content, place in zip(table["sha256"].to_pylist(), table["split"].to_pylist(), strict=True):
        if place == split:
            here.append(content)
        elif place is not None:
            elsewhere.add(content)
    return sum(content in elsewhere for content in here)


def require_known_split(split: str) -> None:
    """Raise `InvalidInput` unless this is the name of a split, whether or not a dataset has pictures in it."""
    if split not in SPLITS:
        remedy = f"Choose one of {', '.join(SPLITS)}. {did_you_mean(split, SPLITS)}".strip()
        raise InvalidInput(f"There is no split {split!r}.", where="split", remedy=remedy)


def _require_split(dataset: Dataset, split: str) -> None:
    there = [name for name in SPLITS if any(dataset.counts.get(name, {}).values())]
    if split in there:
        return
    known = f"The dataset {dataset.name!r} has {_and(there)}."
    if split in SPLITS:
        raise InvalidInput(
            f"The {split} split is empty.",
            where=dataset.name,
            remedy=f"{known} Choose one of these with --split, or build it again with --{split}-percent 20, or with "
            f"--{split}-folder.",
        )
    raise InvalidInput(
        f"There is no split {split!r}.", where=dataset.name, remedy=f"{known} {did_you_mean(split, SPLITS)}".strip()
    )


def _and(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"


def fingerprint(preprocess: Preprocess, encoding: Encoding, pictures: Iterable[Labelled]) -> str:
    """A SHA-256 that two datasets share if they hold the same pictures alike; paths and machines do not matter."""
    lossy = encoding if encoding == "jpeg" else "exact"
    digest = hashlib.sha256(json.dumps([preprocess.model_dump(), lossy], sort_keys=True).encode())
    for picture in sorted(pictures):
        digest.update(json.dumps(picture).encode())
    return digest.hexdigest()


def version() -> str:
    """The version of Vizsla that is installed."""
    try:
        return importlib.metadata.version("vizsla")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
