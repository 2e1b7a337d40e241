"""Verbs on runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vizsla import files, records, work
from vizsla.api import workspace
from vizsla.api.workspace import Workspace
from vizsla.errors import Conflict, InvalidInput
from vizsla.events import Event
from vizsla.jobs import launch
from vizsla.networks import own
from vizsla.store.queries import Entry
from vizsla.training import run
from vizsla.training.run import Progress, Run
from vizsla.training.spec import TrainingSpec

WORKER = "vizsla.training.worker"


@dataclass(frozen=True)
class RunStatus:
    """A run and how far it has come."""

    run: Run
    progress: Progress
    folder: Path


def ignore_event(event: Event) -> None:
    """Take no notice of an event."""


def start(
    ws: Workspace,
    dataset: str,
    spec: TrainingSpec | None = None,
    *,
    name: str | None = None,
    on_event: Callable[[Event], None] = ignore_event,
) -> RunStatus:
    """Train on a dataset and wait for the end; Ctrl-C stops at a checkpoint.

    Args:
        name: of the run; by default made from the dataset's and the network's.
        on_event: told everything that happens, as it happens.

    Raises:
        VizslaError: the run was refused (then nothing is left of it) or failed (then it is kept, with its reason).
    """
    spec = spec or TrainingSpec()
    parent = ws.store.find(dataset, "dataset")
    dataset_folder = ws.folder("dataset", parent.id)
    if not (dataset_folder / workspace.FINAL_FILE["dataset"]).exists():
        raise InvalidInput(f"The dataset {parent.name!r} is not finished.", remedy="Wait until it is built.")
    own_network = own.locate(spec.net, ws.network_folders) if own.is_own(spec.net) else None
    name = name or ws.store.free_name("run", f"{parent.name}-{own.title(spec.net).removesuffix(own.SUFFIX)}")
    with workspace.claim(ws, "run", name, parents=[parent.id]) as claim:
        request = run.Request(
            id=claim.entry.id,
            name=name,
            created_at=claim.entry.created_at,
            dataset_folder=dataset_folder,
            spec=spec,
            network_file=own.keep(own_network, claim.folder) if own_network else None,
        )
        files.write_json(claim.folder / work.REQUEST, request.model_dump(mode="json"))
        launch.run(WORKER, claim.folder, claim.lock, on_event)
    return get(ws, claim.entry.id)


def resume(
    ws: Workspace,
    reference: str,
    *,
    device: str | None = None,
    on_event: Callable[[Event], None] = ignore_event,
) -> RunStatus:
    """Go on with a run that was stopped, failed or lost, from its last checkpoint.

    Args:
        device: to go on on another one than the run began on: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        Conflict: the run is done, or is running.
        VizslaError: what it failed with this time.
    """
    entry = ws.store.find(reference, "run")
    folder = ws.folder("run", entry.id)
    status = get(ws, entry.id)
    with files.Lock(folder) as lock:
        # Looked at under the lock: the run may have come to its end while this process waited for it.
        if run.progress(folder).state == "done":
            raise Conflict(f"The run {entry.name!r} is done.", remedy="Start another with `vizsla train`.")
        offset = run.rewind(folder)
        request = records.read(folder / work.REQUEST, run.Request, remedy="Start a new run.")
        # The workspace may have been moved since the run began.
        dataset_folder = ws.folder("dataset", status.run.dataset.id)
        request = request.model_copy(update={"dataset_folder": dataset_folder, "device": device})
        files.write_json(folder / work.REQUEST, request.model_dump(mode="json"))
        launch.run(WORKER, folder, lock, on_event, offset=offset)
    return get(ws, entry.id)


def get(ws: Workspace, reference: str) -> RunStatus:
    """The run of this id, name or beginning of one, and how far it has come."""
    return _status(ws.folder("run", ws.store.find(reference, "run").id))


def list_all(ws: Workspace) -> list[RunStatus]:
    """All runs, oldest first."""
    workspace.sweep(ws)
    folders = (ws.folder("run", entry.id) for entry in ws.store.all("run"))
    return [_status(folder) for folder in folders if (folder / workspace.FINAL_FILE["run"]).exists()]


def epochs(ws: Workspace, reference: str) -> list[Event]:
    """What each epoch of a run came to."""
    return run.epochs(ws.folder("run", ws.store.find(reference, "run").id))


def stop(ws: Workspace, reference: str) -> RunStatus:
    """Ask a running run to stop at a checkpoint; returns at once.

    Raises:
        Conflict: it is not running.
    """
    status = get(ws, reference)
    if status.progress.worker is None:
        raise Conflict(f"The run {status.run.name!r} is not running: it is {status.progress.state}.")
    launch.stop(status.progress.worker)
    return status


def delete(ws: Workspace, reference: str) -> Entry:
    """Delete a run with its checkpoints; refused while models or evaluations were made from it."""
    return workspace.delete(ws, "run", reference)


def _status(folder: Path) -> RunStatus:
    return RunStatus(run.open_run(folder), run.progress(folder), folder)
