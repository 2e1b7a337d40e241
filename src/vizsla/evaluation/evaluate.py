"""The pass over a split: predict every picture, write what was answered, then the page, and last the report."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vizsla import files, metrics
from vizsla.errors import InvalidInput
from vizsla.evaluation import html, predictions, summary
from vizsla.evaluation.report import FILE_NAME, DatasetRef, Report, SplitRole, Subject

Pixels = npt.NDArray[np.uint8]
Predict = Callable[[Pixels], npt.NDArray[np.float32]]
ReadPixels = Callable[[metrics.Ints], Pixels]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Rows:
    """The pictures of a split: rows in the dataset, true classes as positions in the labels, and paths, n of each."""

    indices: metrics.Ints
    labels: metrics.Ints
    paths: list[str]


@dataclass(frozen=True)
class About:
    """What the report says about itself: what is evaluated, on what, where."""

    id: str
    name: str
    subject: Subject
    dataset: DatasetRef
    split: str
    role: SplitRole
    device: str
    num_leaked: int = 0
    """pictures of the split that lie in another split of the dataset too"""


def evaluate(  # noqa: PLR0917 - in the order in which one says it: what, on which pictures, where to
    predict: Predict,
    read_pixels: ReadPixels,
    rows: Rows,
    labels: list[str],
    about: About,
    folder: Path,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Report:
    """Evaluate `predict` on the pictures of `rows` and write the evaluation into `folder`.

    `predict` takes (n, H, W, C) uint8 and gives (n, K) float32 probabilities; `read_pixels` takes rows of the dataset.
    Writes `predictions.parquet`, `report.html` and, last, `report.json`; a folder without the last is unfinished.
    `progress` is told how many pictures are done, of how many; what it raises ends the evaluation.

    Raises:
        InvalidInput: the split is empty, or the model gives something that is not K probabilities a picture.
    """
    if not len(rows.indices):
        raise InvalidInput(
            f"The {about.split} split has no pictures.",
            where=about.dataset.name,
            remedy="Choose another split, or build the dataset with pictures in this one.",
        )
    assert len(rows.indices) == len(rows.labels) == len(rows.paths)
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE_NAME).unlink(missing_ok=True)
    with (
        files.atomic(folder / predictions.FILE_NAME) as temporary,
        predictions.PredictionsWriter(temporary, labels) as writer,
    ):
        batches = _batches(predict, read_pixels, rows, len(labels), batch_size)
        answers = _collect(batches, writer, len(rows.indices), progress)
    report = _report(answers, rows, labels, about, started)
    chosen = np.array([mistake.index for mistake in report.mistakes], dtype=np.int64)
    pixels = list(read_pixels(chosen)) if len(chosen) else []
    files.write_text(folder / html.FILE_NAME, html.render(report, pixels))
    files.write_json(folder / FILE_NAME, report.model_dump(mode="json"))
    return report


def _batches(
    predict: Predict, read_pixels: ReadPixels, rows: Rows, num_classes: int, batch_size: int
) -> Iterator[predictions.Predicted]:
    for start in range(0, len(rows.indices), batch_size):
        part = slice(start, start + batch_size)
        probabilities = np.asarray(predict(read_pixels(rows.indices[part])), dtype=np.float32)
        _check(probabilities, len(rows.indices[part]), num_classes)
        top = metrics.top_k(probabilities, predictions.TOP)
        yield predictions.Predicted(rows.indices[part], rows.paths[part], rows.labels[part], top, probabilities)


def _check(probabilities: npt.NDArray[np.float32], num_pictures: int, num_classes: int) -> None:
    """Refuse what is not `num_classes` probabilities for each picture."""
    fault = ""
    if probabilities.shape != (num_pictures, num_classes):
        fault = f"an array of shape {probabilities.shape} for {num_pictures} pictures and {num_classes} classes"
    elif not np.isfinite(probabilities).all():
        fault = "probabilities that are not finite numbers"
    elif probabilities.min() < -1e-3:
        fault = f"a negative probability, {probabilities.min():.4g}"
    elif (off := np.abs(probabilities.sum(axis=1) - 1)).max() > 1e-3:
        fault = f"probabilities that sum to {probabilities[off.argmax()].sum():.4g} instead of 1"
    if fault:
        raise InvalidInput(
            f"The model gives {fault}.",
            remedy="Check that the model was made for the labels of this dataset and ends in a softmax.",
        )


def _collect(
    batches: Iterator[predictions.Predicted],
    writer: predictions.PredictionsWriter,
    num_pictures: int,
    progress: Progress | None,
) -> summary.Answers:
    parts: list[summary.Answers] = []
    done = 0
    for batch in batches:
        writer.write(batch)
        parts.append(
            summary.Answers(
                truth=batch.truth,
                predicted=batch.top[:, 0],
                confidence=batch.probabilities.max(axis=1),
                in_top=(batch.top == batch.truth[:, None]).any(axis=1),
                second_class=batch.probabilities[:, min(1, batch.probabilities.shape[1] - 1)].copy(),
            )
        )
        done += len(batch.truth)
        if progress:
            progress(done, num_pictures)
    return summary.Answers(
        truth=np.concatenate([part.truth for part in parts]),
        predicted=np.concatenate([part.predicted for part in parts]),
        confidence=np.concatenate([part.confidence for part in parts]),
        in_top=np.concatenate([part.in_top for part in parts]),
        second_class=np.concatenate([part.second_class for part in parts]),
    )


def _report(answers: summary.Answers, rows: Rows, labels: list[str], about: About, started: float) -> Report:
    figures = summary.headline(answers, len(labels))
    classes = summary.class_figures(answers, labels)
    right = answers.truth == answers.predicted
    return Report(
        id=about.id,
        name=about.name,
        created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        version=_version(),
        subject=about.subject,
        dataset=about.dataset,
        split=about.split,
        split_role=about.role,
        num_pictures=len(rows.indices),
        seconds=round(time.monotonic() - started, 3),
        device=about.device,
        labels=labels,
        headline=figures,
        calibration_error=metrics.expected_calibration_error(answers.confidence, right),
        per_class=classes,
        confusion=summary.confusion(answers, len(labels)),
        mistakes=summary.mistakes(answers, rows.indices, rows.paths),
        warnings=summary.warnings(about.split, about.role, figures["accuracy"], classes, about.num_leaked),
    )


def _version() -> str:
    try:
        return importlib.metadata.version("vizsla")
    except importlib.metadata.PackageNotFoundError:
        return "from source"
