"""Verbs on runs."""

from __future__ import annotations

import contextlib
import shlex
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from vizsla import files, records, work
from vizsla.api import parents, workspace
from vizsla.api.served import served
from vizsla.client.server import Server
from vizsla.errors import Conflict, InvalidInput
from vizsla.events import Event, Part, ignore_event, part
from vizsla.jobs import follow as following
from vizsla.jobs import launch, queue
from vizsla.jobs.devices import capacity, need_of
from vizsla.jobs.launch import interruptions
from vizsla.jobs.schedule import Need
from vizsla.jobs.spec import JobSpec
from vizsla.jobs.waiting import OnInterrupt, to_stop
from vizsla.networks import known, own
from vizsla.store.rows import Entry, Job
from vizsla.store.workspace import Workspace
from vizsla.training import run
from vizsla.training.run import Checkpoint, RunStatus
from vizsla.training.spec import TrainingSpec

PART_BYTES = 1_000_000


def start(
    ws: Workspace | Server,
    dataset: str,
    spec: TrainingSpec | None = None,
    *,
    name: str | None = None,
    job: JobSpec = JobSpec(),
    on_event: Callable[[Event], None] = ignore_event,
) -> RunStatus:
    """Train on a dataset and wait for the end; Ctrl-C stops at a checkpoint.

    Args:
        name: of the run; by default made from the dataset's and the network's.
        job: how it goes through the queue.
        on_event: told everything that happens, as it happens.

    Raises:
        VizslaError: the run was refused (then nothing is left of it) or failed (then it is kept, with its reason).
    """
    with interruptions():
        return finish(ws, submit(ws, dataset, spec, name=name, job=job), on_event)


@served
def submit(
    ws: Workspace,
    dataset: str,
    spec: TrainingSpec | None = None,
    *,
    name: str | None = None,
    job: JobSpec = JobSpec(),
) -> Job:
    """Put a training into the queue, as `start` does, and return at once. Its dataset may still be in the making."""
    return submit_all(ws, dataset, [spec or TrainingSpec()], names=[name], job=job)[0]


def submit_all(
    ws: Workspace, dataset: str, specs: Sequence[TrainingSpec], *, names: Sequence[str | None], job: JobSpec
) -> list[Job]:
    """Put several trainings of one network into the queue, or none of them when one is refused.

    Args:
        names: of the runs; None: made from the dataset's and the network's.
    """
    net = specs[0].net
    own_network = own.locate(net, ws.network_folders) if own.is_own(net) else None
    if own_network is None:
        known.refuse_unknown((ws.root / run.ARITHMETIC).parent, net)
    return _submit(ws, dataset, specs, names=names, own_network=own_network, job=job)


def _submit(
    ws: Workspace,
    dataset: str,
    specs: Sequence[TrainingSpec],
    *,
    names: Sequence[str | None],
    own_network: Path | None,
    job: JobSpec,
) -> list[Job]:
    parent = ws.store.find(dataset, "dataset")
    building = ws.store.jobs.live_of(parent.id)
    dataset_folder = ws.folder("dataset", parent.id) if building else parents.finished_dataset(ws, parent.id)
    need = need_of(specs[0].device, specs[0].num_processes, capacity(), gpu_memory=job.gpu_memory)
    stem = f"{parent.name}-{own.title(specs[0].net).removesuffix(own.SUFFIX)}"
    workspace.sweep(ws)  # once, and not for each of the runs
    with contextlib.ExitStack() as claims:
        entries = []
        for asked, name in zip(specs, names, strict=True):
            called = name or ws.store.free_name("run", stem)
            spec = parents.with_found_weights(ws, asked)
            origin = run.named_weights(spec.weights)
            # What the weights come from is not deleted before they are read.
            made_from = [parent.id, origin[1]] if origin else [parent.id]
            claim = claims.enter_context(workspace.claim(ws, "run", called, made_from, swept=True))
            request = run.Request(
                id=claim.entry.id,
                name=called,
                created_at=claim.entry.created_at,
                dataset_folder=dataset_folder,
                spec=spec,
                network_file=own.keep(own_network, claim.folder) if own_network else None,
            )
            files.write_json(claim.folder / work.REQUEST, request.model_dump(mode="json"))
            entries.append(claim.entry)
        return queue.submit_all(ws, entries, need, job, needed=[building.id] if building else [])


@served
def finish(
    ws: Workspace,
    job: Job,
    on_event: Callable[[Event], None] = ignore_event,
    on_interrupt: OnInterrupt = to_stop,
) -> RunStatus:
    """Wait for the end of a training that was put into the queue.

    Args:
        on_event: told everything that happens from now on, as it happens.
        on_interrupt: what the first Ctrl-C means.

    Raises:
        VizslaError: as for `start`.
        Left: it was interrupted, and goes on.
    """
    new = job.state == "queued" or ws.is_finished("run", job.thing)
    offset = _events_size(ws, job) if new else 0
    following.wait(ws, job, on_event, offset=offset, on_interrupt=on_interrupt)
    return get(ws, job.thing)


