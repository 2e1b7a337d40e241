"""The queue: from a job that is wanted to one that has ended, whoever is killed in between.

The database says what is wanted; folders and their locks say what is (see docs/decisions/0008-the-queue.md). `turn`
brings the two together: it ends the jobs whose workers have ended, and starts those for which there are devices. Any
process may take a turn, and one at a time does: a command that waits for its job, or the keeper for all that nobody
waits for.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from vizsla import events, files, records, work
from vizsla.errors import (
    Conflict,
    DatabaseUnavailable,
    DiskFull,
    Forbidden,
    InvalidInput,
    TooMany,
    VizslaError,
    from_dict,
)
from vizsla.evaluation import report
from vizsla.jobs import launch
from vizsla.jobs.devices import as_option, capacity
from vizsla.jobs.schedule import CPU, HOST, Holding, Need, Waiting, decide, require
from vizsla.jobs.spec import JobSpec
from vizsla.networks import own
from vizsla.serving import hosting
from vizsla.serving.spec import SERVICE, ModelSpec, ServiceSpec
from vizsla.store.rows import Entry, Failure, Job, Kind, Thing
from vizsla.store.workspace import FINAL_FILE, LASTING, QUEUE, Workspace, discard_unfinished, require_maker
from vizsla.training import run

WORKERS: dict[Kind, str] = {
    "dataset": "vizsla.datasets.worker",
    "run": "vizsla.training.worker",
    "model": "vizsla.models.worker",
    "evaluation": "vizsla.evaluation.worker",
    "prediction": "vizsla.models.batch",
    "service": "vizsla.serving.hosted",
    "rate": "vizsla.training.finder",
}
# What stands in the events of work that is to go on, before its worker says anything.
BEGINNINGS = ("resumed", "again")
KEEPER = "vizsla.api.keeper"
# A service that did well for as long is as good as new; and one that does not is started again that late.
STEADY_S, MAX_PAUSE_S = 600.0, 60.0
# Of an account that is no admin, in the queue at a time.
MOST_JOBS = 1000

_children: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
"""The workers that this process has started, by job and attempt: only a parent learns how a process ended"""


def submit(ws: Workspace, entry: Entry, need: Need, spec: JobSpec, *, needed: Sequence[str] = ()) -> Job:
    """Put work on a thing into the queue; see `submit_all`."""
    return submit_all(ws, [entry], need, spec, needed=needed)[0]


def submit_all(
    ws: Workspace, entries: Sequence[Entry], need: Need, spec: JobSpec, *, needed: Sequence[str] = ()
) -> list[Job]:
    """Put work on some things into the queue, all of it or none; their folders hold the requests already.

    Args:
        needed: ids of the jobs that have to be done before.

    Raises:
        Unavailable: the machine has no such devices.
        DiskFull: there is hardly any room left.
        Forbidden, TooMany: the user may not have so much, or so soon.
        Conflict: there is work on one of them in the queue already.
    """
    require_possible(ws, need)
    _require_modest(ws, spec, len(entries))
    return ws.store.jobs.add_all(
        [Thing(entry.kind, entry.id, entry.name) for entry in entries],
        owner=ws.user,
        need=need.as_dict(),
        priority=spec.priority,
        retries=spec.retries,
        needed=needed,
    )


def _require_modest(ws: Workspace, spec: JobSpec, num: int) -> None:
    """Raise what keeps one account from having the queue for itself."""
    require_maker(ws)
    if ws.role == "admin":
        return
    if spec.priority > 0:
        raise Forbidden("Only admins let work come before that of others.", where="priority", remedy="Use 0 or less.")
    if sum(job.owner == ws.user for job in ws.store.jobs.live()) + num > MOST_JOBS:
        raise TooMany(
            f"{ws.user} may have {MOST_JOBS:,} jobs in the queue at most.", remedy="Wait until some have ended."
        )


def require_possible(ws: Workspace, need: Need) -> None:
    """Raise `Unavailable` or `DiskFull` where work with this need could not be done."""
    require(need, capacity())
    ws.require_space()


def turn(ws: Workspace) -> None:
    """Bring the queue up to what has happened, and start what can start; nothing while another process does."""
    lock = files.Lock(ws.root / QUEUE)
    try:
        lock.acquire(patience_s=0)
    except Conflict:
        return
    try:
        for job in ws.store.jobs.live():
            if job.state != "queued":
                _look_after_safely(ws, job)
        waiting = [job for job in ws.store.jobs.live() if job.state == "queued"]
        needed = ws.store.jobs.needed()  # after the jobs: of one that was put there meanwhile it would be unknown
        for job in waiting:
            _heed(ws, job, needed.get(job.id, []))
        _start_some(ws)
        _forget_ended_children(ws)
    finally:
        lock.release()


def _heed(ws: Workspace, job: Job, needed: Sequence[Job]) -> None:
    """Take a job out of the queue that was asked to stop, or one of whose needed jobs has made nothing."""
    if job.stop_asked:
        _end(ws, job, "stopped", "stopped before it began" if job.attempt == 0 else "stopped")
        return
    missing = next((other for other in needed if not other.live and other.state != "done"), None)
    if missing is not None:
        error = _without(ws, missing)
        _end(ws, job, "failed", error.what, failure="parent", error=error)


def _without(ws: Workspace, missing: Job) -> Conflict:
    """What is said of work that needs what another job has not made."""
    how, remedy = "was not made", (missing.error or {}).get("remedy", "") or f"Make the {missing.kind} first."
    if missing.kind == "run" and ws.is_finished("run", missing.thing):
        how = f"is {missing.state}"
        remedy = f"Ask again for a checkpoint that it has, or go on with it: vizsla run resume {missing.thing}"
    return Conflict(f"The {missing.kind} {missing.name!r}, which it needs, {how}: {missing.cause}", remedy=remedy)


def _forget_ended_children(ws: Workspace) -> None:
    """Of workers whose end another process has seen."""
    live = {(job.id, job.attempt) for job in ws.store.jobs.live()}
    for key in [key for key, child in _children.items() if key not in live and child.poll() is not None]:
        del _children[key]


def _look_after_safely(ws: Workspace, job: Job) -> None:
    """As `_look_after`; a job with damaged files has failed, and does not hold up the others."""
    try:
        _look_after(ws, job)
    except (DatabaseUnavailable, DiskFull):
        raise
    except (VizslaError, OSError, ValueError) as error:
        folder = ws.folder(job.kind, job.thing)
        if files.lock_holder(folder) is None:
            _failed(ws, job, error if isinstance(error, VizslaError) else work.expected(error, folder))


def _look_after(ws: Workspace, job: Job) -> None:
    """See whether the worker of a job is at work, and if not, how it has ended."""
    folder = ws.folder(job.kind, job.thing)
    worker = files.lock_holder(folder)  # looked at before its events, so that none is missed
    if worker is not None:
        if job.stop_asked and job.state != "stopping":
            launch.send(worker, signal.SIGTERM)
            ws.store.jobs.change(job, "stopping", "asked to stop")
        elif job.state == "starting" and (folder / work.EVENTS).exists() and _has_begun(folder):
            ws.store.jobs.change(job, "running", f"on {', '.join(job.held)}" if HOST not in job.held else "")
        return
    last = events.last(folder / work.EVENTS)
    status = _status(job)
    if last is None or last["event"] not in events.FINAL:
        _ended_silently(ws, job, status)
    elif last["event"] == "failed":
        error = from_dict(last["error"])
        if _may_come_back(job, error):
            _again(ws, job, f"{error.what} It is tried again")
        else:
            _failed(ws, job, error)
    elif last["event"] == "done" and not ws.is_finished(job.kind, job.thing):
        _ended_silently(ws, job, status)
    else:
        _end(ws, job, last["event"], "asked to stop" if last["event"] == "stopped" else "")


def _has_begun(folder: Path) -> bool:
    last = events.last(folder / work.EVENTS)
    return last is not None and last["event"] not in BEGINNINGS


def _status(job: Job) -> int | None:
    """How the worker of a job ended; None when it was the child of another process."""
    child = _children.get((job.id, job.attempt))
    if child is None:
        return None
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(1.0)  # its lock was dropped a moment ago
    return child.returncode


def _ended_silently(ws: Workspace, job: Job, status: int | None) -> None:
    """A worker was killed, or died in another way: the job goes on, unless that has happened too often."""
    folder = ws.folder(job.kind, job.thing)
    error = launch.death(status, folder)
    if job.kind not in LASTING and ws.is_finished(job.kind, job.thing):
        _end(ws, job, "done", "")  # killed between its last file and its last word
    elif job.stop_asked:
        _end(ws, job, "stopped", "killed while it was to stop")
    elif isinstance(error, DiskFull):
        _failed(ws, job, error)
    elif status is not None and status >= 0:
        _end(ws, job, "failed", error.what, failure="defect", error=error)
    elif job.attempt <= job.retries:
        resumes = "from its last checkpoint" if (folder / FINAL_FILE["run"]).exists() else "from the beginning"
        resumes = "from where it was" if job.kind == "service" or (folder / work.PARTS).exists() else resumes
        _again(ws, job, f"{error.what} It goes on {resumes}")
    elif status is None:
        _end(ws, job, "lost", error.what, failure="lost", error=error)
    else:
        _end(ws, job, "failed", error.what, failure="killed", error=error)


def _again(ws: Workspace, job: Job, what: str) -> None:
    """Have a job started again."""
    attempt = job.attempt
    if job.kind == "service":
        if job.state == "running" and _seconds_in(job) > STEADY_S:
            attempt = 1  # what has gone well for long is as if it had been started once
        with events.EventLog(ws.folder(job.kind, job.thing) / work.EVENTS) as log:
            log.write("again")
    cause = f"{what}: attempt {attempt + 1} of {job.retries + 1}."
    ws.store.jobs.change(job, "queued", cause, held=(), attempt=attempt)


def _seconds_in(job: Job) -> float:
    """How long a job has been in its state."""
    return (datetime.now(UTC) - datetime.fromisoformat(job.changed_at)).total_seconds()


def _pause_s(job: Job) -> float:
    """How long a service is not started again: longer each time that it did not do well for long."""
    return min(2.0 ** (job.attempt - 2), MAX_PAUSE_S) if job.kind == "service" and job.attempt > 1 else 0.0


def _may_come_back(job: Job, error: VizslaError) -> bool:
    """Whether a service that has answered before lacks only what may be there again: its port, its GPU."""
    again = job.kind == "service" and 1 < job.attempt <= job.retries and not job.stop_asked
    return again and error.kind in ("conflict", "unavailable")


def _failed(ws: Workspace, job: Job, error: VizslaError) -> None:
    _end(ws, job, "failed", error.what, failure=_class_of(error), error=error)


def _class_of(error: VizslaError) -> Failure:
    by_kind: dict[str, Failure] = {"disk-full": "disk", "defect": "defect", "worker-died": "killed"}
    if error.kind == "training-failed" and "out of memory" in error.what:
        return "memory"
    return by_kind.get(error.kind, "error")


def _end(
    ws: Workspace,
    job: Job,
    state: Literal["done", "failed", "stopped", "lost"],
    cause: str,
    *,
    failure: Failure | None = None,
    error: VizslaError | None = None,
) -> None:
    """Write how a job has ended, and tidy up: of a thing that is not whole nothing is left."""
    finished = ws.is_finished(job.kind, job.thing)
    if error is not None and not finished:
        keep_log(ws, ws.folder(job.kind, job.thing), error)
    if state == "done" and job.kind not in LASTING:
        _tidy(ws.folder(job.kind, job.thing))
    fields = error.as_dict() if error else None
    if job.kind == "service":
        _end_in_queue(ws.folder(job.kind, job.thing), state, fields)
    ws.store.jobs.change(job, state, cause, held=(), failure=failure, error=fields)
    if not finished:
        _discard(ws, job.kind, job.thing)


def _end_in_queue(folder: Path, state: str, error: dict[str, str] | None) -> None:
    """Say in the events of a service, which say that it is to be started again, that it is not."""
    with contextlib.suppress(InvalidInput, DiskFull):  # the job itself says how it ended
        last = events.last(folder / work.EVENTS)
        if last is not None and last["event"] == "again":
            with events.EventLog(folder / work.EVENTS) as log:
                log.write(state, **({"error": error} if error else {}))


def _discard(ws: Workspace, kind: Kind, id: str) -> None:
    """Remove a thing that is not whole, and what was kept so far only because this was to be made from it."""
    made_from = ws.store.parents(id)
    if discard_unfinished(ws, kind, id):
        for parent in made_from:
            if not ws.is_finished(parent.kind, parent.id):
                _discard(ws, parent.kind, parent.id)


def keep_log(ws: Workspace, folder: Path, error: VizslaError) -> None:
    """Of work whose folder goes, keep the log that its error names."""
    if error.where != str(folder / work.LOG):
        return
    kept = ws.root / "cache" / f"{folder.name}-{work.LOG}"
    with contextlib.suppress(OSError):
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / work.LOG, kept)
        error.where = str(kept)


def _tidy(folder: Path) -> None:
    """Remove the traces of the worker from a finished folder: what remains is the thing itself."""
    for name in (work.REQUEST, work.EVENTS, work.LOG, files.LOCK):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / work.PARTS, ignore_errors=True)


def _start_some(ws: Workspace) -> None:
    """Start what there is room for, and say of the others why they wait."""
    live = ws.store.jobs.live()
    queued = {job.id: job for job in live if job.state == "queued"}
    if not queued:
        return
    reasons = {
        id: f"waits for the {_title(other)}"
        for id, others in ws.store.jobs.needed().items()  # after the jobs, as above
        for other in others
        if other.state != "done" and id in queued
    }
    try:
        ws.require_space()
    except DiskFull as error:
        reasons |= dict.fromkeys(queued, f"waits for room on the disk: {error.what}")
    ready = [
        Waiting(job.id, _title(job), job.owner, job.priority, Need.of(job.need))
        for job in queued.values()
        if job.id not in reasons and _pause_s(job) <= _seconds_in(job)
    ]
    holding = [Holding(_title(job), job.owner, job.held, job.need["amount"]) for job in live if job.state != "queued"]
    decision = decide(ready, holding, capacity())
    for id, reason in (reasons | decision.reasons).items():
        if queued[id].cause != reason:
            ws.store.jobs.explain(queued[id], reason)
    for id, held in decision.starts.items():
        _start(ws, queued[id], held)


def _title(job: Job) -> str:
    return f"{job.kind} {job.name}"


def _start(ws: Workspace, job: Job, held: tuple[str, ...]) -> None:
    folder = ws.folder(job.kind, job.thing)
    lock = files.Lock(folder)
    try:
        lock.acquire(patience_s=0)
    except Conflict:
        return  # somebody looks at the folder at this moment: the next turn will do
    except FileNotFoundError:
        _failed(ws, job, Conflict(f"The folder of the {job.kind} {job.name!r} is gone.", where=str(folder)))
        return
    started: Job | None = None
    try:
        _make_ready(ws, job, folder, held)
        # The state first: should this process be killed between the two, the job has no worker, and is started again.
        started = ws.store.jobs.change(job, "starting", "", held=held, attempt=job.attempt + 1)
        if started is not None:
            _children[started.id, started.attempt] = launch.start(WORKERS[job.kind], folder, lock, held)
    except (VizslaError, OSError, ValueError) as error:
        if started is None and isinstance(error, DatabaseUnavailable | DiskFull):
            raise  # nothing is wrong with the job: it waits
        lock.release()
        known = error if isinstance(error, VizslaError) else work.expected(error, folder)
        _failed(ws, started or job, known)
    finally:
        lock.release()


def _make_ready(ws: Workspace, job: Job, folder: Path, held: tuple[str, ...]) -> None:
    """Prepare the folder of a job for its worker: a run goes on from its checkpoint, other work begins anew."""
    if not ws.is_finished(job.kind, job.thing):
        _clear(folder)
    if job.kind == "evaluation":
        asked = records.read(folder / work.REQUEST, report.Request, remedy="Ask for it again.")
        given = asked.model_copy(update={"device": as_option(held)})
        files.write_json(folder / work.REQUEST, given.model_dump(mode="json"))
    if job.kind == "service":
        _make_service_ready(ws, folder)
    if job.kind not in ("run", "rate"):
        return
    request = records.read(folder / work.REQUEST, run.Request, remedy="Start a new run.")
    # The workspace may have been moved since the run began.
    changed: dict[str, Any] = {"dataset_folder": ws.folder("dataset", request.dataset_folder.name)}
    if request.network_file:
        changed["network_file"] = folder / own.COPY
    if held != (CPU,):  # else as asked: where the driver tells of no cards, the worker may find one
        changed["device"] = as_option(held)
    files.write_json(folder / work.REQUEST, request.model_copy(update=changed).model_dump(mode="json"))
    if job.kind == "run" and ws.is_finished("run", job.thing):
        run.rewind(folder)


def _make_service_ready(ws: Workspace, folder: Path) -> None:
    """Write what is to be served; the workspace may have been moved. What was said before is no word of what comes."""
    files.write_json(folder / SERVICE, located(ws, hosting.read(folder).service).model_dump(mode="json"))
    if (folder / work.EVENTS).exists():
        with events.EventLog(folder / work.EVENTS) as log:
            log.write("again")


def located(ws: Workspace, service: ServiceSpec) -> ServiceSpec:
    """A service with the folders of its models, as they are now."""

    def found(model: ModelSpec) -> ModelSpec:
        versions = [one.model_copy(update={"folder": ws.folder("model", one.version)}) for one in model.versions]
        return model.model_copy(update={"versions": tuple(versions)})

    return service.model_copy(update={"models": tuple(map(found, service.models))})


def _clear(folder: Path) -> None:
    """Remove what an earlier attempt has left. The log stays, and the events, which others may be reading."""
    if (folder / work.EVENTS).exists():
        with events.EventLog(folder / work.EVENTS) as log:
            log.write("again")
    for path in folder.iterdir():
        if path.name in (work.REQUEST, work.EVENTS, work.LOG, work.PARTS, files.LOCK, own.COPY):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def stop(ws: Workspace, job: Job) -> None:
    """Ask that a job be stopped: at its next safe point when it is at work, at once when it waits."""
    ws.store.jobs.ask_stop(job.id)
    turn(ws)


def kill(ws: Workspace, job: Job) -> None:
    """End the worker of a job that was asked to stop, at once."""
    # A service takes being asked twice for that, and ends its processes too.
    signal_worker(ws, job, signal.SIGTERM if job.kind == "service" else signal.SIGKILL)


def signal_worker(ws: Workspace, job: Job, number: signal.Signals) -> None:
    """Send a signal to the worker of a job, while nobody takes a turn: who starts a worker holds its lock before it."""
    lock = files.Lock(ws.root / QUEUE)
    with contextlib.suppress(Conflict):
        lock.acquire(patience_s=5.0)
    try:
        worker = files.lock_holder(ws.folder(job.kind, job.thing))
        if worker is not None and worker != os.getpid() and ws.store.jobs.get(job.id).state != "queued":
            launch.send(worker, number)
    finally:
        lock.release()


def keep(ws: Workspace) -> None:
    """Leave the queue to a process of its own, for jobs that nobody waits for; harmless when there is one."""
    launch.leave(KEEPER, str(ws.root), ws.root / QUEUE / "keeper.log")
