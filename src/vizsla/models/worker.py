"""The process that exports: `python -m vizsla.models.worker FOLDER`, on the folder of the model to be."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from vizsla import files, records, work
from vizsla.datasets.dataset import open_dataset, split_arrays
from vizsla.datasets.store import PixelStore
from vizsla.errors import InvalidInput
from vizsla.events import EventLog
from vizsla.machine import usage
from vizsla.models.card import CARD, GRAPH, LABELS, WEIGHTS, Card, Parity, Request, RunRef
from vizsla.training.run import Run, epochs, find_checkpoint, open_run

with work.loading():
    from vizsla.models import export
    from vizsla.training import checkpoint

# More pictures prove little more, and every one of them goes through both engines several times.
PARITY_PICTURES = 56


def do(folder: Path, log: EventLog, stop: work.Stop) -> str:
    """Write the model's files and, last, its card."""
    request = records.read(folder / work.REQUEST, Request, remedy="Ask for it again.")
    run = open_run(request.run_folder)
    found = find_checkpoint(request.run_folder, request.checkpoint)
    log.write("progress", stage="export", done=0, total=2)
    classifier = checkpoint.restore(run, found.folder)
    split, pixels = _real_pictures(request.dataset_folder, run)
    agreement = export.write(classifier, run.labels, pixels, folder)
    log.write("progress", stage="export", done=1, total=2)
    card = Card(
        id=request.id,
        name=request.name,
        created_at=request.created_at,
        network=run.network,
        num_parameters=run.num_parameters,
        labels=run.labels,
        preprocess=run.preprocess,
        input=run.input,
        run=RunRef(id=run.id, name=run.name, checkpoint=found.step),
        dataset=run.dataset,
        weights=run.weights,
        figures=(*_validation(run, request.run_folder, found.step), *request.figures),
        parity=Parity(**agreement._asdict(), split=split),
        files={name: files.sha256(folder / name) for name in (GRAPH, WEIGHTS, LABELS)},
        vizsla_version=version("vizsla"),
    )
    files.write_json(folder / CARD, card.model_dump(mode="json"))
    log.write("progress", stage="export", done=2, total=2)
    return "done"


def _validation(run: Run, folder: Path, step: int) -> list[dict[str, Any]]:
    """The headline figure of a checkpoint that the run itself found, as an entry of the card."""
    return [
        {
            "split": "val",
            "role": "chose the checkpoint",
            "accuracy": epoch["val_accuracy"],
            "precision": run.arithmetic.precision,
            "evaluation": None,
        }
        for epoch in epochs(folder)
        if epoch["step"] == step and epoch["val_accuracy"]
    ]


def _real_pictures(folder: Path, run: Run) -> tuple[str, np.ndarray]:
    """Some pictures spread over the validation split, or over the training split where there is none."""
    dataset = open_dataset(folder)
    if dataset.fingerprint != run.dataset.fingerprint:
        raise InvalidInput(
            "The dataset has changed since the run.", where=str(folder), remedy="Train again, then export."
        )
    split = "val" if run.num_val >= max(export.PARITY_BATCHES) else "train"
    indices = split_arrays(folder, split).indices
    chosen = np.linspace(0, len(indices) - 1, min(PARITY_PICTURES, len(indices))).astype(int)
    return split, PixelStore.open(folder / "pixels").read(indices[chosen])


if __name__ == "__main__":
    work.leave(work.main(do, stop_at_once=True, beside=usage.watching))
