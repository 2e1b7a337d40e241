"""`/api/v1/runs`: training."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from vizsla import work
from vizsla.api import runs
from vizsla.store.workspace import Workspace
from vizsla.training.run import State
from vizsla.training.spec import TrainingSpec
from vizsla.web.paths import allowed
from vizsla.web.schema import (
    After,
    EntryAnswer,
    Events,
    EventsAfter,
    JobAnswer,
    Limit,
    NewName,
    Order,
    Page,
    Queued,
    RunAnswer,
    Ws,
    exact,
    finished,
    queued,
    read,
    some_events,
)

router = APIRouter(prefix="/runs", tags=["runs"])


class NewRun(Queued):
    """A training to begin."""

    dataset: str = Field(description="id or name of a dataset, which may still be in the making")
    spec: TrainingSpec = TrainingSpec()
    name: str | None = None


class Resumed(Queued):
    """A training to go on with."""

    device: str | None = None


class Extended(Resumed):
    """A training to make longer."""

    epochs: int = Field(description="1 or more")


class Cloned(Queued):
    """A training to begin anew."""

    spec: TrainingSpec | None = None
    name: str | None = None


@router.get("")
def list_runs(
    ws: Ws,
    limit: Limit = 50,
    after: After = None,
    order: Order = "newest",
    state: Annotated[State | None, Query(description="Only those in this state.")] = None,
) -> Page[RunAnswer]:
    """The runs that have begun."""

    def begun(ws: Workspace, id: str) -> RunAnswer | None:
        found = RunAnswer.of(runs.get(ws, id))
        return found if state in (None, found.progress.state) else None

    return finished(ws, "run", begun, limit=limit, after=after, order=order)


@router.post("", status_code=202)
def create_run(ws: Ws, body: NewRun, request: Request, response: Response) -> JobAnswer:
    """Put a training into the queue."""
    spec, dataset = _allowed(request, body.spec), exact(ws, body.dataset, "dataset")
    return queued(runs.submit(ws, dataset, spec, name=body.name, job=body.job), response)


@router.get("/{reference}")
def get_run(ws: Ws, reference: str) -> RunAnswer:
    """A run, and how far it has come."""
    return RunAnswer.of(read(ws, "run", reference, runs.get))


@router.get("/{reference}/events")
def get_events(ws: Ws, reference: str, after: EventsAfter = "0") -> Events:
    """What happened in a run since `after`, a megabyte at a time. There is always a `next`, also at the end of the
    events: what happens later is found from there."""
    return some_events(ws.folder("run", exact(ws, reference, "run")) / work.EVENTS, after)


@router.get("/{reference}/epochs")
def get_epochs(ws: Ws, reference: str) -> list[dict[str, Any]]:
    """What each epoch of a run came to."""
    return runs.epochs(ws, exact(ws, reference, "run"))


@router.post("/{reference}/stop", status_code=202)
def stop_run(ws: Ws, reference: str) -> EntryAnswer:
    """Ask a run to stop at a checkpoint, or take it out of the queue."""
    return EntryAnswer.model_validate(runs.stop(ws, exact(ws, reference, "run")))


@router.post("/{reference}/resume", status_code=202)
def resume_run(ws: Ws, reference: str, response: Response, body: Resumed | None = None) -> JobAnswer:
    """Go on with a run that was stopped, failed or lost, from its last checkpoint."""
    body = body or Resumed()
    return queued(runs.submit_resume(ws, exact(ws, reference, "run"), device=body.device, job=body.job), response)


@router.post("/{reference}/extend", status_code=202)
def extend_run(ws: Ws, reference: str, body: Extended, response: Response) -> JobAnswer:
    """Train a run that has ended for more epochs."""
    id = exact(ws, reference, "run")
    return queued(runs.submit_extend(ws, id, body.epochs, device=body.device, job=body.job), response)


@router.post("/{reference}/clone", status_code=202)
def clone_run(ws: Ws, reference: str, request: Request, response: Response, body: Cloned | None = None) -> JobAnswer:
    """Train anew on the dataset of a run, with its settings or others."""
    body = body or Cloned()
    spec = _allowed(request, body.spec) if body.spec is not None else None
    return queued(runs.submit_clone(ws, exact(ws, reference, "run"), spec, name=body.name, job=body.job), response)


@router.patch("/{reference}")
def rename_run(ws: Ws, reference: str, body: NewName) -> RunAnswer:
    """Give a run another name."""
    return RunAnswer.of(runs.rename(ws, exact(ws, reference, "run"), body.name))


@router.delete("/{reference}")
def delete_run(ws: Ws, reference: str) -> EntryAnswer:
    """Delete a run with its checkpoints; refused while models or evaluations were made from it."""
    return EntryAnswer.model_validate(runs.delete(ws, exact(ws, reference, "run")))


def _allowed(request: Request, spec: TrainingSpec) -> TrainingSpec:
    """The settings, with the path of the weights as it was allowed; networks of users' own have folders of theirs."""
    if spec.weights == "auto":
        return spec
    return spec.model_copy(update={"weights": str(allowed(request, spec.weights, where="spec.weights"))})
