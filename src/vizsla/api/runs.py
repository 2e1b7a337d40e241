"""Verbs on runs."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vizsla import files, records, work
from vizsla.api import workspace
from vizsla.api.workspace import Workspace
from vizsla.errors import Conflict, InvalidInput, VizslaError
from vizsla.events import Event, now
from vizsla.jobs import launch
from vizsla.networks import own
from vizsla.store.queries import Entry
from vizsla.training import rates, run
from vizsla.training.rates import Rates
from vizsla.training.run import Progress, Run
from vizsla.training.spec import TrainingSpec

WORKER = "vizsla.training.worker"
FINDER = "vizsla.training.finder"
PREVIEW_WORKER = "vizsla.training.preview"


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
    own_network = own.locate(spec.net, ws.network_folders) if own.is_own(spec.net) else None
    return _start(ws, dataset, spec, name=name, own_network=own_network, on_event=on_event)


def _start(
    ws: Workspace,
    dataset: str,
    spec: TrainingSpec,
    *,
    name: str | None,
    own_network: Path | None,
    on_event: Callable[[Event], None],
) -> RunStatus:
    parent = ws.store.find(dataset, "dataset")
    dataset_folder = _finished_dataset(ws, parent.id)
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
        with _log_kept(ws, claim.folder):
            launch.run(WORKER, claim.folder, claim.lock, on_event)
        if not (claim.folder / workspace.FINAL_FILE["run"]).exists():
            raise KeyboardInterrupt  # stopped before it was accepted: nothing is left of it
    return get(ws, claim.entry.id)


def find_rate(
    ws: Workspace,
    dataset: str,
    spec: TrainingSpec | None = None,
    *,
    out: Path | None = None,
    on_event: Callable[[Event], None] = ignore_event,
) -> Rates:
    """The learning rate that a network learns fastest with on a dataset: by a short training with a rising rate.

    Args:
        out: folder for `rates.json` and the chart `rates.png`; it is made if need be.
        on_event: told everything that happens, as it happens.

    Raises:
        VizslaError: what would also refuse the training, or a loss that was never finite.
    """
    spec = spec or TrainingSpec()
    dataset_folder = _finished_dataset(ws, dataset)
    own_network = own.locate(spec.net, ws.network_folders) if own.is_own(spec.net) else None
    (ws.root / "cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ws.root / "cache", prefix="rates-") as name:
        folder = Path(name)
        request = run.Request(
            id="rates",
            name="rates",
            created_at=now(),
            dataset_folder=dataset_folder,
            spec=spec,
            network_file=own.keep(own_network, folder) if own_network else None,
        )
        files.write_json(folder / work.REQUEST, request.model_dump(mode="json"))
        with files.Lock(folder) as lock, _log_kept(ws, folder):
            launch.run_whole(FINDER, folder, lock, on_event)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            for result in (rates.FOUND, rates.CHART):
                shutil.copyfile(folder / result, out / result)
        return records.read(folder / rates.FOUND, Rates, remedy="Ask for it again.")


@contextlib.contextmanager
def _log_kept(ws: Workspace, folder: Path) -> Iterator[None]:
    """Of a failure whose folder goes, since no run was accepted there, keep the log that its message names."""
    try:
        yield
    except VizslaError as error:
        named = error.where == str(folder / work.LOG)
        if named and not (folder / workspace.FINAL_FILE["run"]).exists():
            kept = ws.root / "cache" / f"{folder.name}-{work.LOG}"
            kept.parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / work.LOG, kept)
            error.where = str(kept)
        raise


def preview(ws: Workspace, dataset: str, spec: TrainingSpec | None = None, *, out: Path) -> dict[str, Any]:
    """What a training would be: steps, memory, settings, and charts of rate and pictures in the folder `out`.

    Nothing is trained, and pretrained weights are not looked for.

    Raises:
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
    found: dict[str, Any] = launch.ask(PREVIEW_WORKER, question)
    return found


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
    _check_device(device)
    entry = ws.store.find(reference, "run")
    folder = ws.folder("run", entry.id)
    with files.Lock(folder) as lock:
        # Looked at under the lock: the run may have come to its end while this process waited for it.
        if run.progress(folder).state == "done":
            remedy = f"Train it for longer with `vizsla run extend {shlex.quote(entry.name)} --epochs N`."
            raise Conflict(f"The run {entry.name!r} is done.", remedy=remedy)
        return _go_on(ws, folder, lock, device, on_event)


