"""What waiting for a job means, wherever the job is: what is told of it, and what Ctrl-C does. Light: no SQL."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from vizsla import events
from vizsla.errors import Busy, Conflict, DatabaseUnavailable, from_dict
from vizsla.events import Event
from vizsla.jobs.launch import interruptions
from vizsla.store.rows import Change, Job

OnInterrupt = Callable[[], Literal["stop", "leave"]]


def to_stop() -> Literal["stop"]:
    """That Ctrl-C means that the work is to be stopped."""
    return "stop"


class Left(Exception):
    """Whoever waited for a job goes, and the job goes on."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"The {job.kind} {job.name!r} goes on.")
        self.job = job


class Waited(Protocol):
    """A job that is waited for."""

    job: Job
    """as it was seen last"""
    pause_s: float
    """how long to wait before it is looked at again"""

    def look(self) -> Job:
        """Tell what is new, and return the job as it is now."""

    def stop(self) -> None:
        """Ask it to stop."""

    def kill(self) -> None:
        """End its worker."""

    def leave(self) -> None:
        """See to it that it goes on without whoever waited."""

    def stop_unseen(self) -> None:
        """Ask it to stop, whatever has gone wrong: nothing trains unseen."""


def until_ended(work: Waited, on_event: Callable[[Event], None], on_interrupt: OnInterrupt) -> Job:
    """Wait until a job has ended, and return it as it is then.

    Ctrl-C asks the job to stop, waits for that, and tells `on_event` by an event `stopping`; a second one kills its
    worker, with an event `killing`. When anything fails, such as `on_event`, the job is asked to stop too, but
    for a database that is away for too long.

    Args:
        on_interrupt: what the first Ctrl-C means: that the job is to be stopped, or left to itself.

    Raises:
        Left: it was interrupted, and the job goes on.
    """
    heeded = 0
    with interruptions() as caught:
        try:
            while True:
                if len(caught) > heeded:
                    if heeded == 0 and caught[0] == signal.SIGINT and on_interrupt() == "leave":
                        raise Left(work.job)
                    waits = work.job.state == "queued"
                    work.kill() if heeded else work.stop()
                    if not waits:
                        on_event({"event": "killing" if heeded else "stopping", "at": events.now()})
                    heeded += 1
                if not work.look().live:
                    return work.job
                time.sleep(work.pause_s)
        except Left:
            work.leave()
            raise
        except DatabaseUnavailable:  # nobody can be told to stop, and nothing that is at work needs it
            raise
        except BaseException:
            work.stop_unseen()
            raise


def until_running(
    look: Callable[[], Job], on_event: Callable[[Event], None], *, pause_s: float, patience_s: float
) -> Job:
    """Wait until a job that goes on until it is stopped is at work.

    Args:
        look: returns the job as it is now.
        on_event: told by `waiting` why it waits.

    Raises:
        VizslaError: why it is not.
    """
    deadline = time.monotonic() + patience_s
    told = ""
    while True:
        job = look()
        if job.error is not None:
            raise from_dict(job.error)
        if not job.live:
            raise Conflict(f"The {job.kind} {job.name!r} was stopped before it was at work.")
        if job.state == "running":
            return job
        if job.state == "queued" and job.cause not in ("", told):
            told = job.cause
            on_event({"event": "waiting", "at": job.changed_at, "text": told})
        if time.monotonic() > deadline:
            remedy = f"`vizsla jobs show {job.id}` tells of it."
            raise Busy(f"The {job.kind} {job.name!r} is not at work yet: it is {job.state}.", remedy=remedy)
        time.sleep(pause_s)


class Teller:
    """Tells of a job, by the events `waiting` and `starting`, what the events of its folder do not."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._told = ("", "", 0)

    def tell(self, job: Job, history: Callable[[], Sequence[Change]]) -> bool:
        """Tell what is new of a job; returns whether there was anything new.

        Args:
            history: every state that it was in, for the reason why it starts again.
        """
        if (job.state, job.cause, job.attempt) == self._told:
            return False
        if job.state == "starting":
            if job.attempt > 1:
                again = next(change.cause for change in reversed(history()) if change.state == "queued")
                self._on_event({"event": "notice", "at": job.changed_at, "text": again})
            self._on_event({"event": "starting", "at": job.changed_at})
        elif job.state == "queued" and job.cause:
            self._on_event({"event": "waiting", "at": job.changed_at, "text": job.cause})
        self._told = (job.state, job.cause, job.attempt)
        return True
