"""One sitting of a run, from its last checkpoint or the beginning to its end or a stop.

Turns the loop's events into lines, checkpoints and a clean stop. Where several processes train together, each has its
sitting, and only that of rank 0 writes.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from vizsla import files, work
from vizsla.events import EventLog
from vizsla.networks import catalogue, known
from vizsla.training import checkpoint, setup
from vizsla.training.arithmetic import layout, scaler
from vizsla.training.average import Average
from vizsla.training.boards import Boards
from vizsla.training.checkpoint import Best, Position
from vizsla.training.distributed import Group
from vizsla.training.inputs import Features, Inputs, Pictures, Stored, compute_features
from vizsla.training.loop import EpochEnded, Halved, State, Stepped, Task, Validated, Validation, is_due, train
from vizsla.training.objective import Objective
from vizsla.training.optimizers import make_optimizer
from vizsla.training.run import ARITHMETIC, MEAN_PICTURE, Request, find_checkpoint, open_run
from vizsla.training.usage import Usage

PROGRESS_EVERY_S = 0.5


@dataclass
class Sitting:
    """What a sitting holds on to."""

    folder: Path
    log: EventLog | None
    """None in the processes that do not write"""
    stop: work.Stop
    prepared: setup.Prepared
    state: State
    position: Position
    group: Group = field(default_factory=Group)
    boards: Boards | None = None

    def __post_init__(self) -> None:
        self.began = time.monotonic()
        self.elapsed_before = self.position.elapsed_s
        self.first_step = self.position.step
        self.stepping = (self.elapsed_before, self.first_step)
        """seconds and step when the first step began, without what was prepared before"""
        self.usage = Usage(self.prepared.device)

    @property
    def elapsed_s(self) -> float:
        """Seconds of training in this sitting and those before it."""
        return self.elapsed_before + time.monotonic() - self.began

    def write(self, event: str, **fields: Any) -> None:
        """Write an event, if this is the process that does."""
        if self.log is not None:
            line = self.log.write(event, **fields)
            if self.boards is not None:
                self.boards.event(line)


def train_run(folder: Path, log: EventLog, stop: work.Stop, request: Request) -> str:
    """Train the run in `folder` in this process alone; returns "done" or "stopped"."""
    begun = (folder / "run.json").exists()
    sitting = resume(folder, log, stop, request) if begun else begin(folder, log, stop, request)
    return attend(sitting)


def begin(folder: Path, log: EventLog, stop: work.Stop, request: Request) -> Sitting:
    """The sitting of a new run, which is accepted with this; everything that can be refused is refused first."""
    cache = folder.parents[1] / ARITHMETIC
    prepared = setup.prepare(request, log.notice, cache=cache, on_progress=log.progress)
    known.keep(cache.parent, catalogue.accepted())
    run = prepared.run
    # Of a beginning that was killed before it was accepted.
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    if run.input.mean_picture:
        keep_mean_picture(prepared, request.dataset_folder, folder)
    state = place(prepared)
    files.write_json(folder / "environment.json", setup.environment(prepared.device, request.spec.seed))
    for text in run.spec.unused(num_val=run.num_val, channels=run.preprocess.channels):
        log.notice(text)
    log.write("started", total_steps=run.total_steps, epochs=run.spec.epochs)
    files.fsync(log.path)
    position = Position(step=0, elapsed_s=0.0)
    # With a checkpoint of step 0, going on never needs the pretrained weights again. run.json comes last: it says
    # that the run was accepted and can be resumed.
    checkpoint.save(folder, prepared.classifier.network, state, position, keep=set())
    files.write_json(folder / "run.json", run.model_dump(mode="json"))
    return Sitting(folder, log, stop, prepared, state, position)


def resume(folder: Path, log: EventLog | None, stop: work.Stop, request: Request, rank: int = 0) -> Sitting:
    """The sitting of a run that was begun, from its last checkpoint."""
    prepared = setup.again(open_run(folder), folder, request, rank=rank)
    state = place(prepared)
    if log is not None:
        checkpoint.tidy(folder)
        if prepared.device.type != prepared.run.devices[0].partition(":")[0]:
            log.notice(f"Goes on on {prepared.device}, with what was chosen for {prepared.run.devices[0]}.")
    position = checkpoint.load(find_checkpoint(folder, "last").folder, prepared.classifier.network, state)
    if request.micro_batch:
        state.micro_batch = request.micro_batch
    if 0 < prepared.run.spec.early_stop <= position.stale:  # it stopped early, and is asked to go on nevertheless
        position = position._replace(stale=0)
    return Sitting(folder, log, stop, prepared, state, position)


def attend(sitting: Sitting) -> str:
    """Train to the end, or until asked to stop; returns "done" or "stopped"."""
    if sitting.log is not None:
        run = sitting.prepared.run
        sitting.boards = Boards(
            sitting.folder,
            run,
            notice=sitting.log.notice,
            resumed_at=sitting.first_step or None,
            mlflow_uri=os.environ.get("MLFLOW_TRACKING_URI"),
        )
    outcome = "failed"
    try:
        outcome = _train(sitting, task_of(sitting))
    finally:
        if sitting.boards is not None:
            sitting.boards.close(outcome)
    return outcome


def keep_mean_picture(prepared: setup.Prepared, dataset_folder: Path, folder: Path) -> None:
    """Keep the middle of the mean of the training pictures with the run, float32 (C, h, w) in 0..1, and subtract it."""
    mean = np.load(dataset_folder / "mean.npy", allow_pickle=False)
    height, width = prepared.run.input.height, prepared.run.input.width
    top, left = (mean.shape[0] - height) // 2, (mean.shape[1] - width) // 2
    middle = mean[top : top + height, left : left + width].transpose(2, 0, 1) / 255
    with files.atomic(folder / MEAN_PICTURE) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(middle, dtype=np.float32))
    prepared.classifier.mean = setup.mean_picture(folder)


def place(prepared: setup.Prepared) -> State:
    """Put the classifier on its device, freeze what is never trained, and make what the training needs beside it."""
    run, device = prepared.run, prepared.device
    prepared.classifier.to(device)
    prepared.classifier.to(memory_format=layout(run.arithmetic))
    module = _module(prepared)
    if run.spec.tune == "head":
        prepared.classifier.network.requires_grad_(False)
        module.requires_grad_(True)
    if run.arithmetic.compiled:
        module.compile()
    return State(
        make_optimizer(run.spec, module, fused=run.arithmetic.fused),
        scaler(run.arithmetic, device),
        Average(module, run.spec.ema) if run.spec.ema else None,
    )


def _module(prepared: setup.Prepared) -> nn.Module:
    """What the optimiser trains: the network, or its head alone."""
    network = prepared.classifier.network
    return network if prepared.run.spec.tune != "head" else catalogue.head(network)


def task_of(sitting: Sitting) -> Task:
    """What the loop of a sitting trains."""
    prepared = sitting.prepared
    spec, arithmetic = prepared.run.spec, prepared.run.arithmetic
    module = _module(prepared)

    def inputs(split: Stored, name: str) -> Inputs:
        if spec.tune != "head":
            return Pictures(split, prepared.classifier, spec, prepared.device, arithmetic)
        mirror_seed = spec.seed if spec.flip and name == "train" else None
        return Features(split.labels, prepared.device, partial(_features, sitting, split, name), mirror_seed)

    return Task(
        spec=spec,
        plan=prepared.plan,
        module=module,
        head=catalogue.head(prepared.classifier.network) if spec.freeze_epochs else None,
        train=inputs(prepared.train, "train"),
        val=inputs(prepared.val, "val") if prepared.val else None,
        objective=Objective(spec, prepared.train.labels, len(prepared.run.labels)).to(prepared.device),
        device=prepared.device,
        arithmetic=arithmetic,
        group=sitting.group,
    )


def _features(sitting: Sitting, split: Stored, name: str, mirrored: Tensor) -> Tensor:
    prepared, began = sitting.prepared, time.monotonic()
    table = compute_features(
        split,
        prepared.classifier,
        mirrored=mirrored,
        device=prepared.device,
        arithmetic=prepared.run.arithmetic,
        group=sitting.group,
        scratch=sitting.folder,
        progress=_reporter(sitting, f"features of {name}"),
    )
    since_s, step = sitting.stepping
    sitting.stepping = (since_s + time.monotonic() - began, step)  # they do not come again with the steps to come
    return table


class _reporter:  # noqa: N801 - used as the function that it is
    """Writes `progress` events, at most two a second; leaves the work when asked to stop."""

    def __init__(self, sitting: Sitting, stage: str) -> None:
        self._sitting = sitting
        self._stage = stage
        self._last = 0.0

    def __call__(self, done: int, total: int) -> None:
        self._sitting.stop.check()
        if time.monotonic() - self._last > PROGRESS_EVERY_S or done == total:
            self._sitting.write("progress", stage=self._stage, done=done, total=total)
            self._last = time.monotonic()


def _train(sitting: Sitting, task: Task) -> str:
    """Consume the loop: log, checkpoint, stop. Returns the final event."""
    saved_at = time.monotonic()
    stopping = False
    sitting.stepping = (sitting.elapsed_s, sitting.state.step)
    loop = train(task, sitting.state)
    try:
        for event in loop:
            if isinstance(event, Halved):
                _log_halved(sitting, event)
                continue
            validation = None if isinstance(event, Stepped) else event.validation
            if isinstance(event, Stepped):
                _log_step(sitting, event)
                stopping = event.synced and sitting.group.any(sitting.stop.asked)
                # What else happens at this step is still to come; it is part of the step.
                if _more_to_come(task, event.step):
                    continue
            else:
                _note(sitting, task, validation)
                _log_validation(sitting, event)
            due = is_due(task.spec.checkpoint_every, event.step, task.plan)
            due |= event.step in _kept_steps(sitting)
            due |= any(best.step == event.step for best in sitting.position.best)
            late = time.monotonic() - saved_at > task.spec.checkpoint_every_s
            late &= not isinstance(event, Stepped) or event.synced
            stale = bool(task.spec.early_stop) and sitting.position.stale >= task.spec.early_stop
            if due or late or stopping or stale:
                _save(sitting)
                saved_at = time.monotonic()
            if stopping:
                return "stopped"
            if stale:
                sitting.write(
                    "notice", text=f"Stopped early: the last {task.spec.early_stop} validations were no better."
                )
                break
    except work.Stopped:  # while features were computed, before the first step of an epoch
        if sitting.position.step < sitting.state.step:
            _save(sitting)
        raise
    finally:
        loop.close()
    return "done"


def _more_to_come(task: Task, step: int) -> bool:
    return step % task.plan.steps_per_epoch == 0 or (task.val is not None and task.validates(step))


def _note(sitting: Sitting, task: Task, validation: Validation | None) -> None:
    """Take a validation into the position. For unequal classes the best is the best of the balanced ones."""
    if validation is None:
        return
    plan, step = task.plan, sitting.state.step
    balanced = task.spec.imbalance != "none"
    score = validation.balanced_accuracy if balanced else validation.accuracy.value
    found = Best(step, step / plan.steps_per_epoch, score, validation.loss, validation.accuracy)
    sitting.position = sitting.position.validated(found, task.spec.keep_best)


def _log_halved(sitting: Sitting, event: Halved) -> None:
    text = f"Out of memory at step {event.step + 1}: from here on {event.micro_batch} pictures at a time go through "
    sitting.write("notice", text=text + "the network, and their gradients are added up to the same step.")


def _log_step(sitting: Sitting, event: Stepped) -> None:
    if event.loss is None or event.speed is None or sitting.log is None:
        return
    elapsed_s = sitting.elapsed_s
    since_s, step = sitting.stepping
    left = (elapsed_s - since_s) / (event.step - step) * (sitting.prepared.run.total_steps - event.step)
    sitting.write(
        "step",
        step=event.step,
        epoch=event.epoch,
        loss=event.loss,
        learning_rate=event.learning_rate,
        pictures_per_s=round(event.speed.pictures_per_s, 1),
        data_wait=round(event.speed.data_wait, 4),
        elapsed_s=round(elapsed_s, 3),
        eta_s=round(left, 1),
        **sitting.usage.read(),
    )


def _log_validation(sitting: Sitting, event: Validated | EpochEnded) -> None:
    val, best = event.validation, sitting.position.best
    found = {
        "val_loss": val.loss if val else None,
        "val_accuracy": val.accuracy._asdict() if val else None,
        "val_balanced_accuracy": val.balanced_accuracy if val else None,
        "best_epoch": round(best[0].epoch, 4) if best else None,
        "best_step": best[0].step if best else None,
        "best_accuracy": best[0].accuracy._asdict() if best else None,
        "elapsed_s": round(sitting.elapsed_s, 3),
    }
    if isinstance(event, Validated):
        sitting.write("validation", step=event.step, epoch=round(event.epoch, 4), **found)
        return
    sitting.write(
        "epoch",
        step=event.step,
        epoch=event.epoch,
        train_loss=event.train_loss,
        train_accuracy=event.train_accuracy,
        num_train=len(sitting.prepared.train.labels),
        num_val=sitting.prepared.run.num_val,
        **found,
    )


def _save(sitting: Sitting) -> None:
    sitting.state.check_finite()
    sitting.position = sitting.position._replace(step=sitting.state.step, elapsed_s=sitting.elapsed_s)
    if sitting.log is None:
        return
    files.fsync(sitting.log.path)  # what led to a checkpoint lies on the disk before it does
    network, keep = sitting.prepared.classifier.network, set(_kept_steps(sitting))
    checkpoint.save(sitting.folder, network, sitting.state, sitting.position, keep=keep)


def _kept_steps(sitting: Sitting) -> range:
    """The steps whose checkpoints are kept because it was asked for."""
    run = sitting.prepared.run
    every = run.spec.keep_every * run.steps_per_epoch
    return range(every, run.total_steps + 1, every) if every else range(0)
