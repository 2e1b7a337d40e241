"""`/api/v1/evaluations`: how good a run or a model is, and how sure that is."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import Field

from vizsla.api import evaluations
from vizsla.evaluation.report import Report
from vizsla.web.schema import (
    After,
    EntryAnswer,
    JobAnswer,
    Limit,
    Order,
    Page,
    Queued,
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
    split: str = Field("test", max_length=100, json_schema_extra={"enum": ["train", "val", "test"]})
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


@router.get("/{reference}")
def get_evaluation(ws: Ws, reference: str) -> Report:
    """The report of an evaluation."""
    return read(ws, "evaluation", reference, evaluations.get)


@router.delete("/{reference}")
def delete_evaluation(ws: Ws, reference: str) -> EntryAnswer:
    """Delete an evaluation."""
    return EntryAnswer.model_validate(evaluations.delete(ws, exact(ws, reference, "evaluation")))
