"""The verbs on models, on a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vizsla.client import follow, things
from vizsla.client.server import Server, parsed
from vizsla.events import Event, ignore_event
from vizsla.jobs.spec import JobSpec
from vizsla.jobs.waiting import OnInterrupt, to_stop
from vizsla.models.card import Card
from vizsla.store.rows import Entry, Job


def submit(
    server: Server, run: str, *, name: str | None = None, checkpoint: str = "best", job: JobSpec = JobSpec()
) -> Job:
    """See `vizsla.api.models.submit`."""
    id = things.find(server, run, "run").id
    return things.submit(server, "models", job=job, run=id, name=name, checkpoint=checkpoint)


def finish(
    server: Server,
    job: Job,
    on_event: Callable[[Event], None] = ignore_event,
    on_interrupt: OnInterrupt = to_stop,
) -> Card:
    """See `vizsla.api.models.finish`."""
    follow.wait(server, job, on_event, on_interrupt)
    return get(server, job.thing)


def get(server: Server, reference: str) -> Card:
    """See `vizsla.api.models.get`."""
    return parsed(Card, server.get(*things.at(server, "model", reference)))


def list_all(server: Server, *, limit: int | None = None, tags: Sequence[str] = ()) -> list[Card]:
    """See `vizsla.api.models.list_all`."""
    return [parsed(Card, item) for item in server.newest("models", limit=limit, tag=tags)]


def delete(server: Server, reference: str) -> Entry:
    """See `vizsla.api.models.delete`."""
    return things.delete(server, "model", reference)
