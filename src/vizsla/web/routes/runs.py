"""`/api/v1/runs`: training."""

from __future__ import annotations

import base64
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathPart
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from vizsla import files, work
from vizsla.api import datasets, history, models, runs, sweeps, trials
from vizsla.errors import Busy, NotFound, TooSlow
from vizsla.jobs.spec import WaitedSpec
from vizsla.models.predictions import Score
from vizsla.store.workspace import Workspace
from vizsla.training.rates import Rates
from vizsla.training.run import State, named_weights
from vizsla.training.spec import TrainingSpec
from vizsla.web import insight, pictures
from vizsla.web.etags import tagged, unchanged
from vizsla.web.kept import Known
from vizsla.web.lists import Listing, page, parent_id
from vizsla.web.once import KEYED, Once
from vizsla.web.paths import allowed
from vizsla.web.schema import (
    Body,
    Changed,
    CurvesAnswer,
    Device,
    EntryAnswer,
    Events,
    EventsAfter,
    JobAnswer,
    Name,
    NotesAnswer,
    Queued,
    RunAnswer,
    SeriesName,
    TagsAnswer,
    Things,
    Ws,
    exact,
    queued,
    read,
    some_events,
)
from vizsla.web.tails import LOG_ANSWERS, LogQuery, Thing, logged
from vizsla.web.written import changed, labelled, noted

router = APIRouter(prefix="/runs", tags=["runs"], route_class=Once)
PREVIEW_S, FIND_RATE_S = 180.0, 300
_finding = threading.Lock()
PLACE = "^[0-9]{1,15}$"
CHECKPOINT = "^(best|last|[0-9]{1,15})$"
PIECE_BYTES = 2**20


class NewRun(Queued):
    """A training to begin."""

    dataset: str = Field(description="id or name of a dataset, which may still be in the making", examples=["dogs"])
    spec: TrainingSpec = TrainingSpec()
    name: Name | None = None


class NewSweep(Queued):
    """Trainings to begin, one for each pair of a learning rate and a batch size."""

    dataset: str = Field(description="id or name of a dataset, which may still be in the making")
    spec: TrainingSpec = Field(TrainingSpec(), description="what they share")
    learning_rates: list[float] = Field([], max_length=sweeps.MAX_RUNS, examples=[[0.01, 0.001]])
    batch_sizes: list[int] = Field([], max_length=sweeps.MAX_RUNS, examples=[[16, 32]])
    name: Name | None = None


class Resumed(Queued):
    """A training to go on with."""

    device: Device = None


class Extended(Resumed):
    """A training to make longer."""

    epochs: int = Field(description="1 or more")


class Cloned(Queued):
    """A training to begin anew."""

    spec: TrainingSpec | None = None
    name: Name | None = None


class PreviewAsked(Body):
    """A training to look at before it begins."""

    dataset: str = Field(description="id or name of a dataset")
    spec: TrainingSpec = TrainingSpec()


class RateAsked(PreviewAsked):
    """A training of which the learning rate is looked for."""

    job: WaitedSpec = WaitedSpec()


class PreviewAnswer(BaseModel):
    """What a training would be."""

    summary: dict[str, Any]
    rates: list[tuple[float, float]] = Field(description="pairs of epochs done and the learning rate then")
    charts: dict[str, str] = Field(description="schedule and augmented: PNG in base64")


class CheckpointAnswer(BaseModel):
    """A checkpoint on the disk."""

    step: int
    is_best: bool
    is_last: bool
    num_bytes: int


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


@router.get("", response_model=Things[RunAnswer])
def list_runs(ws: Ws, kept: Known, wanted: Annotated[RunListing, Query()]) -> Response:
    """The runs that have begun."""
    parents = [parent_id(ws, "dataset", wanted.dataset, "dataset")]
    return page(ws, kept, "run", wanted, parents=parents, state=wanted.state, network=wanted.network)


@router.post("", status_code=202, dependencies=KEYED)
def create_run(ws: Ws, body: NewRun, request: Request, response: Response) -> JobAnswer:
    """Put a training into the queue."""
    spec, dataset = _allowed(ws, request, body.spec), exact(ws, body.dataset, "dataset")
    return queued(runs.submit(ws, dataset, spec, name=body.name, job=body.job), response)


