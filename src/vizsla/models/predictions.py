"""A prediction of many pictures: what was asked, what came out (`prediction.json`), and a row for each picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from vizsla import records

FINAL = "prediction.json"
ROWS = "predictions.parquet"
ROWS_FORMAT = "vizsla.prediction-rows/1"
MAX_TOP = 100
CSV_ROWS = 4096

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("label", pa.string()),
        pa.field("predicted", pa.string()),
        pa.field("probability", pa.float32()),
        pa.field("top_labels", pa.list_(pa.string())),
        pa.field("top_probabilities", pa.list_(pa.float32())),
        pa.field("error", pa.string()),
    ],
    metadata={"vizsla": json.dumps({"format": ROWS_FORMAT})},
)


class Request(BaseModel):
    """`request.json` of a prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["vizsla.prediction-request/1"] = "vizsla.prediction-request/1"
    id: str
    name: str
    created_at: str
    model_folder: Path
    model_name: str
    source: Path
    base: Path | None = Field(description="to which the paths of a list are relative; its own folder by default")
    within: tuple[Path, ...] | None = Field(description="where the files of a list have to lie; null for anywhere")
    top: int = Field(ge=1, le=MAX_TOP)


class ModelRef(BaseModel):
    """The model that predicted."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    network: str
    checkpoint: int


class Prediction(BaseModel):
    """`prediction.json`."""

    model_config = ConfigDict(frozen=True)

    format: Literal["vizsla.prediction/1"] = "vizsla.prediction/1"
    id: str
    name: str
    created_at: str
    finished_at: str
    vizsla_version: str
    model: ModelRef
    source: str
    top: int = Field(description="classes that are named for each picture, at most")
    num_pictures: int = Field(description="files that were found or listed")
    classes: dict[str, int] = Field(description="for how many pictures each class is the most probable")
    rejected: dict[str, int] = Field(description="how many could not be looked at, by reason")
    accuracy: dict[str, Any] | None = Field(description="of the pictures to which a list gives their class")


class Score(BaseModel):
    """A class and the probability that the model gives it."""

    label: str
    probability: float


class Row(BaseModel):
    """What a model sees in one picture: the best classes first, or the reason why it could not look."""

    path: str
    label: str | None = Field(description="the class that the list gives it")
    scores: list[Score]
    error: str | None


class Rows(NamedTuple):
    """Some of the rows, and the place to go on from; None at the end."""

    items: list[Row]
    next: int | None


def open_prediction(folder: Path) -> Prediction:
    """Read what came out of a prediction.

    Raises:
        InvalidInput: it was never finished, or its file is damaged.
    """
    return records.read(folder / FINAL, Prediction, remedy="Make it again.")


def rows(folder: Path, *, first: int = 0, limit: int = 50, label: str | None = None, rejected: bool = False) -> Rows:
    """Some of the rows, in the order of the folder or list.

    Args:
        first: how many rows to pass over.
        label: only the pictures for which this class is the most probable, the surest first.
        rejected: only those that could not be looked at.
    """
    with pq.ParquetFile(folder / ROWS) as file:
        chosen = _chosen(file, label, rejected)
        wanted = chosen[first : first + limit]
        items = [_row(found) for found in _read(file, wanted)]
    return Rows(items, first + len(wanted) if first + len(wanted) < len(chosen) else None)


def _chosen(file: pq.ParquetFile, label: str | None, rejected: bool) -> Sequence[int] | np.ndarray[Any, Any]:
    """The numbers of the rows that are asked for, in their order."""
    if label is not None:
        table = file.read(columns=["predicted", "probability"])
        found = np.flatnonzero(pc.equal(table["predicted"], label).fill_null(False).to_numpy())
        return found[np.argsort(-table["probability"].to_numpy()[found], kind="stable")]
    if rejected:
        return np.flatnonzero(pc.is_valid(file.read(columns=["error"])["error"]).to_numpy())
    return range(file.metadata.num_rows)


def _read(file: pq.ParquetFile, wanted: Sequence[int] | np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """The rows of these numbers, in that order, from no more of the file than has to be read."""
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    ends = np.cumsum(sizes)
    groups = np.searchsorted(ends, np.asarray(wanted, dtype=np.int64), side="right")
    found: dict[int, dict[str, Any]] = {}
    for group in sorted(set(groups.tolist())):
        start = int(ends[group]) - sizes[group]
        inside = [int(number) for number, place in zip(wanted, groups, strict=True) if place == group]
        taken = file.read_row_group(group).take([number - start for number in inside]).to_pylist()
        found |= zip(inside, taken, strict=True)
    return [found[int(number)] for number in wanted]


def _row(found: dict[str, Any]) -> Row:
    best = zip(found["top_labels"] or (), found["top_probabilities"] or (), strict=True)
    scores = [Score(label=label, probability=probability) for label, probability in best]
    return Row(path=found["path"], label=found["label"], scores=scores, error=found["error"])


def csv_parts(folder: Path) -> Iterator[str]:
    """All rows as CSV, part by part: path, label, predicted, probability, error."""
    columns = ["path", "label", "predicted", "probability", "error"]
    part = io.StringIO()
    writer = csv.writer(part)
    writer.writerow(columns)
    with pq.ParquetFile(folder / ROWS) as file:
        for batch in file.iter_batches(columns=columns, batch_size=CSV_ROWS):
            for found in batch.to_pylist():
                writer.writerow([_harmless(found["path"]), *(found[name] for name in columns[1:])])
            yield part.getvalue()
            part.seek(0)
            part.truncate()
    yield part.getvalue()


def _harmless(path: str) -> str:
    """The same path, which a program for tables does not take for a formula."""
    return f"./{path}" if path.startswith(("=", "+", "-", "@")) else path
