"""Waiting for a job of a server: what happens in it, told as it happens, also over a restart of the server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from vizsla import events
from vizsla.client import jobs
from vizsla.client.server import PATIENCE_S, Away, Server, parsed
from vizsla.errors import Conflict, NotFound, VizslaError, from_dict
from vizsla.events import Event
from vizsla.jobs.waiting import OnInterrupt, Teller, until_ended
from vizsla.store.rows import Job
from vizsla.training.run import RunStatus

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0


def wait(
    server: Server, job: Job, on_event: Callable[[Event], None], on_interrupt: OnInterrupt, *, after: int = 0
) -> Job:
    """Wait until a job has ended, and return it as it is then; see `waiting.until_ended`.

    Args:
        on_event: told everything that happens: the worker's events, and `waiting` and `starting`.
        after: the place in the job's events from which on they are new.

    Raises:
        VizslaError: what the job failed with.
        KeyboardInterrupt: it was stopped, and nothing is left of it; or its worker was killed.
        Away: the server has not answered for long; the job goes on.
        Left: it was interrupted, and the job goes on.
    """
    job = until_ended(_Waited(server, job, on_event, after), on_event, on_interrupt)
    if job.error is not None:
        raise from_dict(job.error)
    if job.state == "stopped" and not _was_kept(server, job):
        raise KeyboardInterrupt
    return job


def _was_kept(server: Server, job: Job) -> bool:
    """Whether something is left of work that was stopped: of a run that stopped at a checkpoint."""
    if job.kind != "run":
        return False
    try:
        return parsed(RunStatus, server.get("runs", job.thing)).progress.state == "stopped"
    except (NotFound, Conflict):
        return False


def watch(server: Server, job: Job, on_event: Callable[[Event], None]) -> Job:
    """Tell `on_event` everything that happened in a job and happens until it has ended; the job is left alone."""
    watched = _Waited(server, job, on_event, 0)
    while watched.look().live:
        time.sleep(watched.pause_s)
    return watched.job


class _Waited:
    """Asks a server about a job, more seldom the longer nothing happens."""

    def __init__(self, server: Server, job: Job, on_event: Callable[[Event], None], after: int) -> None:
        self.job = job
        self.pause_s = FIRST_PAUSE_S
        self._server = server
        self._on_event = on_event
        self._teller = Teller(on_event)
        self._after = after
        self._untold: list[Event] = []
        self._answered_at = time.monotonic()

    def look(self) -> Job:
        """Tell what is new, and return the job as it is now, or as it was while the server does not answer."""
        try:
            job = jobs.shown(self._server, self.job.id, patience_s=0)
            self._read()  # after the job, so that none is missed at the end
        except Away:
            if time.monotonic() - self._answered_at > PATIENCE_S:
                raise
            self._pause(told=False)
            return self.job
        self._answered_at = time.monotonic()
        self.job = job.job
        told = self._teller.tell(job.job, lambda: job.history)
        new, self._untold = events.surviving(self._untold), []
        for event in new:
            self._on_event(event)
        self._pause(told=told or bool(new))
        return self.job

    def stop(self) -> None:
        with contextlib.suppress(Conflict):  # it has just ended
            jobs.ask_to_stop(self._server, self.job.id)

    def kill(self) -> None:
        with contextlib.suppress(Conflict):
            jobs.ask_to_stop(self._server, self.job.id, at_once=True)

    def leave(self) -> None:
        """The server looks after it."""

    def stop_unseen(self) -> None:
        with contextlib.suppress(VizslaError):
            self.stop()

    def _read(self) -> None:
        while (part := jobs.some_events(self._server, self.job.id, self._after, patience_s=0)).next != self._after:
            self._after = part.next
            self._untold += part.events

    def _pause(self, *, told: bool) -> None:
        self.pause_s = FIRST_PAUSE_S if told else min(1.5 * self.pause_s, LONGEST_PAUSE_S)
