"""The verbs on runs, on a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from vizsla import events as lines
from vizsla.client import follow as following
from vizsla.client import jobs, things
from vizsla.client.server import Server, parsed
from vizsla.errors import Conflict, NotFound, from_dict
from vizsla.events import Event, Part, ignore_event
from vizsla.jobs.spec import JobSpec
from vizsla.jobs.waiting import OnInterrupt, to_stop
from vizsla.store.rows import Entry, Job
from vizsla.training.run import RunStatus
from vizsla.training.spec import TrainingSpec

POLL_S = 1.0


def submit(
    server: Server,
    dataset: str,
    spec: TrainingSpec | None = None,
    *,
    name: str | None = None,
    job: JobSpec = JobSpec(),
) -> Job:
    """See `vizsla.api.runs.submit`. Files that `spec` names are the server's."""
    id = things.find(server, dataset, "dataset").id
    return things.submit(server, "runs", job=job, dataset=id, spec=_json(spec), name=name)


def finish(
    server: Server,
    job: Job,
    on_event: Callable[[Event], None] = ignore_event,
    on_interrupt: OnInterrupt = to_stop,
) -> RunStatus:
    """See `vizsla.api.runs.finish`."""
    # What a run that goes on has told before is no news.
    after = jobs.some_events(server, job.id, "end").next if _has_begun(server, job.thing) else 0
    following.wait(server, job, on_event, on_interrupt, after=after)
    return get(server, job.thing)


def _has_begun(server: Server, id: str) -> bool:
    try:
        get(server, id)
    except (Conflict, NotFound):
        return False
    return True


def submit_resume(server: Server, reference: str, *, device: str | None = None, job: JobSpec = JobSpec()) -> Job:
    """See `vizsla.api.runs.submit_resume`."""
    return things.submit(server, *things.at(server, "run", reference, "resume"), job=job, device=device)


def submit_extend(
    server: Server, reference: str, epochs: int, *, device: str | None = None, job: JobSpec = JobSpec()
) -> Job:
    """See `vizsla.api.runs.submit_extend`."""
    return things.submit(server, *things.at(server, "run", reference, "extend"), job=job, epochs=epochs, device=device)


def submit_clone(
    server: Server,
    reference: str,
    spec: TrainingSpec | None = None,
    *,
    name: str | None = None,
    job: JobSpec = JobSpec(),
) -> Job:
    """See `vizsla.api.runs.submit_clone`."""
    return things.submit(server, *things.at(server, "run", reference, "clone"), job=job, spec=_json(spec), name=name)


def follow(server: Server, reference: str, on_event: Callable[[Event], None]) -> RunStatus:
    """See `vizsla.api.runs.follow`."""
    id = things.find(server, reference, "run").id
    job = next((job for job in jobs.live(server) if job.thing == id), None)
    if job is None:
        return _follow_alone(server, id, on_event)
    job = following.watch(server, job, on_event)
    try:
        return get(server, id)
    except NotFound:
        if job.error is None:
            raise
        raise from_dict(job.error) from None


def _follow_alone(server: Server, id: str, on_event: Callable[[Event], None]) -> RunStatus:
    """Of a run that is not in the queue: it has ended, or its job was lost with the database."""
    after = 0
    while True:
        status = get(server, id)  # before its events, so that none is missed
        told: list[Event] = []
        while (part := _some_events(server, id, after)).next != after:
            after = part.next
            told += part.events
        for event in lines.surviving(told):
            on_event(event)
        if status.progress.state != "running":
            return status
        time.sleep(POLL_S)


def get(server: Server, reference: str) -> RunStatus:
    """See `vizsla.api.runs.get`."""
    return parsed(RunStatus, server.get(*things.at(server, "run", reference)))


def list_all(server: Server, *, limit: int | None = None, tags: Sequence[str] = ()) -> list[RunStatus]:
    """See `vizsla.api.runs.list_all`."""
    return [parsed(RunStatus, item) for item in server.newest("runs", limit=limit, tag=tags)]


def events(server: Server, reference: str, after: int = 0) -> Part:
    """See `vizsla.api.runs.events`."""
    return _some_events(server, things.find(server, reference, "run").id, after)


def _some_events(server: Server, id: str, after: int) -> Part:
    page = server.get("runs", id, "events", after=after)
    return Part(page["items"], int(page["next"]))


def epochs(server: Server, reference: str) -> list[Event]:
    """See `vizsla.api.runs.epochs`."""
    found: list[Event] = server.get(*things.at(server, "run", reference, "epochs"))
    return found


def stop(server: Server, reference: str) -> Entry:
    """See `vizsla.api.runs.stop`."""
    return parsed(Entry, server.post(*things.at(server, "run", reference, "stop")))


def rename(server: Server, reference: str, name: str) -> RunStatus:
    """See `vizsla.api.runs.rename`."""
    return parsed(RunStatus, server.patch(*things.at(server, "run", reference), body={"name": name}))


def delete(server: Server, reference: str) -> Entry:
    """See `vizsla.api.runs.delete`."""
    return things.delete(server, "run", reference)


def _json(spec: TrainingSpec | None) -> object:
    return None if spec is None else spec.model_dump(mode="json")
