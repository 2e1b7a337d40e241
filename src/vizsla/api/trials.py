"""Verbs on trainings before they begin: what one would be, and with which learning rate."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vizsla import files, records, work
from vizsla.api import parents, workspace
from vizsla.errors import Conflict, DatabaseUnavailable, NotFound, TooSlow, VizslaError, WorkerDied
from vizsla.events import Event, ignore_event
from vizsla.jobs import follow, launch, queue
from vizsla.jobs.devices import capacity, need_of
from vizsla.jobs.launch import interruptions
from vizsla.jobs.spec import JobSpec, WaitedSpec
from vizsla.networks import own
from vizsla.store.rows import Job
from vizsla.store.workspace import Workspace
from vizsla.training import rates, run
from vizsla.training.rates import Rates
from vizsla.training.spec import TrainingSpec

PREVIEW_WORKER = "vizsla.training.preview"
STOP_S, DEATH_S = 5.0, 5.0
"""for which the end of a process is waited for whose time is over: when it was asked to stop, and when it was killed"""


def find_rate(
    ws: Workspace,
    dataset: str,
    spec: TrainingSpec | None = None,
    *,
    out: Path | None = None,
    job: JobSpec = WaitedSpec(),
    on_event: Callable[[Event], None] = ignore_event,
    timeout_s: float | None = None,
) -> Rates:
    """The learning rate that a network learns fastest with on a dataset: by a short training with a rising rate.

    Args:
        out: folder for `rates.json` and the chart `rates.png`; it is made if need be.
        job: how it goes through the queue.
        on_event: told everything that happens, as it happens.
        timeout_s: after which it is given up, whether it waits for its device or is at work; its process is killed
            where it does not stop within seconds.

    Raises:
        VizslaError: what would also refuse the training, or a loss that was never finite.
        TooSlow: more than `timeout_s`.
    """
    spec = parents.with_found_weights(ws, spec or TrainingSpec())
    dataset_folder = parents.finished_dataset(ws, dataset)
    own_network = own.locate(spec.net, ws.network_folders) if own.is_own(spec.net) else None
    # Its steps are taken by one process, on one of the devices that a training would have.
    need = replace(need_of(spec.device, spec.num_processes, capacity(), gpu_memory=job.gpu_memory), count=1)
    with interruptions():
        name = ws.store.free_name("rate", ws.store.exact(dataset_folder.name, "dataset").name)
        with workspace.claim(ws, "rate", name, parents=[dataset_folder.name]) as claim:
            request = run.Request(
                id=claim.entry.id,
                name=name,
                created_at=claim.entry.created_at,
                dataset_folder=dataset_folder,
                spec=spec,
                network_file=own.keep(own_network, claim.folder) if own_network else None,
            )
            files.write_json(claim.folder / work.REQUEST, request.model_dump(mode="json"))
            wanted = queue.submit(ws, claim.entry, need, job)
        try:
            _wait(ws, wanted, on_event, timeout_s)
            return _told(claim.folder, out)
        finally:
            _forget(ws, wanted)


def _wait(ws: Workspace, job: Job, on_event: Callable[[Event], None], timeout_s: float | None) -> None:
    """Wait for a job of which nothing is kept when it is stopped: that is a KeyboardInterrupt in the main thread."""
    try:
        patience_s = follow.STOP_PATIENCE_S if timeout_s is None else STOP_S
        if follow.wait(ws, job, on_event, timeout_s=timeout_s, stop_patience_s=patience_s).state == "stopped":
            raise KeyboardInterrupt
    except TooSlow:
        queue.kill(ws, job)  # where it did not stop
        with contextlib.suppress(VizslaError, KeyboardInterrupt):
            follow.wait(ws, job, ignore_event, timeout_s=DEATH_S)
        raise
    except KeyboardInterrupt:
        if threading.current_thread() is threading.main_thread():
            raise
        raise WorkerDied("It was stopped by somebody.", remedy="Ask again.") from None


def _told(folder: Path, out: Path | None) -> Rates:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for result in (rates.FOUND, rates.CHART):
            shutil.copyfile(folder / result, out / result)
    return records.read(folder / rates.FOUND, Rates, remedy="Ask for it again.")


def _forget(ws: Workspace, job: Job) -> None:
    """Nothing is kept of it. What is still at work, as after a loss of the database, goes with a later sweep."""
    with contextlib.suppress(NotFound, Conflict, DatabaseUnavailable):
        workspace.delete(ws, "rate", job.thing)


def preview(
    ws: Workspace, dataset: str, spec: TrainingSpec | None = None, *, out: Path, timeout_s: float | None = None
) -> dict[str, Any]:
    """What a training would be: steps, memory, settings, and charts of rate and pictures in the folder `out`.

    Nothing is trained, and pretrained weights are not looked for.

    Raises:
        Busy: it takes longer than `timeout_s`.
        NotFound: there is no such dataset or network.
        InvalidInput: the settings, the dataset and the network do not go together.
    """
    spec = spec or TrainingSpec()
    folder = ws.folder("dataset", ws.store.find(dataset, "dataset").id)
    net = str(own.locate(spec.net, ws.network_folders)) if own.is_own(spec.net) else spec.net
    question = {
        "dataset_folder": str(folder),
        "spec": spec.model_dump(mode="json"),
        "net": net,
        "out": str(out.absolute()),
        "cache": str(ws.root / run.ARITHMETIC),
    }
    found: dict[str, Any] = launch.ask(PREVIEW_WORKER, question, timeout_s=timeout_s)
    return found