@router.post("/preview")
def preview_run(ws: Ws, body: PreviewAsked, request: Request) -> PreviewAnswer:
    """What a training would be: steps, memory, learning rate, augmented pictures. Nothing is trained.

    Takes some seconds. When many ask at once, some are told to come again (503).
    """
    spec, dataset = _allowed(ws, request, body.spec), read(ws, "dataset", body.dataset, datasets.get).id
    cache = ws.root / "cache"
    cache.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="preview-") as name:
        found = trials.preview(ws, dataset, spec, out=Path(name), timeout_s=PREVIEW_S)
        made = found.pop("files")
        charts = {
            chart.removesuffix(".png"): base64.b64encode(Path(path).read_bytes()).decode()
            for chart, path in made.items()
            if chart.endswith(".png")
        }
        (schedule,) = (path for chart, path in made.items() if chart.endswith(".json"))
        rates = files.read_json(Path(schedule))["rates"]
    return PreviewAnswer(summary=found, rates=rates, charts=charts)


@router.post("/find-rate")
def find_rate(ws: Ws, body: RateAsked, request: Request) -> Rates:
    """The learning rate to begin with, by a short training in which it rises until the loss grows.

    It waits for its device as trainings do. One is looked for at a time, in five minutes with the waiting; else the
    answer is to come again (503).
    """
    spec, dataset = _allowed(ws, request, body.spec), read(ws, "dataset", body.dataset, datasets.get).id
    if not _finding.acquire(blocking=False):
        raise Busy("A learning rate is being looked for.", remedy="Ask again when it is found.")
    try:
        return trials.find_rate(ws, dataset, spec, job=body.job, timeout_s=FIND_RATE_S)
    except TooSlow as error:
        remedy = "Look for it with `vizsla run find-rate`, which takes its time."
        raise Busy(f"After {FIND_RATE_S} seconds: {error.what}", remedy=remedy) from error
    finally:
        _finding.release()


@router.get("/{reference}/checkpoints")
def list_checkpoints(ws: Ws, reference: str) -> list[CheckpointAnswer]:
    """The checkpoints that are kept, oldest first."""
    kept = runs.checkpoints(ws, read(ws, "run", reference, runs.get).run.id)
    best = kept[-1].best_step if kept else None
    return [
        CheckpointAnswer(step=one.step, is_best=one.step == best, is_last=one is kept[-1], num_bytes=one.num_bytes())
        for one in kept
    ]


@router.get("/{reference}/checkpoints/{checkpoint}/weights.safetensors", response_class=StreamingResponse)
def get_checkpoint_weights(
    ws: Ws, reference: str, checkpoint: Annotated[str, PathPart(description="best, last or a step", pattern=CHECKPOINT)]
) -> StreamingResponse:
    """The weights of a checkpoint as safetensors, with the names of the network's parameters."""
    id = exact(ws, reference, "run")
    path = runs.weights(ws, id, checkpoint)
    try:
        held = path.open("rb")  # so it can be read to its end when the training removes the checkpoint meanwhile
    except FileNotFoundError:
        raise NotFound("The checkpoint was removed at this moment.", remedy="Ask for best or last.") from None
    headers = {
        "Content-Disposition": f'attachment; filename="run-{id}-step-{int(path.parent.name)}.safetensors"',
        "Content-Length": str(os.fstat(held.fileno()).st_size),
    }
    return StreamingResponse(_pieces(held), media_type="application/octet-stream", headers=headers)


@router.post("/sweep", status_code=202, dependencies=KEYED)
def create_sweep(ws: Ws, body: NewSweep, request: Request) -> list[JobAnswer]:
    """Put a training for each pair of a learning rate and a batch size into the queue, or none when one is refused."""
    made = sweeps.submit(
        ws,
        exact(ws, body.dataset, "dataset"),
        _allowed(ws, request, body.spec),
        learning_rates=body.learning_rates,
        batch_sizes=body.batch_sizes,
        name=body.name,
        job=body.job,
    )
    return [JobAnswer.model_validate(job) for job in made]


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
    spec = _allowed(ws, request, body.spec) if body.spec is not None else None
    return queued(runs.submit_clone(ws, exact(ws, reference, "run"), spec, name=body.name, job=body.job), response)


