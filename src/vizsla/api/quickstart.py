"""The whole chain on real digits: dataset, run, evaluation, model, predictions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from vizsla.api import datasets, evaluations, models, runs
from vizsla.datasets.dataset import Dataset, split_arrays
from vizsla.datasets.digits import write_digits
from vizsla.datasets.spec import DatasetSpec
from vizsla.evaluation.report import Report
from vizsla.events import Event, ignore_event
from vizsla.models.card import Card
from vizsla.models.predictor import Prediction
from vizsla.store.workspace import Workspace
from vizsla.training.run import RunStatus
from vizsla.training.spec import TrainingSpec

NAME = "digits"
TRAINING = TrainingSpec(net="lenet", epochs=50, batch_size=32, learning_rate=3e-3, weight_decay=0.1, shift=2)
NUM_SHOWN = 3


class Outcome(NamedTuple):
    """What the quickstart made, and how long each stage took."""

    dataset: Dataset
    run: RunStatus
    report: Report
    model: Card
    predictions: list[Prediction]
    seconds: dict[str, float]


def run(
    ws: Workspace,
    *,
    on_event: Callable[[Event], None] = ignore_event,
) -> Outcome:
    """Build a dataset of 5,000 handwritten digits, train LeNet, evaluate, export and predict.

    Run again in the same workspace, it uses the dataset that is there and makes a new run and model.

    Raises:
        Unavailable: the package that carries the digits is missing.
    """
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        seconds[stage] = time.monotonic() - began

    with timed("dataset"):
        dataset = digits(ws, on_event=on_event)
    with timed("train"):
        status = runs.start(ws, dataset.id, TRAINING, on_event=on_event)
    if status.progress.state != "done":
        raise KeyboardInterrupt  # it was stopped, so the rest is not wanted either
    with timed("evaluate"):
        report = evaluations.create(ws, status.run.id, split="test", on_event=on_event)
    with timed("export"):
        model = models.export(ws, status.run.id, on_event=on_event)
    with timed("predict"):
        predictions = list(models.predict(ws, model.id, _some_pictures(ws, dataset), top=3))
    return Outcome(dataset, status, report, model, predictions, seconds)


def digits(ws: Workspace, *, on_event: Callable[[Event], None] = ignore_event) -> Dataset:
    """The dataset of the quickstart: the one that is there, or built from pictures that are written first."""
    pictures = ws.root / "examples" / "digits"
    if not pictures.exists():
        write_digits(
            pictures,
            progress=lambda stage, done, total: on_event(
                {"event": "progress", "stage": stage, "done": done, "total": total}
            ),
        )
    spec = DatasetSpec(source=pictures, width=28, height=28, val_percent=10, test_percent=20)
    for found in datasets.list_all(ws):
        if found.spec == spec:
            return found
    taken = any(row.name == NAME for row in ws.store.all("dataset"))
    return datasets.create(ws, ws.store.free_name("dataset", NAME) if taken else NAME, spec, on_event=on_event)


def _some_pictures(ws: Workspace, dataset: Dataset) -> list[Path]:
    """Pictures of the test split, which neither the training nor the choice of the checkpoint has seen."""
    rows = split_arrays(ws.folder("dataset", dataset.id), "test")
    step = len(rows.paths) // NUM_SHOWN
    return [dataset.spec.source / rows.paths[step // 2 + i * step] for i in range(NUM_SHOWN)]
