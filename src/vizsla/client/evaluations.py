"""The verbs on evaluations, on a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vizsla.client import follow, things
from vizsla.client.server import Server, parsed
from vizsla.evaluation.report import Report
from vizsla.events import Event, ignore_event
from vizsla.jobs.spec import JobSpec
from vizsla.jobs.waiting import OnInterrupt, to_stop
from vizsla.store.rows import Entry, Job


def submit(
    server: Server,
    subject: str,
    *,
    split: str = "test",
    checkpoint: str = "best",
    name: str | None = None,
    job: JobSpec = JobSpec(),
) -> Job:
    """See `vizsla.api.evaluations.submit`."""
    id = things.find(server, subject, "run", "model").id
    return things.submit(server, "evaluations", job=job, subject=id, split=split, checkpoint=checkpoint, name=name)


def finish(
    server: Server,
    job: Job,
    on_event: Callable[[Event], None] = ignore_event,
    on_interrupt: OnInterrupt = to_stop,
) -> Report:
    """See `vizsla.api.evaluations.finish`."""
    follow.wait(server, job, on_event, on_interrupt)
    return get(server, job.thing)


def get(server: Server, reference: str) -> Report:
    """See `vizsla.api.evaluations.get`."""
    return parsed(Report, server.get(*things.at(server, "evaluation", reference)))


def list_all(server: Server, *, limit: int | None = None, tags: Sequence[str] = ()) -> list[Report]:
    """See `vizsla.api.evaluations.list_all`."""
    return [parsed(Report, item) for item in server.newest("evaluations", limit=limit, tag=tags)]


def delete(server: Server, reference: str) -> Entry:
    """See `vizsla.api.evaluations.delete`."""
    return things.delete(server, "evaluation", reference)
