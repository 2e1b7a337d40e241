"""What a dataset would be, before it is built: its classes, its splits, and the files that cannot be used."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from vizsla.datasets import archive, lists, upload
from vizsla.datasets.build import counts, divided, without_small_classes
from vizsla.datasets.read import Quota, in_order, is_grey
from vizsla.datasets.rows import Row
from vizsla.datasets.scan import Scan, Split, location, scan, walk
from vizsla.datasets.sources import opened
from vizsla.datasets.spec import DatasetSpec, upload_id
from vizsla.datasets.split import order_key
from vizsla.datasets.store import encode
from vizsla.errors import InvalidInput
from vizsla.images.decode import Size, decode, read
from vizsla.images.preprocess import Preprocess

OPENED, OPENED_S = 500, 4.0
REJECTED_SHOWN = 50
# To look into an archive it is unpacked.
MAX_ARCHIVE_BYTES = 500_000_000
SHOWN_PX = 320
_TRIED = 50
_MAX_PICTURE_BYTES = 32 * 2**20


class Unusable(BaseModel):
    """A file that will be rejected."""

    model_config = ConfigDict(frozen=True)

    path: str
    reason: str


class Plan(BaseModel):
    """What a dataset would be."""

    model_config = ConfigDict(frozen=True)

    labels: list[str] = Field(description="The classes, without those that are left out.")
    classes: dict[str, int] = Field(description="Files of each class that may be used, also of those left out.")
    counts: dict[Split, dict[str, int]] = Field(description="Pictures by split and label, as far as is known.")
    found: int = Field(description="Files found.")
    rejected: int = Field(description="Files that will be rejected, as far as is known.")
    rejected_reasons: dict[str, int] = Field(description="Those by reason, the most frequent first.")
    rejected_files: list[Unusable] = Field(description=f"The first {REJECTED_SHOWN} of those.")
    opened: int = Field(description="Files that were opened for this, chosen at random.")
    unreadable: int = Field(description="Of those opened, the ones that are no pictures.")
    exact: bool = Field(
        description="Every file was opened. If not, counts change by files that turn out to be no pictures or copies."
    )
    problem: str = Field("", description="Why this cannot be built, in spite of all; empty if it can.")
    remedy: str = Field("", description="What to do about that.")


def plan(
    spec: DatasetSpec, folder: Path, *, uploads: Path | None = None, allowed: Sequence[Path] | None = None
) -> Plan:
    """Look at the files of `spec` and open some of them; nothing is kept.

    Args:
        folder: for what archives hold, while this lasts; it is removed.
        uploads: the folder in which uploads lie, for sources that name one.
        allowed: see `lists.read_lines`.

    Raises:
        InvalidInput: the folders or the classes cannot make a dataset, or an archive is too large to be unpacked.
        DiskFull: there is no room to unpack.
    """
    for path in (spec.source, spec.val_folder, spec.test_folder):
        if path is not None:
            _require_small(path, uploads)
    with opened(spec, folder, lambda stage, done, total: None, uploads=uploads) as sources:
        found = scan(sources.spec, allowed=allowed)
        looked = _look(sources.spec, found)
    return _planned(spec, found, looked)


def _require_small(path: Path, uploads: Path | None) -> None:
    id = upload_id(path)
    file = uploads / id / upload.DATA if id and uploads else path
    if file.is_file() and archive.kind_of(file) and file.stat().st_size > MAX_ARCHIVE_BYTES:
        raise InvalidInput(
            f"Archives of more than {MAX_ARCHIVE_BYTES // 10**6} MB are not unpacked to look at them.",
            where=str(path),
            remedy="Build the dataset: it lists every file that could not be used.",
        )


class _Looked(NamedTuple):
    """What opening a file gave."""

    sha256: str
    reason: str | None


def _look(spec: DatasetSpec, found: Scan) -> dict[int, _Looked]:
    """Open some of the files, by their place among the files that may be used."""
    usable = [place for place, file in enumerate(found.files) if file.reason is None]
    # Drawn, so that those that were opened when the time is over stand for the others.
    drawn = sorted(usable, key=lambda place: order_key(0, "", found.files[place].path))[:OPENED]
    looked: dict[int, _Looked] = {}
    ends = time.monotonic() + OPENED_S
    opening = in_order(drawn, lambda place: _open(location(spec, found.files[place])), workers=os.cpu_count() or 1)
    with contextlib.closing(opening) as answers:
        for place, answer in zip(drawn, answers, strict=True):
            looked[place] = answer
            if time.monotonic() > ends:
                break
    return looked


def _open(path: Path) -> _Looked:
    digest = ""
    try:
        data = read(path)
        digest = hashlib.sha256(data).hexdigest()
        decode(data, target=Size(32, 32))
    except InvalidInput as error:
        return _Looked(digest, error.what)
    return _Looked(digest, None)


def _planned(spec: DatasetSpec, found: Scan, looked: dict[int, _Looked]) -> Plan:
    rows = _within_limit(spec, [_row(found, place, looked.get(place)) for place in range(len(found.files))])
    labels, problem, remedy = found.labels, "", ""
    try:
        labels, rows = without_small_classes(spec, labels, rows)
    except InvalidInput as error:
        problem, remedy = error.what, error.remedy
    rows = divided(spec, found.given, rows)
    rejected = [row for row in rows if row.reason is not None]
    of_class = Counter(file.label for file in found.files if file.reason is None)
    return Plan(
        labels=labels,
        classes={label: of_class[label] for label in found.labels},
        counts=counts(labels, [row for row in rows if row.reason is None]),
        found=len(rows),
        rejected=len(rejected),
        rejected_reasons=dict(Counter(str(row.reason) for row in rejected).most_common()),
        rejected_files=[Unusable(path=row.path, reason=str(row.reason)) for row in rejected[:REJECTED_SHOWN]],
        opened=len(looked),
        unreadable=sum(one.reason is not None for one in looked.values()),
        exact=len(looked) == sum(of_class.values()),
        problem=problem,
        remedy=remedy,
    )


def _row(found: Scan, place: int, looked: _Looked | None) -> Row:
    file = found.files[place]
    reason = file.reason if looked is None else looked.reason
    # What was not opened is taken for a picture that is like no other.
    content = f"{file.root} {file.path}" if looked is None else looked.sha256
    return Row(file.root, file.path, file.label, file.split, sha256=content, reason=reason)


def _within_limit(spec: DatasetSpec, rows: list[Row]) -> list[Row]:
    """The rows, of each class as many as `max_per_class` lets be used, chosen as `read.read_all` does."""
    if spec.max_per_class is None:
        return rows
    quota, kept = Quota(spec.max_per_class), list(rows)
    places = [place for place, row in enumerate(rows) if row.reason is None]
    for place in sorted(places, key=lambda place: order_key(spec.seed, rows[place].label or "", rows[place].path)):
        if quota.is_full(rows[place]):
            kept[place] = quota.refuse(rows[place])
        else:
            quota.take(rows[place])
    return kept


def fitted(spec: DatasetSpec, *, uploads: Path | None = None, allowed: Sequence[Path] | None = None) -> bytes:
    """The first picture of `spec.source` as the dataset would keep it, as PNG; at most `SHOWN_PX` wide and high.

    Raises:
        InvalidInput: there is no picture among the first files.
    """
    for data in _first(spec, uploads, allowed):
        with contextlib.suppress(InvalidInput):
            image = decode(data, target=Size(64, 64))
            grey = spec.colour == "grey" or (spec.colour == "auto" and is_grey(image))
            factor = min(1.0, SHOWN_PX / max(spec.width, spec.height))
            preprocess = Preprocess(
                width=max(1, round(spec.width * factor)),
                height=max(1, round(spec.height * factor)),
                channels=1 if grey else 3,
                resize=spec.resize,
                interpolation=spec.interpolation,
            )
            return encode(preprocess.to_array(data), "png")
    raise InvalidInput("There is no picture among the first files.", where=str(spec.source))


def _first(spec: DatasetSpec, uploads: Path | None, allowed: Sequence[Path] | None) -> Iterator[bytes]:
    """The content of the first files of a source."""
    path = spec.source
    if (id := upload_id(path)) and uploads:
        is_folder = upload.open_upload(uploads / id).kind == "folder"
        path = uploads / id / (upload.PICTURES if is_folder else upload.DATA)
    if path.is_dir():
        files = (Path(file) for file, reason in walk(str(path)) if reason is None)
    elif path.is_file() and (kind := archive.kind_of(path)):
        yield from _in_archive(path, kind)
        return
    else:
        lines = lists.read_lines(path, spec.picture_folder or path.parent, allowed=allowed)
        files = ((spec.picture_folder or path.parent) / line.path for line in lines if line.reason is None)
    for file in itertools.islice(files, _TRIED):
        with contextlib.suppress(InvalidInput):
            yield read(file)


def _in_archive(path: Path, kind: str) -> Iterator[bytes]:
    try:
        with path.open("rb") as raw:
            files = (one for one in archive.entries(raw, kind) if not one.is_folder and not one.problem)
            for entry in itertools.islice(files, _TRIED):
                if entry.num_bytes <= _MAX_PICTURE_BYTES:
                    with entry.open() as file:
                        yield file.read(_MAX_PICTURE_BYTES)
                elif kind != "zip":  # to come to the next entry this one would have to be read
                    return
    except archive.DAMAGES as error:
        raise InvalidInput(f"The archive is damaged: {error}.", where=path.name) from None
