"""`/api/v1/evaluations`: how good a run or a model is, and how sure that is."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from pydantic import BaseModel, Field

from vizsla.api import evaluations
from vizsla.evaluation.report import Report
from vizsla.web.etags import tagged, unchanged
from vizsla.web.kept import Known
from vizsla.web.lists import Listing, page, parent_id
from vizsla.web.once import KEYED, Once
from vizsla.web.schema import (
    STRICT,
    Changed,
    Checkpoint,
    EntryAnswer,
    JobAnswer,
    Limit,
    Name,
    NotesAnswer,
    Page,
    Queued,
    RowAfter,
    TagsAnswer,
    Things,
    Ws,
    exact,
    queued,
    read,
)
from vizsla.web.written import changed, labelled, noted

router = APIRouter(prefix="/evaluations", tags=["evaluations"], route_class=Once)


class NewEvaluation(Queued):
    """A run or a model to evaluate."""

    subject: str = Field(description="id or name of a run or a model", examples=["dogs-1"])
    split: str = Field("test", max_length=100, json_schema_extra={"enum": ["train", "val", "test"]})
    checkpoint: Checkpoint = "best"
    name: Name | None = None


class EvaluationListing(Listing):
    """Which evaluations are wanted."""

    subject: str | None = Field(None, description="Only of the run or model of this id or name.")
    dataset: str | None = Field(None, description="Only on the dataset of this id or name.")
    split: Literal["train", "val", "test"] | None = Field(None, description="Only on this split.")


@router.get("", response_model=Things[Report])
def list_evaluations(ws: Ws, kept: Known, wanted: Annotated[EvaluationListing, Query()]) -> Response:
    """The reports of evaluations."""
    parents = [
        parent_id(ws, "subject", wanted.subject, "run", "model"),
        parent_id(ws, "dataset", wanted.dataset, "dataset"),
    ]
    return page(ws, kept, "evaluation", wanted, parents=parents, split=wanted.split)


@router.post("", status_code=202, dependencies=KEYED)
def create_evaluation(ws: Ws, body: NewEvaluation, response: Response) -> JobAnswer:
    """Put an evaluation into the queue. One of a run that waits or trains waits for the end of that."""
    return queued(
        evaluations.submit(
            ws,
            exact(ws, body.subject, "run", "model"),
            split=body.split,
            checkpoint=body.checkpoint,
            name=body.name,
            job=body.job,
        ),
        response,
    )


class JudgedAnswer(BaseModel):
    """What was answered for a picture; `index` is its number in the dataset."""

    index: int
    path: str
    label: str
    predicted: str
    probability: float
    top_labels: list[str]
    top_probabilities: list[float]


Class = Annotated[str | None, Query(alias="class", description="Only those of this class.")]
TakenFor = Annotated[str | None, Query(description="Only those that were taken for this class.")]
Wrong = Annotated[bool, Query(description="Only those that were taken for another class.")]
Surest = Annotated[bool, Query(description="The most probable answers first.")]


@router.get("/{reference}/predictions")
def list_predictions(
    ws: Ws,
    reference: str,
    *,
    label: Class = None,
    predicted: TakenFor = None,
    wrong: Wrong = False,
    surest: Surest = False,
    limit: Limit = 50,
    after: RowAfter = "0",
) -> Page[JudgedAnswer]:
    """What was answered for each picture."""
    id = read(ws, "evaluation", reference, evaluations.get).id
    found = evaluations.predictions(
        ws, id, label=label, predicted=predicted, wrong=wrong, surest=surest, after=int(after), limit=limit
    )
    items = [JudgedAnswer.model_validate(row) for row in found.rows]
    return Page(items=items, next=None if found.next is None else str(found.next))


class PlaceAnswer(JudgedAnswer):
    """What was answered for a picture, and where it stands among those that fit."""

    before: int | None = Field(description="index of the picture before it")
    after: int | None = Field(description="index of the picture after it")
    number: int = Field(description="its place, from 1 on")
    num_pictures: int = Field(description="that fit")


@router.get("/{reference}/predictions/{index}")
def get_prediction(
    ws: Ws,
    reference: str,
    index: Annotated[int, Path(ge=0, le=2**53, description="The picture's number in the dataset.")],
    *,
    label: Class = None,
    predicted: TakenFor = None,
    wrong: Wrong = False,
    surest: Surest = False,
) -> PlaceAnswer:
    """What was answered for one picture, and the pictures beside it."""
    id = read(ws, "evaluation", reference, evaluations.get).id
    found = evaluations.place(ws, id, index, label=label, predicted=predicted, wrong=wrong, surest=surest)
    beside = {name: getattr(found, name) for name in ("before", "after", "number", "num_pictures")}
    return PlaceAnswer.model_validate(found.row | beside)


class TopAnswer(BaseModel):
    """The pictures that were most surely taken for a class, right or wrong."""

    label: str
    num_pictures: int = Field(description="that were taken for it")
    pictures: list[JudgedAnswer]


@router.get("/{reference}/top")
def list_top(
    ws: Ws,
    reference: str,
    *,
    num: Annotated[int, Query(ge=1, le=50, description="Pictures of a class at most.")] = 9,
    limit: Annotated[int, Query(ge=1, le=50, description="Classes to answer at most.")] = 20,
    after: RowAfter = "0",
) -> Page[TopAnswer]:
    """For each class the pictures that were most surely taken for it, the surest first."""
    report = read(ws, "evaluation", reference, evaluations.get)
    found = evaluations.tops(ws, report.id, first=int(after), limit=limit, num=num)
    items = [
        TopAnswer(
            label=one.label,
            num_pictures=one.num_pictures,
            pictures=[JudgedAnswer.model_validate(row) for row in one.rows],
        )
        for one in found
    ]
    following = int(after) + limit
    return Page(items=items, next=str(following) if following < len(report.labels) else None)


@router.get("/{reference}/predictions.parquet", response_class=FileResponse)
def get_predictions_file(ws: Ws, reference: str) -> FileResponse:
    """What was answered for each picture, with the probability of every class where there are 100 at most."""
    id = read(ws, "evaluation", reference, evaluations.get).id
    path = evaluations.predictions_path(ws, id)
    return FileResponse(path, media_type="application/vnd.apache.parquet", filename=f"evaluation-{id}.parquet")


@router.get("/{reference}/report.html", response_class=HTMLResponse)
def get_page(ws: Ws, reference: str) -> HTMLResponse:
    """The report for people."""
    id = read(ws, "evaluation", reference, evaluations.get).id
    return HTMLResponse(evaluations.page(ws, id), headers=STRICT)


@router.get("/{reference}", response_model=Report)
def get_evaluation(ws: Ws, kept: Known, reference: str, request: Request) -> Response:
    """The report of an evaluation."""
    return tagged(request, kept.require(ws, "evaluation", exact(ws, reference, "evaluation")).body)


@router.patch("/{reference}", response_model=Report)
def change_evaluation(ws: Ws, reference: str, body: Changed, request: Request) -> Response:
    """Give an evaluation another name, other notes, or other tags."""
    return changed(request, ws, "evaluation", reference, body)


@router.get("/{reference}/notes", response_model=NotesAnswer)
def get_notes(ws: Ws, reference: str, request: Request) -> Response:
    """What people have written about an evaluation."""
    return noted(request, ws, "evaluation", reference)


@router.get("/{reference}/tags", response_model=TagsAnswer)
def get_tags(ws: Ws, reference: str, request: Request) -> Response:
    """The tags of an evaluation."""
    return labelled(request, ws, "evaluation", reference)


@router.delete("/{reference}")
def delete_evaluation(ws: Ws, kept: Known, reference: str, request: Request) -> EntryAnswer:
    """Delete an evaluation."""
    id = exact(ws, reference, "evaluation")
    with unchanged(request, lambda: kept.require(ws, "evaluation", id).body):
        return EntryAnswer.model_validate(evaluations.delete(ws, id))
