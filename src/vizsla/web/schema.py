"""What the routes take and answer, where that is not a record of the folders themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from fastapi import Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from vizsla.api.runs import RunStatus
from vizsla.errors import InvalidInput
from vizsla.jobs.spec import JobSpec
from vizsla.store import jobs
from vizsla.store.queries import Entry
from vizsla.store.workspace import Workspace
from vizsla.training.run import Run

Item = TypeVar("Item")
Read = TypeVar("Read")


class Body(BaseModel):
    """What a request says; nothing else is taken."""

    model_config = ConfigDict(extra="forbid")


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
    kind: jobs.Kind
    name: str
    created_at: str


class JobAnswer(Answer):
    """A piece of work in the queue."""

    id: str
    kind: jobs.Kind = Field(description="of the thing that it works on")
    thing: str = Field(description="id of that thing")
    name: str
    owner: str
    priority: int
    need: dict[str, Any]
    retries: int
    created_at: str
    state: jobs.State
    changed_at: str
    cause: str
    attempt: int
    held: tuple[str, ...]
    stop_asked: bool
    failure: jobs.Failure | None
    error: dict[str, str] | None


class ChangeAnswer(Answer):
    """A state that a job came into."""

    state: jobs.State
    at: str
    attempt: int
    cause: str


class JobHistory(JobAnswer):
    """A job, with every state that it was in."""

    history: list[ChangeAnswer]


class ProgressAnswer(Answer):
    """How far a run has come; see `docs/formats.md` for the events."""

    state: Literal["running", "lost", "done", "stopped", "failed"]
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


class NewName(Body):
    """Another name for a thing."""

    name: str


class Queued(Body):
    """How work goes through the queue."""

    job: JobSpec = JobSpec()


def workspace(request: Request) -> Workspace:
    """The workspace that the server runs on."""
    found: Workspace = request.app.state.workspace
    return found


Ws = Annotated[Workspace, Depends(workspace)]
Limit = Annotated[int, Query(ge=1, le=1000, description="Things to answer at most.")]
After = Annotated[str | None, Query(description="The `next` of the page before.")]
Order = Annotated[Literal["oldest", "newest"], Query(description="What comes first.")]


def page(
    entries: Sequence[Entry],
    read: Callable[[Entry], Read | None],
    *,
    limit: int,
    after: str | None,
    order: Literal["oldest", "newest"],
) -> tuple[list[Read], str | None]:
    """Some of the things of a kind, reading only those: the next ones after the id `after` that `read` gives.

    Args:
        entries: oldest first.
        read: None for one that is to be left out.

    Raises:
        InvalidInput: there is nothing of the id `after`.
    """
    ordered = list(entries) if order == "oldest" else list(reversed(entries))
    if after is not None:
        places = {entry.id: place for place, entry in enumerate(ordered)}
        if after not in places:
            raise InvalidInput(f"There is no {after!r} to go on after.", where="after", remedy="Begin without it.")
        ordered = ordered[places[after] + 1 :]
    found: list[Read] = []
    last = None
    for entry in ordered:
        if len(found) == limit:
            return found, last
        item = read(entry)
        last = entry.id
        if item is not None:
            found.append(item)
    return found, None
