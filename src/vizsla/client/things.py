"""Finding things on a server, by what people call them."""

from __future__ import annotations

from typing import Any

from vizsla.client.server import Server, parsed
from vizsla.jobs.spec import JobSpec
from vizsla.store.rows import Entry, Job, Kind


def find(server: Server, reference: str, *kinds: Kind) -> Entry:
    """See `vizsla.api.things.find`."""
    return parsed(Entry, server.get("find", reference=reference, kind=kinds))


def rename(server: Server, kind: Kind, reference: str, name: str) -> Entry:
    """See `vizsla.api.things.rename`."""
    entry = find(server, reference, kind)
    server.patch(f"{kind}s", entry.id, body={"name": name})
    return entry._replace(name=name)


def at(server: Server, kind: Kind, reference: str, *rest: str) -> tuple[str, ...]:
    """The path of a thing, or of something below it, by its id."""
    return (f"{kind}s", find(server, reference, kind).id, *rest)


def delete(server: Server, kind: Kind, reference: str, **query: Any) -> Entry:
    """Delete a thing of any kind."""
    return parsed(Entry, server.delete(*at(server, kind, reference), **query))


def submit(server: Server, *path: str, job: JobSpec, **body: Any) -> Job:
    """Put work into the queue by a request to `path`; what is None in its body is left to the server."""
    given = {name: value for name, value in body.items() if value is not None}
    return parsed(Job, server.post(*path, body={**given, "job": job.model_dump(mode="json")}, keyed=True))
