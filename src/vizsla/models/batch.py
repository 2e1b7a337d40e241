"""The process that classifies many pictures: `python -m vizsla.models.batch FOLDER`, on the folder of the prediction.

It computes with ONNX Runtime on the processor. What is done is kept in parts, so that one that was killed goes on.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vizsla import files, metrics, records, work
from vizsla.datasets import upload
from vizsla.datasets.dataset import Origin
from vizsla.datasets.read import in_order
from vizsla.datasets.sources import UNPACKED, errors_name, fetch
from vizsla.datasets.spec import upload_id
from vizsla.errors import InvalidInput
from vizsla.events import EventLog, now
from vizsla.machine import usage
from vizsla.models import sources
from vizsla.models.predictions import FINAL, ROWS, SCHEMA, ModelRef, Prediction, Request
from vizsla.models.predictor import BATCH, Predictor
from vizsla.models.sources import Named

PART = 2048
PROGRESS_EVERY_S = 0.25
NAMED = "named.json"


class _Seen(NamedTuple):
    """A picture, and its pixels or the reason why there are none."""

    named: Named
    pixels: npt.NDArray[np.uint8] | None
    reason: str | None


def do(folder: Path, log: EventLog, stop: work.Stop) -> str:
    """Classify the pictures part by part, join the parts, and write, last, what came out."""
    request = records.read(folder / work.REQUEST, Request, remedy="Ask for it again.")
    predictor = Predictor(request.model_folder)
    parts = folder / work.PARTS
    uploads = folder.parents[1] / upload.UPLOADS  # of the workspace in which the folder lies
    named, origin = find(request, parts, uploads, predictor.card.labels, log)
    paths = []
    for number, start in enumerate(range(0, len(named), PART)):
        paths.append(parts / f"{number:06d}.parquet")
        if not paths[-1].exists():
            _write_part(
                paths[-1], predictor, named[start : start + PART], request.top, _Progress(log, start, len(named))
            )
    counts = _join(paths, folder / ROWS)
    card = predictor.card
    prediction = Prediction(
        id=request.id,
        name=request.name,
        created_at=request.created_at,
        finished_at=now(),
        vizsla_version=version("vizsla"),
        model=ModelRef(id=card.id, name=request.model_name, network=card.network, checkpoint=card.run.checkpoint),
        source=origin.name if origin and upload_id(request.source) else str(request.source),
        top=request.top,
        num_pictures=len(named),
        classes={label: counts.classes[label] for label in card.labels},
        rejected=dict(counts.rejected.most_common()),
        accuracy=metrics.wilson(counts.right, counts.labelled)._asdict() if counts.labelled else None,
    )
    files.write_json(folder / FINAL, prediction.model_dump(mode="json"))
    if (id := upload_id(request.source)) is not None:
        upload.remove(uploads / id)
    return "done"


def find(
    request: Request, parts: Path, uploads: Path, labels: tuple[str, ...], log: EventLog
) -> tuple[list[Named], Origin | None]:
    """The pictures of a source, unpacked below `parts` if need be, and what it was if it was no folder or list.

    Raises:
        InvalidInput: it cannot be used; said of what was given, and not of where it was unpacked.
    """
    parts.mkdir(exist_ok=True)
    place = parts / UNPACKED
    shutil.rmtree(place, ignore_errors=True)  # by one that was killed
    with errors_name(request.source, place):
        source, origin = fetch(request.source, place, _Progress(log).tell, uploads)
        with errors_name(request.source, source) if origin else contextlib.nullcontext():
            return _named(parts / NAMED, source, request, labels), origin


def _named(path: Path, source: Path, request: Request, labels: tuple[str, ...]) -> list[Named]:
    """The pictures as they were found at first: those that come or go later do not move the parts."""
    if not path.exists():
        found = sources.find(source, labels, base=request.base, within=request.within)
        files.write_text(path, json.dumps(found))
    return [Named(*one) for one in files.read_json(path)]


class _Progress:
    """Tells how many are done, now and then."""

    def __init__(self, log: EventLog, done: int = 0, total: int = 0) -> None:
        self._log, self._done, self._total = log, done, total
        self._told_at = 0.0

    def add(self, num: int) -> None:
        self._done += num
        self.tell("predict", self._done, self._total)

    def tell(self, stage: str, done: int, total: int) -> None:
        if time.monotonic() - self._told_at > PROGRESS_EVERY_S or done == total:
            self._log.write("progress", stage=stage, done=done, total=total)
            self._told_at = time.monotonic()


def _write_part(path: Path, predictor: Predictor, named: list[Named], top: int, progress: _Progress) -> None:
    def see(one: Named) -> _Seen:
        if one.reason is not None:
            return _Seen(one, None, one.reason)
        try:
            return _Seen(one, predictor.card.preprocess.to_array(Path(one.file)), None)
        except InvalidInput as error:
            return _Seen(one, None, error.what)

    rows: list[dict[str, Any]] = []
    # Closed at once on an error, so that no thread goes on reading.
    with contextlib.closing(in_order(named, see, workers=os.cpu_count() or 1)) as seen:
        for group in _grouped(seen, BATCH):
            rows += _rows(predictor, group, top)
            progress.add(len(group))
    with files.atomic(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary, compression="zstd")


def _grouped(seen: Iterable[_Seen], size: int) -> Iterator[list[_Seen]]:
    iterator = iter(seen)
    while group := list(itertools.islice(iterator, size)):
        yield group


def _rows(predictor: Predictor, group: list[_Seen], top: int) -> Iterator[dict[str, Any]]:
    pixels = [one.pixels for one in group if one.pixels is not None]
    answers = iter(predictor.probabilities(np.stack(pixels)) if pixels else ())
    for one in group:
        row: dict[str, Any] = {"path": one.named.path, "label": one.named.label, "error": one.reason}
        if one.pixels is not None:
            best = predictor.best(next(answers), top)
            row |= {"predicted": best[0].label, "probability": best[0].probability}
            row |= {"top_labels": [s.label for s in best], "top_probabilities": [s.probability for s in best]}
        yield row


class _Counts:
    """What is told of all rows together."""

    def __init__(self) -> None:
        self.classes: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.labelled = 0
        self.right = 0

    def add(self, table: pa.Table) -> None:
        self.classes.update(table["predicted"].drop_null().to_pylist())
        self.rejected.update(table["error"].drop_null().to_pylist())
        right = pc.equal(table["label"], table["predicted"])  # null where either is
        self.labelled += len(right.drop_null())
        self.right += pc.sum(right).as_py() or 0


def _join(parts: list[Path], target: Path) -> _Counts:
    """Write the parts as one file, of which each is a row group, and count."""
    counts = _Counts()
    with files.atomic(target) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        for part in parts:
            table = pq.read_table(part)
            writer.write_table(table)
            counts.add(table)
    return counts


if __name__ == "__main__":
    work.leave(work.main(do, stop_at_once=True, beside=usage.watching))
