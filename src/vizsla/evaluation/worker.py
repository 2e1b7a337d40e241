"""The process that evaluates: `python -m vizsla.evaluation.worker FOLDER`, on the folder of the evaluation to be.

A run is evaluated by torch on the device that the queue gave, a model by ONNX Runtime on the processor; both in 32-bit
floats, as a model is served.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vizsla import records, work
from vizsla.datasets.dataset import Dataset, count_leaked, open_dataset, split_arrays
from vizsla.datasets.store import PixelStore
from vizsla.errors import InvalidInput, Unavailable
from vizsla.evaluation.evaluate import About, Predict, Rows, evaluate
from vizsla.evaluation.report import DatasetRef, Request, SplitRole, Subject
from vizsla.events import EventLog
from vizsla.machine import usage

if TYPE_CHECKING:
    import torch

PROGRESS_EVERY_S = 0.25

ROLES: dict[str, SplitRole] = {"train": "trained on", "val": "chose the checkpoint", "test": "held out"}


class Judged(NamedTuple):
    """What is evaluated: its answer to pixels, and what it is."""

    predict: Predict
    subject: Subject
    labels: list[str]
    fingerprint: str
    device: str


def do(folder: Path, log: EventLog, stop: work.Stop) -> str:
    """Evaluate and write the report."""
    request = records.read(folder / work.REQUEST, Request, remedy="Ask for it again.")
    dataset = open_dataset(request.dataset_folder)
    arrays = split_arrays(request.dataset_folder, request.split)
    judged = _open_run(request, log) if request.kind == "run" else _open_model(request)
    _check_same(judged, dataset)
    pixels = PixelStore.open(request.dataset_folder / "pixels")
    last = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > PROGRESS_EVERY_S or done == total:
            log.write("progress", stage=f"evaluate {request.split}", done=done, total=total)
            last = time.monotonic()

    about = About(
        id=request.id,
        name=request.name,
        subject=judged.subject,
        dataset=DatasetRef(id=dataset.id, name=request.dataset_name, fingerprint=dataset.fingerprint),
        split=request.split,
        role=ROLES[request.split],
        device=judged.device,
        num_leaked=count_leaked(request.dataset_folder, request.split),
    )
    rows = Rows(indices=arrays.indices, labels=arrays.labels, paths=arrays.paths)
    evaluate(judged.predict, pixels.read, rows, judged.labels, about, folder, progress=progress)
    return "done"


def _open_run(request: Request, log: EventLog) -> Judged:
    with work.loading():
        import torch

        from vizsla.training import arithmetic, checkpoint
    from vizsla.training.run import find_checkpoint, open_run

    run = open_run(request.subject_folder)
    found = find_checkpoint(request.subject_folder, request.checkpoint)
    device = _device(request.device, log)
    arithmetic.settle(device)
    classifier = checkpoint.restore(run, found.folder).to(device)
    classifier.to(memory_format=torch.channels_last)

    def predict(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            probabilities: np.ndarray = classifier(torch.from_numpy(pixels).to(device)).softmax(1).cpu().numpy()
        return probabilities

    subject = Subject(kind="run", id=run.id, name=request.subject_name, checkpoint=str(found.step), network=run.network)
    return Judged(predict, subject, list(run.labels), run.dataset.fingerprint, str(device))


def _device(given: str, log: EventLog) -> torch.device:
    """The device that was given; where torch cannot use that GPU the processor, and never another GPU."""
    import torch

    from vizsla.training import arithmetic

    try:
        device = arithmetic.choose_devices(given, 1)[0]
    except Unavailable as error:
        log.notice(f"{error.what} It is done on the processor.")
        return torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what names no device takes this one
    return device


def _open_model(request: Request) -> Judged:
    from vizsla.models.predictor import Predictor

    predictor = Predictor(request.subject_folder)
    card = predictor.card
    subject = Subject(
        kind="model",
        id=card.id,
        name=request.subject_name,
        checkpoint=str(card.run.checkpoint),
        network=card.network,
    )
    return Judged(predictor.probabilities, subject, list(card.labels), card.dataset.fingerprint, "cpu")


def _check_same(judged: Judged, dataset: Dataset) -> None:
    if judged.fingerprint != dataset.fingerprint:
        raise InvalidInput(
            "The dataset is not the one that was trained on.", where=dataset.name, remedy="Train again on this dataset."
        )


if __name__ == "__main__":
    work.leave(work.main(do, stop_at_once=True, beside=usage.watching))
