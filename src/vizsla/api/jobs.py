"""Verbs on the queue."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from vizsla import files
from vizsla.api import keeper
from vizsla.api.served import served
from vizsla.client.server import Server
from vizsla.errors import Conflict, NotFound
from vizsla.jobs import queue
from vizsla.machine.usage import FILE, Sample, read
from vizsla.store.rows import Job, Shown
from vizsla.store.workspace import Workspace, require_own


@served
def list_all(ws: Workspace, *, limit: int = 50) -> list[Job]:
    """The jobs that ended last, those at work, and those that wait, as they will start; `limit` with those that ended.

    Takes a turn of the queue before, so that no worker that is gone is shown as at work.
    """
    queue.turn(ws)
    return standing(ws, limit=limit)


def standing(ws: Workspace, *, limit: int) -> list[Job]:
    """As `list_all`, without a turn."""
    found = ws.store.jobs.live()
    waiting = sorted((job for job in found if job.state == "queued"), key=lambda job: -job.priority)
    ended = ws.store.jobs.last_ended(max(0, limit - len(found)))
    return [*reversed(ended), *(job for job in found if job.state != "queued"), *waiting]


@served
def live(ws: Workspace) -> list[Job]:
    """The jobs at work and those that wait, as `list_all` shows them, without a turn."""
    return standing(ws, limit=0)


def live_of(ws: Workspace | Server, thing: str) -> Job | None:
    """The job that is to work, or works, on the thing of this id."""
    return next((job for job in live(ws) if job.thing == thing), None)


@served
def get(ws: Workspace, reference: str) -> Shown:
    """The job of this id, or the newest of a thing by its name or id.

    Raises:
        NotFound: there is none.
    """
    queue.turn(ws)
    job = ws.store.jobs.find(reference)
    return Shown(job, ws.store.jobs.history(job.id))


@served
def usage(ws: Workspace, reference: str) -> list[Sample]:
    """What a job used of the machine over time; nothing when what it made is gone, or it has not begun."""
    job = ws.store.jobs.find(reference)
    samples = read(ws.folder(job.kind, job.thing) / FILE)  # of a run that went on, those of all its jobs
    return [one for one in samples if job.created_at <= one.at and (job.live or one.at <= job.changed_at)]


@served
def stop(ws: Workspace, reference: str, *, at_once: bool = False) -> Job:
    """Ask a job to stop at its next safe point, or take it out of the queue; returns at once.

    Args:
        at_once: end its worker now; of a run stays what its last checkpoint holds.

    Raises:
        Conflict: it has ended.
        Forbidden: neither the job nor what it works on belongs to the user.
    """
    queue.turn(ws)
    job = ws.store.jobs.find(reference)
    _require_own(ws, job)
    if not job.live:
        raise Conflict(f"The job {job.id} has ended: it is {job.state}.")
    queue.stop(ws, job)
    if at_once:
        queue.kill(ws, job)
    return ws.store.jobs.get(job.id)


def _require_own(ws: Workspace, job: Job) -> None:
    """An admin may have resumed what belongs to another: both may stop that."""
    owner = job.owner
    with contextlib.suppress(NotFound):
        if ws.store.exact(job.thing, job.kind).owner == ws.user:
            owner = ws.user
    require_own(ws, f"job {job.id}", owner)


@served
def leave(ws: Workspace) -> None:
    """Start what can start now, and leave the queue to a process of its own, which ends when the queue is empty."""
    queue.turn(ws)
    queue.keep(ws)


def keep(ws: Workspace, on_begin: Callable[[], None] = lambda: None) -> None:
    """Look after the queue until this process is interrupted, and leave what is at work then to itself.

    Args:
        on_begin: called when this process is the one that does.

    Raises:
        Conflict: another process looks after it.
    """
    lock = keeper.take(ws)
    on_begin()
    keeper.keep(ws, lock, wanted=lambda: True)


@served
def keeper_of(ws: Workspace) -> int | None:
    """The process that looks after the queue for jobs that nobody waits for, or None."""
    return files.lock_holder(keeper.keeper_folder(ws))
