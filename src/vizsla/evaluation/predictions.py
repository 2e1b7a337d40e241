"""`predictions.parquet`: one row a picture, what the model answered and how sure it was."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
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
