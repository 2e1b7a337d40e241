"""What the routes take and answer, where that is not a record of the folders themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from fastapi import Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vizsla import events
from vizsla.api.runs import PART_BYTES
from vizsla.errors import InvalidInput, VizslaError
from vizsla.jobs.spec import JobSpec
from vizsla.store import rows
from vizsla.store.rows import Entry
from vizsla.store.workspace import Workspace
from vizsla.training.run import Run, RunStatus, State
from vizsla.web import auth

Item = TypeVar("Item")
Read = TypeVar("Read")


class Body(BaseModel):
    """What a request says; nothing else is taken."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _can_be_written(cls, values: Any) -> Any:
        try:
            json.dumps(values, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            raise ValueError("a text holds half of a character (a lone surrogate)") from None
        return values


class Answer(BaseModel):
    """What is answered, made of an object with these attributes."""

    model_config = ConfigDict(from_attributes=True)


class Page(BaseModel, Generic[Item]):
    """Some of a list."""

    items: list[Item]
    next: str | None = Field(description="give it as `after` to get what follows; null: there is no more")


class EntryAnswer(Answer):
    """A thing that has a name."""

    id: str
    kind: rows.Kind
    name: str
    created_at: str
    owner: str


class JobAnswer(Answer):
    """A piece of work in the queue."""

    id: str
    kind: rows.Kind = Field(description="of the thing that it works on")
    thing: str = Field(description="id of that thing")
    name: str
    owner: str
    priority: int
    need: dict[str, Any]
    retries: int
    created_at: str
    state: rows.State
    changed_at: str
    cause: str
    attempt: int
    held: tuple[str, ...]
    stop_asked: bool
    failure: rows.Failure | None
    error: dict[str, str] | None


class ChangeAnswer(Answer):
    """A state that a job came into."""

    state: rows.State
    at: str
    attempt: int
    cause: str


class JobHistory(JobAnswer):
    """A job, with every state that it was in."""

    history: list[ChangeAnswer]


class ProgressAnswer(Answer):
    """How far a run has come; see `docs/formats.md` for the events."""

    state: State
    last_epoch: dict[str, Any] | None
    best: dict[str, Any] | None
    error: dict[str, str] | None
    worker: int | None
    elapsed_s: float


class RunAnswer(Answer):
    """A run, and how far it has come."""

    run: Run
    progress: ProgressAnswer
    folder: str

    @classmethod
    def of(cls, status: RunStatus) -> Self:
        """The same as an answer."""
        progress = ProgressAnswer.model_validate(status.progress)
        return cls(run=status.run, progress=progress, folder=str(status.folder))


class Events(Page[dict[str, Any]]):
    """Some of what happened."""


class NewName(Body):
    """Another name for a thing."""

    name: str


class Queued(Body):
    """How work goes through the queue."""

    job: JobSpec = JobSpec()


Ws = Annotated[Workspace, Depends(auth.workspace)]
# Each is read from its folder.
LOOKED_AT = 500
Limit = Annotated[int, Query(ge=1, le=200, description="Things to answer at most.")]
After = Annotated[str | None, Query(max_length=100, description="The `next` of the page before.")]
Order = Annotated[Literal["oldest", "newest"], Query(description="What comes first.")]


def finished(
    ws: Workspace,
    kind: rows.Kind,
    get: Callable[[Workspace, str], Read | None],
    *,
    limit: int,
    after: str | None,
    order: Literal["oldest", "newest"],
) -> Page[Read]:
    """Some of the finished things of a kind: those that `get` gives after the place `after`.

    Looks at no more than `LOOKED_AT` things, so a page may hold few, or none, and there is more nevertheless.

    Args:
        get: from an id; None for one that is to be left out.

    Raises:
        InvalidInput: `after` is not a place.
    """
    place = place_of(after)
    newest = order == "newest"
    ordered = sorted(ws.store.all(kind), key=_key, reverse=newest)
    if place is not None:
        ordered = [entry for entry in ordered if (_key(entry) < place if newest else _key(entry) > place)]
    found: list[Read] = []
    for number, entry in enumerate(ordered, 1):
        try:
            item = get(ws, entry.id) if ws.is_finished(kind, entry.id) else None
        except VizslaError:  # damaged, or deleted at this moment
            item = None
        if item is not None:
            found.append(item)
        if number < len(ordered) and (len(found) == limit or number == LOOKED_AT):
            return Page(items=found, next=cursor(_key(entry)))
    return Page(items=found, next=None)


def _key(entry: Entry) -> tuple[str, str]:
    return entry.created_at, entry.id


def cursor(place: tuple[str, str]) -> str:
    """A place in a list, by the time and the id of the last thing before it, as the `next` of an answer."""
    return ",".join(place)


def place_of(after: str | None) -> tuple[str, str] | None:
    """The inverse of `cursor`.

    Raises:
        InvalidInput: this is no place.
    """
    if after is None:
        return None
    at, comma, id = after.partition(",")
    if not comma:
        raise InvalidInput("This is no place to go on from.", where="after", remedy="Begin without it.")
    return at, id


def queued(job: rows.Job, response: Response) -> JobAnswer:
    """The answer to a request whose work is in the queue now, which says where to ask how it goes."""
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return JobAnswer.model_validate(job)


EventsAfter = Annotated[
    str,
    Query(description="The `next` of the answer before; `end`: only what is to come.", pattern="^([0-9]{1,15}|end)$"),
]


def some_events(path: Path, after: str) -> Events:
    """Some events of a log, a megabyte at a time."""
    if after == "end":
        return Events(items=[], next=str(events.end(path)))
    found = events.part(path, int(after), at_least=PART_BYTES)
    return Events(items=found.events, next=str(found.next))


def exact(ws: Workspace, reference: str, *kinds: rows.Kind) -> str:
    """The id of the thing of this id or name. The beginning of one, as at the command line, may soon mean another."""
    return ws.store.exact(reference, *kinds).id


def read(ws: Workspace, kind: rows.Kind, reference: str, get: Callable[[Workspace, str], Read]) -> Read:
    """A finished thing.

    Raises:
        NotFound: there is none.
        Conflict: it is still in the making.
        Damaged: its files cannot be read.
    """
    entry = ws.store.exact(reference, kind)
    try:
        return get(ws, entry.id)
    except InvalidInput as error:
        ws.store.exact(entry.id, kind)  # deleted at this moment: then it is not found
        raise Damaged(f"The {kind} {entry.name!r} cannot be read: {error.what}") from error


class Damaged(VizslaError):
    """Files of the workspace that cannot be read."""

    kind = "damaged"
