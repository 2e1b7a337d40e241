"""What things are made from: whether it is there, or in the making and to be waited for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from vizsla import records, work
from vizsla.api import workspace
from vizsla.errors import InvalidInput
from vizsla.jobs.devices import capacity, need_like
from vizsla.jobs.schedule import BESIDE, Need, require
from vizsla.store.rows import Entry
from vizsla.store.workspace import FINAL_FILE, Workspace
from vizsla.training import run
from vizsla.training.spec import TrainingSpec


def finished_dataset(ws: Workspace, reference: str) -> Path:
    """The folder of the dataset of this id, name or beginning of one.

    Raises:
        NotFound: there is none.
        InvalidInput: it is not finished.
    """
    found = ws.store.find(reference, "dataset")
    folder = ws.folder("dataset", found.id)
    if not (folder / FINAL_FILE["dataset"]).exists():
        raise InvalidInput(f"The dataset {found.name!r} is not finished.", remedy="Wait until it is built.")
    return folder


def with_found_weights(ws: Workspace, spec: TrainingSpec) -> TrainingSpec:
    """The settings with the whole path of their weights, or the id of the run or model that has them."""
    if spec.weights == "auto":
        return spec
    if named := run.named_weights(spec.weights):
        entry = ws.store.find(named[1], named[0])
        weights = f"{entry.kind}:{entry.id}"
        workspace.require_finished(ws, entry)
        run.origin_weights(weights, ws.root)
    else:  # the worker may be started in another folder
        weights = str(Path(spec.weights).expanduser().absolute())
    return spec.model_copy(update={"weights": weights})


class Source(NamedTuple):
    """A checkpoint of a run that something is to be made of, now or when the run has ended."""

    folder: Path
    """of the run"""
    checkpoint: str
    """its step; or, of a run in the making, what was asked for, which the worker looks for when it starts"""
    dataset: str
    """id of the dataset of the run"""
    needed: tuple[str, ...]
    """ids of the jobs that have to be done before"""
    passing: bool = False
    """the run goes on, and may replace the checkpoint by a later one"""


def checkpoint_of(ws: Workspace, entry: Entry, which: str) -> Source:
    """The checkpoint of a run that `which` names: "best", "last" or a step.

    While the run waits or trains nobody knows its best and its last checkpoint, so they are those of its end. A step
    that is there already is not waited for; it may be gone soon.

    Raises:
        NotFound: there is no such checkpoint, and there will be none.
        Conflict: the run was never begun, and nothing is to begin it.
    """
    folder = ws.folder("run", entry.id)
    job = ws.store.jobs.live_of(entry.id)
    if job is None or which in {str(checkpoint.step) for checkpoint in run.checkpoints(folder)}:
        workspace.require_finished(ws, entry)
        step = run.find_checkpoint(folder, which).step
        return Source(folder, str(step), run.open_run(folder).dataset.id, (), passing=job is not None)
    run.require_checkpoint_name(which)
    request = records.read(folder / work.REQUEST, run.Request, remedy="Start a new run.")
    return Source(folder, which, request.dataset_folder.name, (job.id,))


def need_of_passes(ws: Workspace, entry: Entry, *, gpu_memory: float | None = None) -> Need:
    """What passes through the network of a run need: a GPU like those that it is trained on, else a place beside.

    Args:
        gpu_memory: GB of a GPU, or None for as much as the training was given.
    """
    there = capacity()
    job = ws.store.jobs.newest_of(entry.id, ["run"])
    trained = run.open_run(ws.folder("run", entry.id)).devices if ws.is_finished("run", entry.id) else ()
    asked = Need.of(job.need) if job else Need(())
    need = need_like((*asked.among, *trained), there, gpu_memory=gpu_memory or asked.amount)
    if gpu_memory is None and need.amount and need.amount > max(there[device] for device in need.among):
        return need_like(need.among, there)  # the card that had so much is gone
    return need


def need_now(ws: Workspace, need: Need) -> Need:
    """What of a need is free at this moment: the cards that nobody holds or waits for, else a place beside.

    For what cannot wait, such as a checkpoint of a run that goes on and holds its card until it ends.

    Raises:
        Unavailable: the machine has no such devices.
    """
    there = capacity()
    require(need, there)
    free = dict(there)
    for job in ws.store.jobs.live():
        asked = Need.of(job.need)
        for device in job.held or asked.among:  # one that waits keeps them from those behind it
            amount = asked.amount if job.held else None
            free[device] = free.get(device, 0.0) - (there.get(device, 0.0) if amount is None else amount)
    fits = [name for name in need.among if free[name] >= (there[name] if need.amount is None else need.amount) > 0]
    return replace(need, among=tuple(fits)) if len(fits) >= need.count else BESIDE
