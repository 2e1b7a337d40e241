"""`/api/v1/evaluations`: how good a run or a model is, and how sure that is."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from vizsla.api import evaluations
from vizsla.evaluation.report import Report
from vizsla.web.schema import (
    STRICT,
    After,
    EntryAnswer,
    JobAnswer,
    Limit,
    Order,
    Page,
    Queued,
    RowAfter,
    Ws,
    exact,
    finished,
    queued,
    read,
)

router = APIRouter(prefix="/evaluations", tags=["evaluations"])


class NewEvaluation(Queued):
    """A run or a model to evaluate."""

    subject: str = Field(description="id or name of a run or a model")
    split: Literal["train", "val", "test"] = "test"
    checkpoint: str = Field("best", description="of a run: best, last or a step")
    name: str | None = None


@router.get("")
def list_evaluations(ws: Ws, limit: Limit = 50, after: After = None, order: Order = "newest") -> Page[Report]:
    """The reports of evaluations."""
    return finished(ws, "evaluation", evaluations.get, limit=limit, after=after, order=order)


@router.post("", status_code=202)
def create_evaluation(ws: Ws, body: NewEvaluation, response: Response) -> JobAnswer:
    """Put an evaluation into the queue."""
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


class PredictionAnswer(BaseModel):
    """What was answered for a picture; `index` is its number in the dataset."""

    index: int
    path: str
    label: str
    predicted: str
    probability: float
    top_labels: list[str]
    top_probabilities: list[float]


@router.get("/{reference}/predictions")
def list_predictions(
    ws: Ws,
    reference: str,
    *,
    label: Annotated[str | None, Query(alias="class", description="Only those of this class.")] = None,
    predicted: Annotated[str | None, Query(description="Only those that were taken for this class.")] = None,
    wrong: Annotated[bool, Query(description="Only those that were taken for another class.")] = False,
    limit: Limit = 50,
    after: RowAfter = "0",
) -> Page[PredictionAnswer]:
    """What was answered for each picture."""
    id = read(ws, "evaluation", reference, evaluations.get).id
    found = evaluations.predictions(
        ws, id, label=label, predicted=predicted, wrong=wrong, after=int(after), limit=limit
    )
    items = [PredictionAnswer.model_validate(row) for row in found.rows]
    return Page(items=items, next=None if found.next is None else str(found.next))


@router.get("/{reference}/report.html", response_class=HTMLResponse)
def get_page(ws: Ws, reference: str) -> HTMLResponse:
    """The report for people."""
    id = read(ws, "evaluation", reference, evaluations.get).id
    return HTMLResponse(evaluations.page(ws, id), headers=STRICT)


@router.get("/{reference}")
def get_evaluation(ws: Ws, reference: str) -> Report:
    """The report of an evaluation."""
    return read(ws, "evaluation", reference, evaluations.get)


@router.delete("/{reference}")
def delete_evaluation(ws: Ws, reference: str) -> EntryAnswer:
    """Delete an evaluation."""
    return EntryAnswer.model_validate(evaluations.delete(ws, exact(ws, reference, "evaluation")))
