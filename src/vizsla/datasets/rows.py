"""The rows of `images.parquet`: each file that was found, where it went, or why it was rejected."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vizsla import files
from vizsla.datasets.scan import Root, Split

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

GROUP_ROWS = 10_000
READ_AT_ONCE = 1000

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
    with pq.ParquetFile(path) as file:
        for place, batch in _batches(file, after, label):
            for number, fields in enumerate(batch.slice(max(0, after - place)).to_pylist(), max(place, after)):
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


def _batches(file: pq.ParquetFile, after: int, label: str | None) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows by the thousand, each with its place; without those before `after`, and groups without the class."""
    begins = 0
    for group in range(file.num_row_groups):
        about = file.metadata.row_group(group)
        place, begins = begins, begins + about.num_rows
        if begins <= after or not _may_hold(about, label):
            continue
        for batch in file.iter_batches(batch_size=READ_AT_ONCE, row_groups=[group]):
            if place + batch.num_rows > after:
                yield place, batch
            place += batch.num_rows


def _may_hold(group: pq.RowGroupMetaData, label: str | None) -> bool:
    """Whether a group of rows may hold one of a class, by what the file says of it."""
    column = group.column(list(COLUMNS).index("label"))
    known = column.statistics if column.is_stats_set else None
    if label is None or known is None or not known.has_min_max:
        return True
    return bool(known.min.encode() <= label.encode() <= known.max.encode())


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as Parquet, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        name: pa.array([getattr(row, name) for row in rows], pa.type_for_alias(kind)) for name, kind in COLUMNS.items()
    }
    with files.atomic(path) as temporary:
        # Files lie by class, so a page of one class is found in few groups.
        pq.write_table(pa.table(columns), temporary, compression="zstd", row_group_size=GROUP_ROWS)