def _events_size(ws: Workspace, job: Job) -> int:
    """Where the events of a run that is to go on will go on: what came before has been told."""
    path = ws.folder(job.kind, job.thing) / work.EVENTS
    return path.stat().st_size if path.exists() else 0


def resume(
    ws: Workspace | Server,
    reference: str,
    *,
    device: str | None = None,
    job: JobSpec = JobSpec(),
    on_event: Callable[[Event], None] = ignore_event,
) -> RunStatus:
    """Go on with a run that was stopped, failed or lost, from its last checkpoint.

    Args:
        device: to go on on another one than the run began on: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        Conflict: the run is done, or is running.
        VizslaError: what it failed with this time.
    """
    with interruptions():
        return finish(ws, submit_resume(ws, reference, device=device, job=job), on_event)


@served
def submit_resume(ws: Workspace, reference: str, *, device: str | None = None, job: JobSpec = JobSpec()) -> Job:
    """As `resume`, but returns at once. Where it is about to go on already, that is its job."""
    _check_device(device)
    entry = workspace.to_change(ws, "run", reference)
    queue.turn(ws)
    waiting = ws.store.jobs.live_of(entry.id)
    if waiting and waiting.state in ("queued", "starting") and device is None:
        return waiting
    folder = ws.folder("run", entry.id)
    with files.Lock(folder):
        # Looked at under the lock: the run may have come to its end while this process waited for it.
        if run.progress(folder).state == "done":
            remedy = f"Train it for longer with `vizsla run extend {shlex.quote(entry.name)} --epochs N`."
            raise Conflict(f"The run {entry.name!r} is done.", remedy=remedy)
        return _submit_again(ws, entry, device, _need_again(ws, entry, device, job), job)


