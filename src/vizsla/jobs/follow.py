"""Waiting for a job of a workspace: what happens in it, told as it happens, while the queue is looked after."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable

from vizsla import events, files, work
from vizsla.errors import DatabaseUnavailable, DiskFull, TooSlow, from_dict
from vizsla.events import Event
from vizsla.jobs.queue import keep, kill, signal_worker, stop, turn
from vizsla.jobs.waiting import OnInterrupt, Teller, to_stop, until_ended
from vizsla.store.rows import Job
from vizsla.store.workspace import Workspace

POLL_S, TURN_EVERY_S = 0.1, 0.5
STOP_PATIENCE_S = 60
DATABASE_PATIENCE_S = 120
"""for how long a database may be away, as when its server is restarted"""


def wait(
    ws: Workspace,
    job: Job,
    on_event: Callable[[Event], None],
    *,
    offset: int = 0,
    on_interrupt: OnInterrupt = to_stop,
    timeout_s: float | None = None,
    stop_patience_s: float = STOP_PATIENCE_S,
) -> Job:
    """Look after the queue until a job has ended, and return it as it is then; see `waiting.until_ended`.

    Args:
        on_event: told everything that happens, as it happens: the worker's events, and `waiting` and `starting`.
        offset: in the events of the job's folder, from which on they are new.
        timeout_s: after which the job is stopped, whether it waits or is at work.
        stop_patience_s: for which the end of a job is waited for that was asked to stop since something failed.

    Raises:
        VizslaError: what the job failed with.
        KeyboardInterrupt: it was stopped, and nothing is left of it; or its worker was killed.
        Left: it was interrupted, and the job goes on.
        DatabaseUnavailable: the database was away for too long; the job goes on.
        TooSlow: it took longer than `timeout_s`, or waits until now for this reason.
    """
    ends = None if timeout_s is None else time.monotonic() + timeout_s
    waited = _Waited(ws, job, on_event, offset, ends, stop_patience_s=stop_patience_s)
    try:
        job = until_ended(waited, on_event, on_interrupt)
    except DatabaseUnavailable as error:
        raise _goes_on(error, job) from None
    if job.error is not None:
        raise from_dict(job.error)
    last = events.last(ws.folder(job.kind, job.thing) / work.EVENTS)
    if job.state == "stopped" and (last is None or last["event"] != "stopped"):
        raise KeyboardInterrupt
    return job


def watch(ws: Workspace, job: Job, on_event: Callable[[Event], None]) -> Job:
    """Tell `on_event` everything that happened in a job and happens until it has ended; the job is left alone.

    What was undone by then is left out.

    Raises:
        VizslaError: nothing is left of it, for this reason.
        DatabaseUnavailable: the database was away for too long; the job goes on.
    """
    follower = _Waited(ws, job, on_event, 0)
    try:
        while follower.look().live:
            time.sleep(POLL_S)
    except DatabaseUnavailable as error:
        raise _goes_on(error, job) from None
    except KeyboardInterrupt:
        keep(ws)
        raise
    job = follower.job
    if job.error is not None and not ws.is_finished(job.kind, job.thing):
        raise from_dict(job.error)
    return job


def _goes_on(error: DatabaseUnavailable, job: Job) -> DatabaseUnavailable:
    remedy = (
        f"{error.remedy}\nThe {job.kind} {job.name!r} was not stopped; `vizsla jobs show {job.id}` tells of it later."
    )
    return DatabaseUnavailable(error.what, where=error.where, remedy=remedy)


class _Waited:
    """Looks after the queue, and tells what happens in one of its jobs."""

    def __init__(
        self,
        ws: Workspace,
        job: Job,
        on_event: Callable[[Event], None],
        offset: int,
        ends: float | None = None,
        *,
        stop_patience_s: float = STOP_PATIENCE_S,
    ) -> None:
        self.job = job
        self.pause_s = POLL_S
        self._ws = ws
        self._on_event = on_event
        self._teller = Teller(on_event)
        self._folder = ws.folder(job.kind, job.thing)
        self._offset = offset
        self._ends = ends
        self._stop_patience_s = stop_patience_s
        self._turned_at = 0.0
        self._away_since: float | None = None

    def look(self) -> Job:
        """Take a turn when one is due, tell what is new, and return the job as it is now.

        While the database is away, that is as it was.

        Raises:
            DatabaseUnavailable: it has been away for long.
            TooSlow: the time that the job has is over.
        """
        try:
            self._look()
            self._away_since = None
        except DatabaseUnavailable as error:
            if self._away_since is None:
                self._away_since = time.monotonic()
                self._on_event({"event": "notice", "at": events.now(), "text": f"{error.what} Waiting for it."})
            if time.monotonic() - self._away_since > DATABASE_PATIENCE_S:
                raise
        if self._ends is not None and self.job.live and time.monotonic() > self._ends:
            waits = self.job.state == "queued"
            raise TooSlow(f"It still {self.job.cause}." if waits and self.job.cause else "It takes too long.")
        return self.job

    def _look(self) -> None:
        self._read()  # the turn that ends a job may remove its events
        self._turn()
        self.job = job = self._ws.store.jobs.get(self.job.id)  # before the events, so that none is missed at the end
        self._teller.tell(job, lambda: self._ws.store.jobs.history(job.id))
        self._read()

    def stop(self) -> None:
        stop(self._ws, self.job)

    def kill(self) -> None:
        kill(self._ws, self.job)

    def leave(self) -> None:
        keep(self._ws)

    def stop_unseen(self) -> None:
        with contextlib.suppress(DiskFull, DatabaseUnavailable):
            self._ws.store.jobs.ask_stop(self.job.id)
        with contextlib.suppress(DatabaseUnavailable):
            signal_worker(self._ws, self.job, signal.SIGTERM)
        deadline = time.monotonic() + self._stop_patience_s
        with contextlib.suppress(DiskFull, DatabaseUnavailable):
            while self._ws.store.jobs.get(self.job.id).live and time.monotonic() < deadline:
                turn(self._ws)
                time.sleep(POLL_S)

    def _read(self) -> None:
        new, self._offset = events.read(self._folder / work.EVENTS, self._offset)
        for event in events.surviving(new):
            self._on_event(event)

    def _turn(self) -> None:
        can_wait = self.job.state == "queued" or files.lock_holder(self._folder) is not None
        if can_wait and time.monotonic() - self._turned_at < TURN_EVERY_S:
            return
        self._turned_at = time.monotonic()
        try:
            turn(self._ws)
        except Exception:  # what holds up the queue is no reason to stop work that goes on
            if files.lock_holder(self._folder) is None:
                raise
