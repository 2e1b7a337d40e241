"""The verbs on the queue, on a server."""

from __future__ import annotations

from typing import Any

from vizsla.client.server import PATIENCE_S, Server, parsed
from vizsla.events import Part
from vizsla.machine.usage import Sample
from vizsla.store.rows import Change, Job, Shown

# The server tells of no more at once.
MAX_LISTED = 10_000


def list_all(server: Server, *, limit: int = 50) -> list[Job]:
    """See `vizsla.api.jobs.list_all`."""
    return parsed(list[Job], _queue(server, limit)["jobs"])


def live(server: Server) -> list[Job]:
    """See `vizsla.api.jobs.live`."""
    return list_all(server, limit=0)


def keeper_of(server: Server) -> int | None:
    """See `vizsla.api.jobs.keeper_of`."""
    keeper: int | None = _queue(server, 0)["keeper"]
    return keeper


def _queue(server: Server, limit: int) -> Any:
    return server.get("queue", limit=min(max(limit, 0), MAX_LISTED))


def get(server: Server, reference: str) -> Shown:
    """See `vizsla.api.jobs.get`."""
    return shown(server, _find(server, reference).id)


def usage(server: Server, reference: str) -> list[Sample]:
    """See `vizsla.api.jobs.usage`."""
    return parsed(list[Sample], server.get("jobs", _find(server, reference).id, "usage"))


def stop(server: Server, reference: str, *, at_once: bool = False) -> Job:
    """See `vizsla.api.jobs.stop`."""
    return ask_to_stop(server, _find(server, reference).id, at_once=at_once)


def leave(server: Server) -> None:
    """See `vizsla.api.jobs.leave`: a server looks after its queue."""


def _find(server: Server, reference: str) -> Job:
    return parsed(Job, server.get("find", "job", reference=reference))


def shown(server: Server, id: str, *, patience_s: float = PATIENCE_S) -> Shown:
    """The job of this id, as `get` shows it."""
    found = server.get("jobs", id, patience_s=patience_s)
    history = found.pop("history", None)
    return Shown(parsed(Job, found), parsed(list[Change], history))


def ask_to_stop(server: Server, id: str, *, at_once: bool = False) -> Job:
    """Stop the job of this id, as `stop` does."""
    return parsed(Job, server.post("jobs", id, "stop", body={"at_once": at_once}))


def some_events(server: Server, id: str, after: int | str, *, patience_s: float = PATIENCE_S) -> Part:
    """What happened in the job of this id after a place, or from the "end" on: some of it at a time."""
    page = server.get("jobs", id, "events", after=after, patience_s=patience_s)
    return Part(page["items"], int(page["next"]))
