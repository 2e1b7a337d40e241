"""`/api/v1/runs`: training."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from vizsla import events, work
from vizsla.api import history, runs
from vizsla.errors import InvalidInput
from vizsla.training.run import State
from vizsla.training.spec import TrainingSpec
from vizsla.web.kept import Known
from vizsla.web.lists import Listing, page, parent_id
from vizsla.web.once import KEYED, Once
from vizsla.web.paths import allowed
from vizsla.web.schema import (
    CurvesAnswer,
    Device,
    EntryAnswer,
    JobAnswer,
    Name,
    NewName,
    Page,
    Queued,
    RunAnswer,
    SeriesName,
    Ws,
    exact,
    queued,
)
from vizsla.web.tags import tagged, unchanged
from vizsla.web.tails import LOG_ANSWERS, LogQuery, Thing, logged

router = APIRouter(prefix="/runs", tags=["runs"], route_class=Once)
PAGE_BYTES = 1_000_000
PLACE = "^[0-9]{1,15}$"


class NewRun(Queued):
    """A training to begin."""

    dataset: str = Field(description="id or name of a dataset, which may still be in the making", examples=["dogs"])
    spec: TrainingSpec = TrainingSpec()
    name: Name | None = None


class Resumed(Queued):
    """A training to go on with."""

    device: Device = None


class Extended(Resumed):
    """A training to make longer."""

    epochs: int = Field(ge=1, le=100_000)


class Cloned(Queued):
    """A training to begin anew."""

    spec: TrainingSpec | None = None
    name: Name | None = None


class Events(Page[dict[str, Any]]):
    """Some of what happened in a run."""


class RunListing(Listing):
    """Which runs are wanted."""

    state: State | None = Field(None, description="Only those in this state.")
    dataset: str | None = Field(None, description="Only those on the dataset of this id or name.")
    network: str | None = Field(None, description="Only those of this network.")


class HistoryQuery(BaseModel):
    """Which part of a run's curves is wanted."""

    model_config = ConfigDict(extra="forbid")

    points: int = Field(500, ge=history.MIN_POINTS, le=history.MAX_POINTS, description="Points of a curve at most.")
    since: str = Field("0", pattern=PLACE, description="The `next` of the answer before.")
    series: list[SeriesName] = Field([], description="The curves wanted; may be given more than once. Default: all.")


@router.get("", response_model=Page[RunAnswer])
def list_runs(ws: Ws, kept: Known, wanted: Annotated[RunListing, Query()]) -> Response:
    """The runs that have begun."""
    parents = [parent_id(ws, "dataset", wanted.dataset, "dataset")]
    return page(ws, kept, "run", wanted, parents=parents, state=wanted.state, network=wanted.network)


@router.post("", status_code=202, dependencies=KEYED)
def create_run(ws: Ws, body: NewRun, request: Request, response: Response) -> JobAnswer:
    """Put a training into the queue."""
    spec, dataset = _allowed(request, body.spec), exact(ws, body.dataset, "dataset")
    return queued(runs.submit(ws, dataset, spec, name=body.name, job=body.job), response)


@router.get("/{reference}", response_model=RunAnswer)
def get_run(ws: Ws, kept: Known, reference: str, request: Request) -> Response:
    """A run, and how far it has come."""
    return tagged(request, kept.require(ws, "run", exact(ws, reference, "run")).body)


@router.get("/{reference}/history", response_model=CurvesAnswer)
def get_history(ws: Ws, reference: str, wanted: Annotated[HistoryQuery, Query()]) -> Response:
    """The curves of a run, each of at most `points` points that show its shape (LTTB). With `since` only what has been
    added: where `undone_after` is not null, forget first the points of later steps that you have."""
    id = exact(ws, reference, "run")
    curves = history.get(ws, id, points=wanted.points, since=int(wanted.since), series=wanted.series)
    return Response(curves.json, media_type="application/json")


@router.get("/{reference}/log", responses=LOG_ANSWERS, response_class=Response)
async def get_run_log(ws: Ws, reference: str, request: Request, wanted: Annotated[LogQuery, Query()]) -> Response:
    """What the worker of a run printed, as lines of JSON."""
    return await logged(ws, lambda: Thing("run", exact(ws, reference, "run")), request, wanted)


@router.get("/{reference}/events")
def get_events(
    ws: Ws,
    reference: str,
    after: Annotated[str, Query(description="The `next` of the answer before.", pattern=PLACE)] = "0",
) -> Events:
    """What happened in a run since `after`, a megabyte at a time. There is always a `next`, also at the end of the
    events: what happens later is found from there."""
    path = ws.folder("run", exact(ws, reference, "run")) / work.EVENTS
    if not events.is_place(path, int(after)):
        raise InvalidInput("This is no place to go on from.", where="after", remedy="Begin without it.")
    lines, offset = events.read(path, int(after), at_least=PAGE_BYTES)
    return Events(items=lines, next=str(offset))


@router.post("/{reference}/stop", status_code=202)
def stop_run(ws: Ws, reference: str) -> EntryAnswer:
    """Ask a run to stop at a checkpoint, or take it out of the queue."""
    return EntryAnswer.model_validate(runs.stop(ws, exact(ws, reference, "run")))


@router.post("/{reference}/resume", status_code=202, dependencies=KEYED)
def resume_run(ws: Ws, reference: str, response: Response, body: Resumed | None = None) -> JobAnswer:
    """Go on with a run that was stopped, failed or lost, from its last checkpoint."""
    body = body or Resumed()
    return queued(runs.submit_resume(ws, exact(ws, reference, "run"), device=body.device, job=body.job), response)


@router.post("/{reference}/extend", status_code=202, dependencies=KEYED)
def extend_run(ws: Ws, reference: str, body: Extended, response: Response) -> JobAnswer:
    """Train a run that has ended for more epochs."""
    id = exact(ws, reference, "run")
    return queued(runs.submit_extend(ws, id, body.epochs, device=body.device, job=body.job), response)


@router.post("/{reference}/clone", status_code=202, dependencies=KEYED)
def clone_run(ws: Ws, reference: str, request: Request, response: Response, body: Cloned | None = None) -> JobAnswer:
    """Train anew on the dataset of a run, with its settings or others."""
    body = body or Cloned()
    spec = _allowed(request, body.spec) if body.spec is not None else None
    return queued(runs.submit_clone(ws, exact(ws, reference, "run"), spec, name=body.name, job=body.job), response)


@router.patch("/{reference}", response_model=RunAnswer)
def rename_run(ws: Ws, kept: Known, reference: str, body: NewName, request: Request) -> Response:
    """Give a run another name."""
    id = exact(ws, reference, "run")
    with unchanged(request, lambda: kept.require(ws, "run", id).body):
        runs.rename(ws, id, body.name)
    return tagged(request, kept.require(ws, "run", id).body)


@router.delete("/{reference}")
def delete_run(ws: Ws, kept: Known, reference: str, request: Request) -> EntryAnswer:
    """Delete a run with its checkpoints; refused while models or evaluations were made from it."""
    id = exact(ws, reference, "run")
    with unchanged(request, lambda: kept.require(ws, "run", id).body):
        return EntryAnswer.model_validate(runs.delete(ws, id))


def _allowed(request: Request, spec: TrainingSpec) -> TrainingSpec:
    """The settings, with the path of the weights as it was allowed; networks of users' own have folders of theirs."""
    if spec.weights == "auto":
        return spec
    return spec.model_copy(update={"weights": str(allowed(request, spec.weights, where="spec.weights"))})
