"""The verbs on datasets, on a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vizsla.client import follow, things
from vizsla.client.server import Server, parsed
from vizsla.datasets.dataset import Dataset
from vizsla.datasets.plan import Plan
from vizsla.datasets.spec import DatasetSpec
from vizsla.errors import InvalidInput
from vizsla.events import Event, ignore_event
from vizsla.jobs.spec import JobSpec
from vizsla.jobs.waiting import OnInterrupt, to_stop
from vizsla.store.rows import Entry, Job


def submit(
    server: Server, name: str, spec: DatasetSpec, *, job: JobSpec = JobSpec(), allowed: Sequence[Path] | None = None
) -> Job:
    """See `vizsla.api.datasets.submit`. The folders of `spec` are the server's, which decides what it may read."""
    if allowed is not None:
        raise InvalidInput("A server has its own folders from which it reads.", where="allowed")
    return things.submit(server, "datasets", job=job, name=name, spec=spec.model_dump(mode="json"))


def finish(
    server: Server,
    job: Job,
    on_event: Callable[[Event], None] = ignore_event,
    on_interrupt: OnInterrupt = to_stop,
) -> Dataset:
    """See `vizsla.api.datasets.finish`."""
    follow.wait(server, job, on_event, on_interrupt)
    return get(server, job.thing)


def scan(server: Server, spec: DatasetSpec, *, allowed: Sequence[Path] | None = None) -> Plan:
    """See `vizsla.api.datasets.scan`."""
    if allowed is not None:
        raise InvalidInput("A server has its own folders from which it reads.", where="allowed")
    return parsed(Plan, server.post("datasets", "scan", body={"spec": spec.model_dump(mode="json")}))


def get(server: Server, reference: str) -> Dataset:
    """See `vizsla.api.datasets.get`."""
    return parsed(Dataset, server.get(*things.at(server, "dataset", reference)))


def list_all(server: Server, *, limit: int | None = None, tags: Sequence[str] = ()) -> list[Dataset]:
    """See `vizsla.api.datasets.list_all`."""
    return [parsed(Dataset, item) for item in server.newest("datasets", limit=limit, tag=tags)]


def delete(server: Server, reference: str) -> Entry:
    """See `vizsla.api.datasets.delete`."""
    return things.delete(server, "dataset", reference)
