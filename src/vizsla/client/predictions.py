"""The verbs on predictions of many pictures, on a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vizsla.client import follow, things
from vizsla.client.server import Server, parsed
from vizsla.errors import InvalidInput
from vizsla.events import Event, ignore_event
from vizsla.jobs.spec import JobSpec
from vizsla.jobs.waiting import OnInterrupt, to_stop
from vizsla.models.predictions import Prediction, Row, Rows
from vizsla.store.rows import Entry, Job


def submit(
    server: Server,
    model: str,
    source: Path,
    *,
    base: Path | None = None,
    within: Sequence[Path] | None = None,
    top: int = 5,
    name: str | None = None,
    job: JobSpec = JobSpec(),
) -> Job:
    """See `vizsla.api.predictions.submit`. Where the files of a list may lie, the server decides."""
    if within is not None:
        raise InvalidInput("A server has its own folders from which it reads.", where="within")
    id = things.find(server, model, "model").id
    body = {"source": str(source), "base": str(base) if base else None, "top": top, "name": name}
    return things.submit(server, "predictions", job=job, model=id, **body)


def finish(
    server: Server,
    job: Job,
    on_event: Callable[[Event], None] = ignore_event,
    on_interrupt: OnInterrupt = to_stop,
) -> Prediction:
    """See `vizsla.api.predictions.finish`."""
    follow.wait(server, job, on_event, on_interrupt)
    return get(server, job.thing)


def get(server: Server, reference: str) -> Prediction:
    """See `vizsla.api.predictions.get`."""
    return parsed(Prediction, server.get(*things.at(server, "prediction", reference)))


def rows(
    server: Server, reference: str, *, first: int = 0, limit: int = 50, label: str | None = None, rejected: bool = False
) -> Rows:
    """See `vizsla.api.predictions.rows`."""
    place = things.at(server, "prediction", reference, "rows")
    query: dict[str, Any] = {"class": label, "rejected": rejected}
    found = server.get(*place, after=first, limit=limit, **query)
    return Rows(parsed(list[Row], found["items"]), None if found["next"] is None else int(found["next"]))


def list_all(server: Server, *, limit: int | None = None, tags: Sequence[str] = ()) -> list[Prediction]:
    """See `vizsla.api.predictions.list_all`."""
    return [parsed(Prediction, item) for item in server.newest("predictions", limit=limit, tag=tags)]


def delete(server: Server, reference: str) -> Entry:
    """See `vizsla.api.predictions.delete`."""
    return things.delete(server, "prediction", reference)
