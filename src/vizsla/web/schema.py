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
from vizsla.api.workspace import require_finished
from vizsla.errors import InvalidInput, VizslaError
from vizsla.jobs.spec import JobSpec
from vizsla.store import rows
from vizsla.store.queries import MAX_NAME
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


class Things(Page[Item], Generic[Item]):
    """Some of a list of things."""

    tags: dict[str, list[str]] = Field(description="of those of them that have any, by their ids")


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


SeriesName = Literal[
    "loss",
    "learning_rate",
    "pictures_per_s",
    "data_wait",
    "memory_mb",
    "device_use",
    "device_memory_mb",
    "device_temperature_c",
    "device_power_w",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "val_balanced_accuracy",
]


class SeriesAnswer(Answer):
    """A curve: as many steps as values."""

    name: SeriesName
    step: list[int]
    epoch: list[float | None]
    elapsed_s: list[float | None] = Field(description="time spent training, without pauses")
    value: list[float]
    num_points: int = Field(description="before some of them were chosen")


class CurvesAnswer(Answer):
    """The curves of a run, as far as it has come."""

    series: list[SeriesAnswer]
    next: str = Field(description="give it as `since` to get what is added later")
    undone_after: int | None = Field(description="points of later steps that were told before are undone")


# What these may be is said in the description; the verbs refuse the rest, in the words that they have everywhere.
Name = Annotated[
    str,
    Field(
        description="1 to 100 printable characters without a slash, and without a dash or a space at the beginning",
        examples=["dogs-2"],
        json_schema_extra={
            "minLength": 1,
            "maxLength": MAX_NAME,
            "pattern": r"^[^\s\x00-\x1f\x7f/\\-]([^\x00-\x1f\x7f/\\]*[^\s\x00-\x1f\x7f/\\])?$",
        },
    ),
]
Checkpoint = Annotated[
    str,
    Field(
        description="best, last or a step",
        examples=["best"],
        json_schema_extra={"pattern": "^(best|last|[0-9]{1,15})$"},
    ),
]
Device = Annotated[
    str | None,
    Field(
        description="auto, cpu, cuda, cuda:N or cuda:N,M; null: as before",
        examples=["cuda:0"],
        json_schema_extra={"pattern": r"^(auto|cpu|cuda(:[0-9]{1,4}(,[0-9]{1,4}){0,255})?)$"},
    ),
]


class Events(Page[dict[str, Any]]):
    """Some of what happened."""


class Changed(Body):
    """What is to be changed of a thing; the rest stays."""

    name: Name | None = None
    notes: str | None = Field(
        None,
        description="what people write about it; an empty text removes them",
        examples=["Taken with the second camera."],
    )
    tags: list[str] | None = Field(
        None,
        description="short labels to find it by, in place of those that it has: 20 at most, of 1 to 40 printable"
        " characters, without a comma, and without a dash at the beginning",
        examples=[["baseline", "v2"]],
    )


class NotesAnswer(Answer):
    """What people have written about a thing."""

    notes: str = Field(examples=["Taken with the second camera.\n"])


class TagsAnswer(Answer):
    """The tags of a thing, sorted."""

    tags: list[str] = Field(examples=[["baseline", "v2"]])


class Queued(Body):
    """How work goes through the queue."""

    job: JobSpec = JobSpec()


Ws = Annotated[Workspace, Depends(auth.workspace)]
Limit = Annotated[int, Query(ge=1, le=200, description="Things to answer at most.")]
RowAfter = Annotated[str, Query(description="The `next` of the page before.", pattern="^[0-9]{1,15}$")]


PNG: dict[int | str, dict[str, Any]] = {200: {"description": "A picture.", "content": {"image/png": {}}}}
STRICT = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"}
"""for pages with names out of files in them: nothing runs, and nothing is fetched"""


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
    require_finished(ws, entry)
    try:
        return get(ws, entry.id)
    except InvalidInput as error:
        ws.store.exact(entry.id, kind)  # deleted at this moment: then it is not found
        raise Damaged(f"The {kind} {entry.name!r} cannot be read: {error.what}") from error


class Damaged(VizslaError):
    """Files of the workspace that cannot be read."""

    kind = "damaged"