@router.post("/{reference}/predict", openapi_extra={"requestBody": pictures.BODY})
async def predict(
    ws: Ws,
    reference: str,
    request: Request,
    *,
    top: pictures.Top = 5,
    thumbnails: pictures.Thumbnails = False,
    checkpoint: Annotated[str | None, Query(description="best, last or a step; the newest model by default.")] = None,
) -> pictures.Predicted:
    """Classify pictures with the newest model that was made of a run; 409 while there is none."""
    id = await run_in_threadpool(exact, ws, reference, "run")
    card = await run_in_threadpool(models.newest_of, ws, id, checkpoint)
    return await pictures.classify(request, ws, card, top, thumbnails)


CheckpointAsked = Annotated[str, Query(description="best, last or a step.", pattern=CHECKPOINT)]


@router.post("/{reference}/explain", openapi_extra={"requestBody": pictures.BODY})
async def explain(
    ws: Ws,
    reference: str,
    request: Request,
    *,
    label: Annotated[str | None, Query(alias="class", description="By default the one that it names.")] = None,
    checkpoint: CheckpointAsked = "best",
) -> insight.HeatAnswer:
    """Where a run's network looks for a class in one picture: Grad-CAM at its last convolutional maps.

    422 for networks without such maps. It computes on the processor, also while every card trains.
    """
    id = await run_in_threadpool(exact, ws, reference, "run")
    found = await insight.look(request, ws, id, checkpoint, do="heat", label=label)
    scores = [Score(label=label, probability=probability) for label, probability in found.pop("scores")]
    return insight.HeatAnswer(**found, scores=scores)


@router.post("/{reference}/layers", openapi_extra={"requestBody": pictures.BODY})
async def look_at_layers(
    ws: Ws,
    reference: str,
    request: Request,
    *,
    layer: Annotated[str | None, Query(max_length=300, description="Only this one, in pictures.")] = None,
    checkpoint: CheckpointAsked = "best",
) -> insight.LayersAnswer:
    """What each layer of a run's network makes of one picture; or one layer and its weights in pictures."""
    id = await run_in_threadpool(exact, ws, reference, "run")
    found = await insight.look(request, ws, id, checkpoint, do="layer" if layer else "layers", layer=layer)
    return insight.LayersAnswer(**({"layer": None, "layers": None} | found))


@router.patch("/{reference}", response_model=RunAnswer)
def change_run(ws: Ws, reference: str, body: Changed, request: Request) -> Response:
    """Give a run another name, other notes, or other tags."""
    return changed(request, ws, "run", reference, body)


@router.get("/{reference}/notes", response_model=NotesAnswer)
def get_notes(ws: Ws, reference: str, request: Request) -> Response:
    """What people have written about a run."""
    return noted(request, ws, "run", reference)


@router.get("/{reference}/tags", response_model=TagsAnswer)
def get_tags(ws: Ws, reference: str, request: Request) -> Response:
    """The tags of a run."""
    return labelled(request, ws, "run", reference)


@router.delete("/{reference}")
def delete_run(ws: Ws, kept: Known, reference: str, request: Request) -> EntryAnswer:
    """Delete a run with its checkpoints; refused while models, evaluations or runs were made from it."""
    id = exact(ws, reference, "run")
    with unchanged(request, lambda: kept.require(ws, "run", id).body):
        return EntryAnswer.model_validate(runs.delete(ws, id))


def _pieces(held: BinaryIO) -> Iterator[bytes]:
    with held:
        while piece := held.read(PIECE_BYTES):
            yield piece


def _allowed(ws: Workspace, request: Request, spec: TrainingSpec) -> TrainingSpec:
    """The settings, with the path of the weights as it was allowed; networks of users' own have folders of theirs."""
    if spec.weights == "auto":
        return spec
    if named := named_weights(spec.weights):
        weights = f"{named[0]}:{exact(ws, named[1], named[0])}"
    else:
        weights = str(allowed(request, spec.weights, where="spec.weights"))
    return spec.model_copy(update={"weights": weights})