def extend(
    ws: Workspace | Server,
    reference: str,
    epochs: int,
    *,
    device: str | None = None,
    job: JobSpec = JobSpec(),
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
    with interruptions():
        return finish(ws, submit_extend(ws, reference, epochs, device=device, job=job), on_event)


@served
def submit_extend(
    ws: Workspace, reference: str, epochs: int, *, device: str | None = None, job: JobSpec = JobSpec()
) -> Job:
    """As `extend`, but returns at once."""
    if epochs < 1:
        raise InvalidInput(f"A run is extended by one epoch or more, not by {epochs}.", where="epochs")
    _check_device(device)
    entry = workspace.to_change(ws, "run", reference)
    queue.turn(ws)
    folder = ws.folder("run", entry.id)
    with files.Lock(folder):
        if waiting := ws.store.jobs.live_of(entry.id):
            raise Conflict(f"The run {entry.name!r} is {waiting.state} already.", remedy="Wait until it has ended.")
        need = _need_again(ws, entry, device, job)
        run.extend(folder, epochs)
        return _submit_again(ws, entry, device, need, job)


def _check_device(device: str | None) -> None:
    """Raise `InvalidInput` unless this is how devices are named; before anything of the run is changed."""
    try:
        TrainingSpec(device=device or "auto")
    except ValidationError:
        raise InvalidInput(
            f"{device!r} is not a device.", where="device", remedy="Use auto, cpu, cuda, cuda:N or cuda:N,M."
        ) from None


def _need_again(ws: Workspace, entry: Entry, device: str | None, job: JobSpec) -> Need:
    """What a run that goes on needs: what is asked for, or as it began, on any cards if none were named.

    Raises:
        Unavailable: the machine has no such devices.
        DiskFull: there is hardly any room left.
    """
    accepted = run.open_run(ws.folder("run", entry.id))
    asked, before = accepted.asked.device, accepted.devices
    processes = accepted.spec.num_processes if device in (None, "auto", "cuda") else 1
    if device is None:
        device = asked if ":" in asked else before[0].partition(":")[0]
    need = need_of(device, processes, capacity(), gpu_memory=job.gpu_memory)
    queue.require_possible(ws, need)
    return need


def _submit_again(ws: Workspace, entry: Entry, device: str | None, need: Need, job: JobSpec) -> Job:
    """Put a run that goes on into the queue."""
    path = ws.folder("run", entry.id) / work.REQUEST
    request = records.read(path, run.Request, remedy="Start a new run.")
    files.write_json(path, request.model_copy(update={"device": device}).model_dump(mode="json"))
    return queue.submit(ws, entry, need, job)


def clone(
    ws: Workspace | Server,
    reference: str,
    spec: TrainingSpec | None = None,
    *,
    name: str | None = None,
    job: JobSpec = JobSpec(),
    on_event: Callable[[Event], None] = ignore_event,
) -> RunStatus:
    """Train anew on the dataset of a run and wait for the end, as `start` does.

    A network of the user's own is the run's copy of it, whatever its file holds now.

    Args:
        spec: the settings; by default those that the run was asked for.
    """
    with interruptions():
        return finish(ws, submit_clone(ws, reference, spec, name=name, job=job), on_event)


@served
def submit_clone(
    ws: Workspace,
    reference: str,
    spec: TrainingSpec | None = None,
    *,
    name: str | None = None,
    job: JobSpec = JobSpec(),
) -> Job:
    """As `clone`, but returns at once."""
    status = get(ws, reference)
    first = status.run
    spec = spec or first.asked
    if spec.net != first.asked.net or first.network_sha256 is None:
        return submit(ws, first.dataset.id, spec, name=name, job=job)
    copy = Path(first.net(status.folder))
    return _submit(ws, first.dataset.id, [spec], names=[name], own_network=copy, job=job)[0]


@served
def follow(ws: Workspace, reference: str, on_event: Callable[[Event], None]) -> RunStatus:
    """Tell `on_event` everything that happened in a run and happens until it ends; the run is left alone."""
    entry = ws.store.find(reference, "run")
    job = ws.store.jobs.live_of(entry.id)
    if job is None:
        launch.follow(ws.folder("run", entry.id), on_event)
    else:
        following.watch(ws, job, on_event)
    return get(ws, entry.id)


@served
def get(ws: Workspace, reference: str) -> RunStatus:
    """The run of this id, name or beginning of one, and how far it has come.

    Raises:
        NotFound: there is none.
        Conflict: it is in the queue, and has not begun.
    """
    entry = ws.store.find(reference, "run")
    workspace.require_finished(ws, entry)
    return run.status(ws.folder("run", entry.id))


@served
def list_all(ws: Workspace, *, limit: int | None = None, tags: Sequence[str] = ()) -> list[RunStatus]:
    """All runs, or the newest `limit`, oldest first; with `tags` only those with all these."""
    return workspace.readable(ws, "run", run.status, limit, tags=tags)


@served
def epochs(ws: Workspace, reference: str) -> list[Event]:
    """What each epoch of a run came to."""
    return run.epochs(ws.folder("run", ws.store.find(reference, "run").id))


def checkpoints(ws: Workspace, reference: str) -> list[Checkpoint]:
    """The checkpoints of a run that are kept, oldest first."""
    return run.checkpoints(ws.folder("run", ws.store.find(reference, "run").id))


def weights(ws: Workspace, reference: str, checkpoint: str = "best") -> Path:
    """Where the weights of a run's checkpoint lie: safetensors, with the names of the network's parameters.

    Args:
        checkpoint: "best", "last" or a step.

    Raises:
        NotFound: the run has no such checkpoint.
    """
    return run.find_checkpoint(ws.folder("run", ws.store.find(reference, "run").id), checkpoint).weights


@served
def events(ws: Workspace, reference: str, after: int = 0) -> Part:
    """What happened in a run, also what was undone later, and the place to go on from: about a megabyte at a time.

    There is always a `next`; at the end of the events, what happens later is found from there.

    Args:
        after: the `next` of the part before.

    Raises:
        InvalidInput: `after` is no place.
    """
    return part(ws.folder("run", ws.store.find(reference, "run").id) / work.EVENTS, after, at_least=PART_BYTES)


@served
def stop(ws: Workspace, reference: str) -> Entry:
    """Ask a running run to stop at a checkpoint, or take a queued one out of the queue; returns at once.

    Raises:
        Conflict: it is not running.
    """
    entry = workspace.to_change(ws, "run", reference)
    job = ws.store.jobs.live_of(entry.id)
    if job is not None:
        queue.stop(ws, job)
        return entry
    status = get(ws, entry.id)
    if status.progress.worker is None:
        raise Conflict(f"The run {entry.name!r} is not running: it is {status.progress.state}.")
    launch.send(status.progress.worker, signal.SIGTERM)  # its job is not known, as in an older copy of the database
    return entry


@served
def rename(ws: Workspace, reference: str, name: str) -> RunStatus:
    """Give a run another name. What was made from it keeps the name that it knows.

    Raises:
        InvalidInput: the name cannot be used.
        Conflict: the name is taken, or the run is running.
    """
    return get(ws, workspace.rename(ws, "run", reference, name).id)


@served
def delete(ws: Workspace, reference: str) -> Entry:
    """Delete a run with its checkpoints; refused while models, evaluations or runs were made from it."""
    return workspace.delete(ws, "run", reference)
