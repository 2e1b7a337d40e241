"""What the commands share that put work into the queue: their options, waiting for it, and leaving it alone."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, TypeVar

from cyclopts import Parameter

from vizsla.api import jobs
from vizsla.cli.options import Common, count, make
from vizsla.cli.output import err, next_step, print_json, safe
from vizsla.cli.progress import Bars
from vizsla.client.server import Server
from vizsla.events import Event
from vizsla.jobs.launch import interruptions
from vizsla.jobs.spec import JobSpec, WaitedSpec
from vizsla.jobs.waiting import Left, OnInterrupt
from vizsla.store.rows import Job
from vizsla.store.workspace import Workspace

Result = TypeVar("Result")
Work = TypeVar("Work", bound=Job | Sequence[Job])
Work_contra = TypeVar("Work_contra", contravariant=True)
Found_co = TypeVar("Found_co", covariant=True)


def _help(field: str) -> str:
    return JobSpec.model_fields[field].description or ""


@Parameter(name="*", group="Queue")
@dataclass(frozen=True, kw_only=True)
class Queued:
    """What every command takes that puts work into the queue."""

    detach: Annotated[
        bool, Parameter(negative="", show_default=False, help="Return at once; the work goes on by itself.")
    ] = False
    priority: Annotated[int, Parameter(help=_help("priority"), converter=count)] = 0
    retries: Annotated[int, Parameter(help=_help("retries"), converter=count)] = 3

    def spec(self) -> JobSpec:
        """The same as a spec."""
        return make(JobSpec, priority=self.priority, retries=self.retries)


@Parameter(name="*", group="Queue")
@dataclass(frozen=True, kw_only=True)
class QueuedForGpu(Queued):
    """What every command takes that puts work into the queue which computes on GPUs."""

    gpu_memory: Annotated[float | None, Parameter(help=_help("gpu_memory"))] = None

    def spec(self) -> JobSpec:
        """The same as a spec."""
        return make(JobSpec, priority=self.priority, retries=self.retries, gpu_memory=self.gpu_memory)


@Parameter(name="*", group="Queue")
@dataclass(frozen=True, kw_only=True)
class Waited:
    """What a command takes that waits in any case for its work in the queue, which computes on a GPU."""

    priority: Annotated[int, Parameter(help=_help("priority"), converter=count)] = 0
    retries: Annotated[int, Parameter(help=_help("retries"), converter=count)] = 0
    gpu_memory: Annotated[float | None, Parameter(help=_help("gpu_memory"))] = None

    def spec(self) -> WaitedSpec:
        """The same as a spec."""
        return make(WaitedSpec, priority=self.priority, retries=self.retries, gpu_memory=self.gpu_memory)


class Finish(Protocol[Work_contra, Found_co]):
    """A verb that waits for a job of its kind, or for several."""

    def __call__(
        self, ws: Workspace | Server, job: Work_contra, /, on_event: Callable[[Event], None], on_interrupt: OnInterrupt
    ) -> Found_co: ...


def attend(
    ws: Workspace | Server,
    submit: Callable[[], Work],
    finish: Finish[Work, Result],
    queued: Queued,
    common: Common,
    *,
    plan: tuple[int, int] | None = None,
) -> Result | None:
    """Put work into the queue, wait for it and show how it goes; None when it goes on without this command.

    Args:
        submit: puts it into the queue.
        finish: waits for it.
        plan: steps and epochs of a training that goes on.
    """
    with interruptions():  # from before there is a job, so that none is left by mistake
        work = submit()
        if queued.detach:
            jobs.leave(ws)
            _say_left(ws, work, common)
            return None
        with Bars(quiet=common.json) as bars:
            if plan:
                bars.plan(*plan)
            try:
                return finish(ws, work, bars.event, _ask(bars))
            except Left:
                pass
        _say_left(ws, work, common)
    return None


def _ask(bars: Bars) -> OnInterrupt:
    """Ask at Ctrl-C whether to stop the work or to leave it; without a terminal to ask at, it is to stop."""

    def ask() -> Literal["stop", "leave"]:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return "stop"
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with bars.paused():
                err.print(
                    "\n[bold]s[/]top it at its next safe point, or [bold]l[/]eave it running? [dim](s)[/] ", end=""
                )
                return "leave" if sys.stdin.readline().strip().lower().startswith("l") else "stop"
        except KeyboardInterrupt:
            return "stop"
        finally:
            signal.signal(signal.SIGINT, before)

    return ask


def _say_left(ws: Workspace | Server, work: Job | Sequence[Job], common: Common) -> None:
    if not isinstance(work, Job):
        _say_all_left(ws, work, common)
        return
    job = jobs.get(ws, work.id).job
    if common.json:
        print_json(as_json(job))
        return
    how = f"in the queue: it {safe(job.cause)}" if job.state == "queued" and job.cause else job.state
    err.print(f"The {job.kind} {safe(job.name)} is left to itself. It is {how}.", soft_wrap=True)
    if job.kind == "run":
        next_step(["vizsla", "run", "follow", job.name], "See how it goes:")
    else:
        next_step(["vizsla", "jobs", "show", job.id], "See how it goes:")


def _say_all_left(ws: Workspace | Server, work: Sequence[Job], common: Common) -> None:
    found = [jobs.get(ws, job.id).job for job in work]
    if common.json:
        print_json([as_json(job) for job in found])
        return
    states = ", ".join(f"{count} {state}" for state, count in Counter(job.state for job in found).items())
    err.print(
        f"The {len(found)} {work[0].kind}s {safe(work[0].name)} to {safe(work[-1].name)} are left to themselves: "
        f"{states}.",
        soft_wrap=True,
    )
    next_step(["vizsla", "jobs", "list"], "See how they go:")


def as_json(job: Job) -> dict[str, Any]:
    """A job as one JSON object."""
    return job._asdict()
