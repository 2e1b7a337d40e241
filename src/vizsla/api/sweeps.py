"""Sweeps: one run for each pair of a learning rate and a batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from pydantic import ValidationError

from vizsla.api import runs
from vizsla.errors import InvalidInput, VizslaError
from vizsla.events import Event, ignore_event, now
from vizsla.jobs.launch import interruptions
from vizsla.jobs.spec import JobSpec
from vizsla.jobs.waiting import Left, OnInterrupt, to_stop
from vizsla.store.rows import Job
from vizsla.store.workspace import Workspace
from vizsla.training.run import RunStatus
from vizsla.training.spec import TrainingSpec

MAX_RUNS = 100


class Tried(NamedTuple):
    """A run of a sweep that has ended."""

    job: Job
    status: RunStatus | None
    """None: nothing is left of it"""
    error: VizslaError | None
    """what it failed with"""

    @property
    def accuracy(self) -> float:
        """Its best validation accuracy; -1 without one."""
        best = self.status.progress.best if self.status else None
        return float(best["best_accuracy"]["value"]) if best else -1.0


def start(
    ws: Workspace,
    dataset: str,
    spec: TrainingSpec | None = None,
    *,
    learning_rates: Sequence[float] = (),
    batch_sizes: Sequence[int] = (),
    name: str | None = None,
    job: JobSpec = JobSpec(),
    on_event: Callable[[Event], None] = ignore_event,
) -> list[Tried]:
    """Train with each pair of a learning rate and a batch size, and wait for the end; see `submit` and `finish`."""
    with interruptions():
        jobs = submit(ws, dataset, spec, learning_rates=learning_rates, batch_sizes=batch_sizes, name=name, job=job)
        return finish(ws, jobs, on_event)


def submit(
    ws: Workspace,
    dataset: str,
    spec: TrainingSpec | None = None,
    *,
    learning_rates: Sequence[float] = (),
    batch_sizes: Sequence[int] = (),
    name: str | None = None,
    job: JobSpec = JobSpec(),
) -> list[Job]:
    """Put a training for each pair of a learning rate and a batch size into the queue, or none when one is refused.

    Args:
        spec: the settings that they share.
        learning_rates: to try; by default the one of `spec`.
        batch_sizes: to try; by default the one of `spec`.
        name: what the runs are called, with numbers; by default made from the dataset's and the network's.

    Raises:
        VizslaError: there is nothing to vary, too much, or what would also refuse one of the trainings.
    """
    specs = _pairs(spec or TrainingSpec(), learning_rates, batch_sizes)
    names = [f"{name}-{number}" if name else None for number in range(1, len(specs) + 1)]
    return runs.submit_all(ws, dataset, specs, names=names, job=job)


def _pairs(spec: TrainingSpec, rates: Sequence[float], sizes: Sequence[int]) -> list[TrainingSpec]:
    for field, values in (("learning_rate", rates), ("batch_size", sizes)):
        if values and getattr(spec, field) is not None:
            raise InvalidInput(f"There is a {field} and a list of them.", where=field, remedy="Leave one of them out.")
    chosen_rates: list[float | None] = list(dict.fromkeys(rates)) or [spec.learning_rate]
    chosen_sizes: list[int | None] = list(dict.fromkeys(sizes)) or [spec.batch_size]
    num = len(chosen_rates) * len(chosen_sizes)
    if num < 2 or num > MAX_RUNS:
        what = f"These are {num:,} pairs of a learning rate and a batch size."
        remedy = "Give several of one or both." if num < 2 else f"Give lists that make {MAX_RUNS} at most."
        raise InvalidInput(what, where="learning_rates, batch_sizes", remedy=remedy)
    try:
        return [
            TrainingSpec(**(spec.model_dump() | {"learning_rate": rate, "batch_size": size}))
            for rate in chosen_rates
            for size in chosen_sizes
        ]
    except ValidationError as error:
        first = error.errors()[0]
        field = "learning_rates" if first["loc"][:1] == ("learning_rate",) else "batch_sizes"
        raise InvalidInput(
            f"{first['msg']} (given: {first['input']!r}).", where=field, remedy="Leave it out of the list."
        ) from None


def finish(
    ws: Workspace,
    jobs: Sequence[Job],
    on_event: Callable[[Event], None] = ignore_event,
    on_interrupt: OnInterrupt = to_stop,
) -> list[Tried]:
    """Wait for the end of the runs of a sweep, the best one first; one that fails does not hold up the others.

    Args:
        on_event: told what happens in one run after the other, each after a `notice` that names it.
        on_interrupt: what the first Ctrl-C means for all that have not ended.

    Raises:
        Left: it was interrupted, and the runs go on.
    """
    asked: list[Literal["stop", "leave"]] = []

    def stop_all() -> None:
        for job in jobs:
            ws.store.jobs.ask_stop(job.id)

    def ask() -> Literal["stop", "leave"]:
        if not asked:
            asked.append(on_interrupt())
        if asked[0] == "stop":
            stop_all()
        return asked[0]

    def tell(event: Event) -> None:
        if event["event"] == "stopping":
            stop_all()
        on_event(event)

    with interruptions():
        try:
            tried = [_finished(ws, ws.store.jobs.get(job.id), tell, ask) for job in jobs]
        except Left:
            raise
        except BaseException:  # nothing trains unseen
            stop_all()
            raise
    return sorted(tried, key=lambda one: -one.accuracy)


def _finished(ws: Workspace, job: Job, on_event: Callable[[Event], None], on_interrupt: OnInterrupt) -> Tried:
    if job.live:
        on_event({"event": "notice", "at": now(), "text": f"The run {job.name}:"})
    error: VizslaError | None = None
    try:
        runs.finish(ws, job, on_event, on_interrupt)
    except KeyboardInterrupt:  # stopped before it had anything to keep, or killed
        pass
    except VizslaError as found:
        error = found
    job = ws.store.jobs.get(job.id)
    if error is not None and job.live:
        raise error  # not of the run, but of waiting for it
    return Tried(job, runs.get(ws, job.thing) if ws.is_finished("run", job.thing) else None, error)
