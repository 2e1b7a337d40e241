"""The verbs on services, on a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vizsla.client import jobs, things
from vizsla.client.server import Server, parsed
from vizsla.errors import InvalidInput, from_dict
from vizsla.events import Event, ignore_event
from vizsla.jobs.spec import ServiceJobSpec
from vizsla.jobs.waiting import until_running
from vizsla.serving.capture import Captured
from vizsla.serving.hosting import Hosted, HostingSpec
from vizsla.store.rows import Entry, Job

POLL_S, READY_S = 0.5, 600.0


def submit(
    server: Server, wanted: HostingSpec, *, name: str | None = None, job: ServiceJobSpec = ServiceJobSpec()
) -> Job:
    """See `vizsla.api.services.submit`. Certificates lie on the server, which takes none from elsewhere."""
    if wanted.tls_cert or wanted.tls_key:
        raise InvalidInput("A service of a server takes no certificate from elsewhere.", where="tls_cert")
    body = wanted.model_dump(mode="json", exclude={"tls_cert", "tls_key"})
    return things.submit(server, "services", job=job, name=name, **body)


def submit_resume(server: Server, reference: str, *, job: ServiceJobSpec = ServiceJobSpec()) -> Job:
    """See `vizsla.api.services.submit_resume`."""
    return things.submit(server, *things.at(server, "service", reference, "resume"), job=job)


def ready(server: Server, job: Job, on_event: Callable[[Event], None] = ignore_event) -> Hosted:
    """See `vizsla.api.services.ready`."""
    until_running(lambda: jobs.get(server, job.id).job, on_event, pause_s=POLL_S, patience_s=READY_S)
    found = get(server, job.thing)
    if found.error is not None:
        raise from_dict(found.error)
    return found


def update(server: Server, reference: str, models: Sequence[str], *, share: float | None = None) -> Hosted:
    """See `vizsla.api.services.update`."""
    place = things.at(server, "service", reference, "models")
    return parsed(Hosted, server.post(*place, body={"models": list(models), "share": share}))


def get(server: Server, reference: str) -> Hosted:
    """See `vizsla.api.services.get`."""
    return parsed(Hosted, server.get(*things.at(server, "service", reference)))


def captured(server: Server, reference: str) -> Captured:
    """See `vizsla.api.services.captured`."""
    return parsed(Captured, server.get(*things.at(server, "service", reference, "captured")))


def list_all(server: Server, *, limit: int | None = None, tags: Sequence[str] = ()) -> list[Hosted]:
    """See `vizsla.api.services.list_all`."""
    return [parsed(Hosted, item) for item in server.newest("services", limit=limit, tag=tags)]


def delete(server: Server, reference: str, *, with_pictures: bool = False) -> Entry:
    """See `vizsla.api.services.delete`."""
    return things.delete(server, "service", reference, with_pictures=with_pictures or None)
