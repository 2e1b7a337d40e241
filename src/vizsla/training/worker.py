"""The process that trains: turns the loop's events into lines, checkpoints and a clean stop.

Started as `python -m vizsla.training.worker FOLDER` on the folder of a run. A folder that holds `run.json` goes on
from its last checkpoint; one that holds only `request.json` begins.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vizsla import files, records, work
from vizsla.events import EventLog
from vizsla.training import checkpoint, setup
from vizsla.training.checkpoint import Best, Position
from vizsla.training.inputs import Features, Inputs, Pictures, Stored, compute_features
from vizsla.training.loop import EpochEnded, State, Stepped, Task, make_optimizer, train
from vizsla.training.run import Request, find_checkpoint, open_run

PROGRESS_EVERY_S = 0.5


@dataclass
class Sitting:
    """One sitting of a run: from its last checkpoint, or from the beginning, to its end or a stop."""

    folder: Path
    log: EventLog
    stop: work.Stop
    prepared: setup.Prepared
    state: State
    position: Position

    def __post_init__(self) -> None:
        self.began = time.monotonic()
        self.elapsed_before = self.position.elapsed_s

    @property
    def elapsed_s(self) -> float:
        """Seconds of training in this sitting and those before it."""
        return self.elapsed_before + time.monotonic() - self.began


def do(folder: Path, log: EventLog, stop: work.Stop) -> str:
    """Train the run in `folder` to its end, or until asked to stop; returns "done" or "stopped"."""
    request = records.read(folder / work.REQUEST, Request, remedy="Ask for it again.")
    begun = (folder / "run.json").exists()
    sitting = _resume(folder, log, stop, request) if begun else _begin(folder, log, stop, request)
    return _train(sitting, _task(sitting))


def _begin(folder: Path, log: EventLog, stop: work.Stop, request: Request) -> Sitting:
    prepared = setup.prepare(request, log.notice)
    state = State(make_optimizer(prepared.run.spec, _place(prepared)))
    files.write_json(folder / "environment.json", setup.environment(prepared.device, request.spec.seed))
    for text in prepared.run.spec.unused():
        log.notice(text)
    log.write("started", total_steps=prepared.run.total_steps, epochs=prepared.run.spec.epochs)
    files.fsync(log.path)
    position = Position(step=0, best=None, elapsed_s=0.0, events_bytes=log.path.stat().st_size)
    # With a checkpoint of step 0, going on never needs the pretrained weights again. run.json comes last: it says
    # that the run was accepted and can be resumed.
    checkpoint.save(folder, prepared.classifier.network, state, position)
    files.write_json(folder / "run.json", prepared.run.model_dump(mode="json"))
    return Sitting(folder, log, stop, prepared, state, position)


def _resume(folder: Path, log: EventLog, stop: work.Stop, request: Request) -> Sitting:
    prepared = setup.again(open_run(folder), request)
    state = State(make_optimizer(prepared.run.spec, _place(prepared)))
    last = find_checkpoint(folder, "last")
    position = checkpoint.load(last.folder, prepared.classifier.network, state)
    return Sitting(folder, log, stop, prepared, state, position)


def _place(prepared: setup.Prepared) -> nn.Module:
    """Put the classifier on its device, freeze what is not trained, and return what the optimiser trains."""
    prepared.classifier.to(prepared.device)
    prepared.classifier.to(memory_format=torch.channels_last)
    network = prepared.classifier.network
    if prepared.run.spec.tune != "head":
        return network
    network.requires_grad_(False)
    head: nn.Module = network.get_classifier()  # type: ignore[operator]
    return head.requires_grad_(True)


def _task(sitting: Sitting) -> Task:
    prepared = sitting.prepared
    spec, network = prepared.run.spec, prepared.classifier.network
    module: nn.Module = network.get_classifier() if spec.tune == "head" else network  # type: ignore[operator]

    def inputs(split: Stored, name: str) -> Inputs:
        if spec.tune != "head":
            return Pictures(split, prepared.classifier, spec, prepared.device)
        table = compute_features(
            split,
            prepared.classifier,
            mirror=bool(spec.flip) and name == "train",
            device=prepared.device,
            precision=prepared.precision,
            scratch=sitting.folder,
            progress=_reporter(sitting, f"features of {name}"),
        )
        return Features(table, split.labels, module, prepared.device)

    return Task(
        spec=spec,
        plan=prepared.plan,
        module=module,
        train=inputs(prepared.train, "train"),
        val=inputs(prepared.val, "val") if prepared.val else None,
        device=prepared.device,
        precision=prepared.precision,
    )


class _reporter:  # noqa: N801 - used as the function that it is
    """Writes `progress` events, at most two a second; leaves the work when asked to stop."""

    def __init__(self, sitting: Sitting, stage: str) -> None:
        self._sitting = sitting
        self._stage = stage
        self._last = 0.0

    def __call__(self, done: int, total: int) -> None:
        self._sitting.stop.check()
        if time.monotonic() - self._last > PROGRESS_EVERY_S or done == total:
            self._sitting.log.write("progress", stage=self._stage, done=done, total=total)
            self._last = time.monotonic()


def _train(sitting: Sitting, task: Task) -> str:
    """Consume the loop: log, checkpoint, stop. Returns the final event."""
    saved_at = time.monotonic()
    loop = train(task, sitting.state)
    try:
        for event in loop:
            if isinstance(event, EpochEnded):
                _log_epoch(sitting, event)
                _save(sitting)
                saved_at = time.monotonic()
                continue
            if event.loss is not None:
                _log_step(sitting, event)
            # At the last step of an epoch its validation is still to come: the epoch's own checkpoint follows it.
            if event.step % task.plan.steps_per_epoch == 0:
                continue
            due = time.monotonic() - saved_at > task.spec.checkpoint_every_s and event.loss is not None
            if sitting.stop.asked or due:
                _save(sitting)
                saved_at = time.monotonic()
            if sitting.stop.asked:
                return "stopped"
    finally:
        loop.close()
    return "done"


def _log_step(sitting: Sitting, event: Stepped) -> None:
    assert event.speed is not None, "loss and speed are reported together"
    sitting.log.write(
        "step",
        step=event.step,
        epoch=event.epoch,
        loss=event.loss,
        learning_rate=event.learning_rate,
        pictures_per_s=round(event.speed.pictures_per_s, 1),
        data_wait=round(event.speed.data_wait, 4),
        elapsed_s=round(sitting.elapsed_s, 3),
    )


def _log_epoch(sitting: Sitting, event: EpochEnded) -> None:
    val = event.validation
    now = Best(event.step, event.epoch, val.accuracy.value, val.loss) if val else None
    best = sitting.position.best
    if now is not None and (best is None or best.beaten_by(now)):
        best = now
    sitting.position = sitting.position._replace(best=best)
    sitting.log.write(
        "epoch",
        step=event.step,
        epoch=event.epoch,
        train_loss=event.train_loss,
        train_accuracy=event.train_accuracy,
        num_train=len(sitting.prepared.train.labels),
        val_loss=val.loss if val else None,
        val_accuracy=val.accuracy._asdict() if val else None,
        val_balanced_accuracy=val.balanced_accuracy if val else None,
        best_epoch=best.epoch if best else None,
        elapsed_s=round(sitting.elapsed_s, 3),
    )


def _save(sitting: Sitting) -> None:
    sitting.state.check_finite()
    files.fsync(sitting.log.path)  # the checkpoint says how long the log is, so the log comes first
    sitting.position = sitting.position._replace(
        step=sitting.state.step, elapsed_s=sitting.elapsed_s, events_bytes=sitting.log.path.stat().st_size
    )
    checkpoint.save(sitting.folder, sitting.prepared.classifier.network, sitting.state, sitting.position)


if __name__ == "__main__":
    sys.exit(work.main(do, stop_at_once=False))
