"""`predictions.parquet`: one row a picture, what the model answered and how sure it was."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vizsla import metrics

FORMAT = "vizsla.predictions/1"
FILE_NAME = "predictions.parquet"

TOP = 5
# With more classes than this the file would be mostly probabilities that nobody reads.
MAX_CLASSES_IN_FULL = 100
_ROW_GROUP = 8192


class Predicted(NamedTuple):
    """A batch of answers: positions in `labels`, and the probability of the predicted class."""

    indices: metrics.Ints
    paths: list[str]
    truth: metrics.Ints
    top: metrics.Ints
    probabilities: npt.NDArray[np.float32]


class PredictionsWriter:
    """Writes batches of answers to a Parquet file, in row groups of a size that is good to read."""

    def __init__(self, path: Path, labels: list[str]) -> None:
        self._labels = pa.array(labels, pa.string())
        self._schema = _schema(labels)
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[Any] = []

    def write(self, batch: Predicted) -> None:
        """Add the rows of one batch."""
        self._waiting.append(pa.table(self._columns(batch), schema=self._schema))
        if sum(table.num_rows for table in self._waiting) >= _ROW_GROUP:
            self._flush()

    def _columns(self, batch: Predicted) -> dict[str, Any]:
        top_probabilities = np.take_along_axis(batch.probabilities, batch.top, axis=1)
        ends = np.arange(len(batch.top) + 1, dtype=np.int32) * batch.top.shape[1]
        columns = {
            "index": pa.array(batch.indices),
            "path": pa.array(batch.paths, pa.string()),
            "label": self._labels.take(pa.array(batch.truth)),
            "predicted": self._labels.take(pa.array(batch.top[:, 0])),
            "probability": pa.array(top_probabilities[:, 0]),
            "top_labels": pa.ListArray.from_arrays(ends, self._labels.take(pa.array(batch.top.ravel()))),
            "top_probabilities": pa.ListArray.from_arrays(ends, pa.array(top_probabilities.ravel())),
        }
        if "probabilities" in self._schema.names:
            flat = pa.array(np.ascontiguousarray(batch.probabilities).ravel())
            columns["probabilities"] = pa.FixedSizeListArray.from_arrays(flat, batch.probabilities.shape[1])
        return columns

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks())
            self._waiting = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


class Slice(NamedTuple):
    """Some rows, and the place to go on from; None: there are no more."""

    rows: list[dict[str, Any]]
    next: int | None


def read(
    path: Path,
    *,
    label: str | None = None,
    predicted: str | None = None,
    wrong: bool = False,
    surest: bool = False,
    after: int = 0,
    limit: int = 100,
) -> Slice:
    """Some rows, without every class's probability.

    Args:
        label, predicted: only of this true, or predicted, class.
        wrong: only those that were taken for another class.
        surest: the most probable answers first, in place of the order of the file.
        after: the place to go on from, in rows of the file; of the surest, in rows that were answered.
    """
    if surest:
        order = _surest(path, label, predicted, wrong)
        rows = _take(path, order[after : after + limit])
        return Slice(rows, after + limit if after + limit < len(order) else None)
    found: list[dict[str, Any]] = []
    place = 0
    with pq.ParquetFile(path) as file:
        columns = [name for name in file.schema_arrow.names if name != "probabilities"]
        for batch in file.iter_batches(batch_size=_ROW_GROUP, columns=columns):
            begins, place = place, place + batch.num_rows
            if place <= after:
                continue
            for number, row in enumerate(batch.slice(max(0, after - begins)).to_pylist(), max(begins, after)):
                if label not in (None, row["label"]) or predicted not in (None, row["predicted"]):
                    continue
                if wrong and row["label"] == row["predicted"]:
                    continue
                if len(found) == limit:
                    return Slice(found, number)
                found.append(row)
    return Slice(found, None)


def _surest(path: Path, label: str | None, predicted: str | None, wrong: bool) -> npt.NDArray[np.int64]:
    """The numbers of the rows that fit, the most probable answers first."""
    found = _fitting(path, label, predicted, wrong)
    with pq.ParquetFile(path) as file:
        probability = file.read(columns=["probability"])["probability"].to_numpy()
    return found[np.argsort(-probability[found], kind="stable")]


def _fitting(path: Path, label: str | None, predicted: str | None, wrong: bool) -> npt.NDArray[np.int64]:
    """The numbers of the rows that fit, in the order of the file. Names are read only where they are asked about."""
    wanted = {"label": label, "predicted": predicted}
    columns = [name for name, value in wanted.items() if wrong or value is not None]
    with pq.ParquetFile(path) as file:
        fits = np.ones(file.metadata.num_rows, dtype=bool)
        known = file.read(columns=columns)
    for name in columns:
        if wanted[name] is not None:
            fits &= pc.equal(known[name], wanted[name]).to_numpy()
    if wrong:
        fits &= pc.not_equal(known["label"], known["predicted"]).to_numpy()
    return np.flatnonzero(fits)


class Place(NamedTuple):
    """A picture among those that fit: its row, the numbers of the pictures beside it, and where it stands."""

    row: dict[str, Any]
    before: int | None
    after: int | None
    number: int
    """from 1 on"""
    num_pictures: int


def place(
    path: Path,
    index: int,
    *,
    label: str | None = None,
    predicted: str | None = None,
    wrong: bool = False,
    surest: bool = False,
) -> Place | None:
    """A picture by its number in the dataset, and those beside it; None: it is not among those that fit.

    Args:
        label, predicted, wrong, surest: see `read`.
    """
    order = _surest(path, label, predicted, wrong) if surest else _fitting(path, label, predicted, wrong)
    with pq.ParquetFile(path) as file:
        numbers = file.read(columns=["index"])["index"].to_numpy()[order]
    found = np.flatnonzero(numbers == index)
    if not len(found):
        return None
    at = int(found[0])
    before, after = (int(numbers[one]) if 0 <= one < len(numbers) else None for one in (at - 1, at + 1))
    return Place(_take(path, order[at : at + 1])[0], before, after, at + 1, len(numbers))


class Top(NamedTuple):
    """The pictures that were most surely taken for a class, right or wrong."""

    label: str
    num_pictures: int
    """that were taken for it"""
    rows: list[dict[str, Any]]


def tops(path: Path, labels: list[str], num: int) -> list[Top]:
    """For each of some classes the `num` pictures that were most surely taken for it, the surest first."""
    with pq.ParquetFile(path) as file:
        known = file.read(columns=["predicted", "probability"])
    place = pc.index_in(known["predicted"], pa.array(labels, pa.string())).fill_null(-1).to_numpy()
    order = np.lexsort((np.arange(len(place)), -known["probability"].to_numpy(), place))
    starts = np.searchsorted(place[order], np.arange(len(labels) + 1))
    mine = [order[start:end] for start, end in itertools.pairwise(starts)]
    rows = iter(_take(path, np.concatenate([of[:num] for of in mine]) if mine else np.empty(0, dtype=np.int64)))
    return [Top(label, len(of), [next(rows) for _ in of[:num]]) for label, of in zip(labels, mine, strict=True)]


def _take(path: Path, wanted: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """The rows of these numbers, in that order, from no more of the file than has to be read."""
    found: dict[int, dict[str, Any]] = {}
    with pq.ParquetFile(path) as file:
        columns = [name for name in file.schema_arrow.names if name != "probabilities"]
        sizes = np.array([file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)])
        ends = np.cumsum(sizes)
        groups = np.searchsorted(ends, wanted, side="right")
        for group in np.unique(groups):
            inside = wanted[groups == group]
            table = file.read_row_group(int(group), columns=columns)
            found |= zip(inside.tolist(), table.take(inside - (ends[group] - sizes[group])).to_pylist(), strict=True)
    return [found[number] for number in wanted.tolist()]


def _schema(labels: list[str]) -> Any:
    fields = [
        pa.field("index", pa.int64()),
        pa.field("path", pa.string()),
        pa.field("label", pa.string()),
        pa.field("predicted", pa.string()),
        pa.field("probability", pa.float32()),
        pa.field("top_labels", pa.list_(pa.string())),
        pa.field("top_probabilities", pa.list_(pa.float32())),
    ]
    if len(labels) <= MAX_CLASSES_IN_FULL:
        fields.append(pa.field("probabilities", pa.list_(pa.float32(), len(labels))))
    about = {"format": FORMAT, "labels": labels}
    return pa.schema(fields, metadata={"vizsla": json.dumps(about, ensure_ascii=False)})