def extend(
    ws: Workspace,
    reference: str,
    epochs: int,
    *,
    device: str | None = None,
    on_event: Callable[[Event], None] = ignore_event,
) -> RunStatus:
    """Train a run that is done, or ended in another way, for `epochs` more, from its last checkpoint.

    The learning rate is a function of how much of the whole training is done, so it goes back to where it is on the
    way to the new end.

    Args:
        device: as for `resume`.

    Raises:
        InvalidInput: fewer than one epoch more.
        Conflict: the run is running.
        VizslaError: what it failed with.
    """
    if epochs < 1:
        raise InvalidInput(f"A run is extended by one epoch or more, not by {epochs}.", where="epochs")
    _check_device(device)
    folder = ws.folder("run", ws.store.find(reference, "run").id)
    with files.Lock(folder) as lock:
        longer = run.extend(folder, epochs)
        try:
            return _go_on(ws, folder, lock, device, on_event)
        except VizslaError as error:
            again = (
                f"The run is now planned for {longer.spec.epochs:,} epochs: `vizsla run resume {longer.id}` goes on."
            )
            error.remedy = f"{error.remedy}\n{again}".strip()
            raise


def _check_device(device: str | None) -> None:
    """Raise `InvalidInput` unless this is how devices are named; before anything of the run is changed."""
    try:
        TrainingSpec(device=device or "auto")
    except ValidationError:
        raise InvalidInput(
            f"{device!r} is not a device.", where="device", remedy="Use auto, cpu, cuda, cuda:N or cuda:N,M."
        ) from None


def _go_on(
    ws: Workspace, folder: Path, lock: files.Lock, device: str | None, on_event: Callable[[Event], None]
) -> RunStatus:
    status = _status(folder)
    offset = run.rewind(folder)
    request = records.read(folder / work.REQUEST, run.Request, remedy="Start a new run.")
    # The workspace may have been moved since the run began.
    paths = {"dataset_folder": ws.folder("dataset", status.run.dataset.id)}
    if request.network_file:
        paths["network_file"] = folder / own.COPY
    request = request.model_copy(update={**paths, "device": device})
    files.write_json(folder / work.REQUEST, request.model_dump(mode="json"))
    launch.run(WORKER, folder, lock, on_event, offset=offset)
    return _status(folder)


def clone(
    ws: Workspace,
    reference: str,
    spec: TrainingSpec | None = None,
    *,
    name: str | None = None,
    on_event: Callable[[Event], None] = ignore_event,
) -> RunStatus:
    """Train anew on the dataset of a run and wait for the end, as `start` does.

    A network of the user's own is the run's copy of it, whatever its file holds now.

    Args:
        spec: the settings; by default those that the run was asked for.
    """
    status = get(ws, reference)
    first = status.run
    spec = spec or first.asked
    if spec.net != first.asked.net or first.network_sha256 is None:
        return start(ws, first.dataset.id, spec, name=name, on_event=on_event)
    copy = Path(first.net(status.folder))
    return _start(ws, first.dataset.id, spec, name=name, own_network=copy, on_event=on_event)


def follow(ws: Workspace, reference: str, on_event: Callable[[Event], None]) -> RunStatus:
    """Tell `on_event` everything that happened in a run and happens until it ends; the run is left alone."""
    folder = ws.folder("run", ws.store.find(reference, "run").id)
    launch.follow(folder, on_event)
    return _status(folder)


def get(ws: Workspace, reference: str) -> RunStatus:
    """The run of this id, name or beginning of one, and how far it has come."""
    return _status(ws.folder("run", ws.store.find(reference, "run").id))


def list_all(ws: Workspace) -> list[RunStatus]:
    """All runs, oldest first."""
    return workspace.readable(ws, "run", _status)


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


def rename(ws: Workspace, reference: str, name: str) -> RunStatus:
    """Give a run another name. What was made from it keeps the name that it knows.

    Raises:
        InvalidInput: the name cannot be used.
        Conflict: the name is taken, or the run is running.
    """
    entry = ws.store.find(reference, "run")
    folder = ws.folder("run", entry.id)
    with files.Lock(folder):
        renamed = run.open_run(folder).model_copy(update={"name": name})
        ws.store.rename(entry.id, name)
        try:
            files.write_json(folder / "run.json", renamed.model_dump(mode="json"))
        except VizslaError:
            ws.store.rename(entry.id, entry.name)
            raise
    return _status(folder)


def delete(ws: Workspace, reference: str) -> Entry:
    """Delete a run with its checkpoints; refused while models or evaluations were made from it."""
    return workspace.delete(ws, "run", reference)


def _finished_dataset(ws: Workspace, reference: str) -> Path:
    found = ws.store.find(reference, "dataset")
    folder = ws.folder("dataset", found.id)
    if not (folder / workspace.FINAL_FILE["dataset"]).exists():
        raise InvalidInput(f"The dataset {found.name!r} is not finished.", remedy="Wait until it is built.")
    return folder


def _status(folder: Path) -> RunStatus:
    return RunStatus(run.open_run(folder), run.progress(folder), folder)
