"""The rows of `images.parquet`: each file that was found, where it went, or why it was rejected."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vizsla import files
from vizsla.datasets.scan import Root, Split

READ_AT_ONCE = 10_000

# Column by column, the Arrow types; each column may be null.
COLUMNS = {
    "root": "string",
    "path": "string",
    "label": "string",
    "split": "string",
    "index": "int64",
    "width": "int32",
    "height": "int32",
    "bytes": "int64",
    "sha256": "string",
    "reason": "string",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A file. It is used if `reason` is None; `index` is its place in the pixel store, width and height are its own."""

    root: Root
    path: str
    label: str | None
    split: Split | None
    index: int | None = None
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    sha256: str | None = None
    reason: str | None = None

    def rejected(self, reason: str) -> Row:
        """The same file, not used."""
        return dataclasses.replace(self, index=None, reason=reason)


class Slice(NamedTuple):
    """Some rows, and the place to go on from; None: there are no more."""

    rows: list[Row]
    next: int | None


def read(
    path: Path,
    *,
    split: Split | None = None,
    label: str | None = None,
    rejected: bool = False,
    after: int = 0,
    limit: int = 100,
) -> Slice:
    """Some rows of the used files, or of the rejected ones, in the order of the file.

    Args:
        after: the place to go on from, in rows of the file.
    """
    import pyarrow.parquet as pq

    found: list[Row] = []
    place = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=READ_AT_ONCE):
            begins, place = place, place + batch.num_rows
            if place <= after:
                continue
            for number, fields in enumerate(batch.slice(max(0, after - begins)).to_pylist(), max(begins, after)):
                row = Row(**fields)
                if (
                    (row.reason is not None) != rejected
                    or split not in (None, row.split)
                    or label not in (None, row.label)
                ):
                    continue
                if len(found) == limit:
                    return Slice(found, number)
                found.append(row)
    return Slice(found, None)


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as Parquet, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        name: pa.array([getattr(row, name) for row in rows], pa.type_for_alias(kind)) for name, kind in COLUMNS.items()
    }
    with files.atomic(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
