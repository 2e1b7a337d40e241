"""`/api/v1/predictions`: what a model sees in many pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from vizsla.api import predictions
from vizsla.models.predictions import MAX_TOP, Prediction, Row
from vizsla.web.paths import allowed
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

router = APIRouter(prefix="/predictions", tags=["predictions"])


class NewPrediction(Queued):
    """Pictures to classify."""

    model: str = Field(description="id or name of a model")
    source: Path = Field(description="a folder, searched to the bottom, or a text file with a path in each line")
    base: Path | None = Field(None, description="to which the paths of a list are relative; default: its own folder")
    top: int = Field(5, ge=1, le=MAX_TOP, description="how many classes to name for each picture")
    name: str | None = None


@router.get("")
def list_predictions(ws: Ws, limit: Limit = 50, after: After = None, order: Order = "newest") -> Page[Prediction]:
    """What came out of predictions."""
    return finished(ws, "prediction", predictions.get, limit=limit, after=after, order=order)


@router.post("", status_code=202)
def create_prediction(ws: Ws, body: NewPrediction, request: Request, response: Response) -> JobAnswer:
    """Put a prediction into the queue, of pictures that the server may read."""
    model = exact(ws, body.model, "model")
    source = allowed(request, body.source, where="source")
    base = allowed(request, body.base, where="base") if body.base is not None else None
    within = request.app.state.allowed
    return queued(
        predictions.submit(ws, model, source, base=base, within=within, top=body.top, name=body.name, job=body.job),
        response,
    )


@router.get("/{reference}")
def get_prediction(ws: Ws, reference: str) -> Prediction:
    """What came out of a prediction: how many pictures of each class, and what could not be looked at."""
    return read(ws, "prediction", reference, predictions.get)


@router.get("/{reference}/rows")
def get_rows(
    ws: Ws,
    reference: str,
    *,
    limit: Limit = 50,
    after: Annotated[str, Query(description="The `next` of the page before.", pattern="^[0-9]{1,9}$")] = "0",
    label: Annotated[str | None, Query(alias="class", description="Only of this class, the surest first.")] = None,
    rejected: Annotated[bool, Query(description="Only those that could not be looked at.")] = False,
) -> Page[Row]:
    """What the model sees in each picture, in the order of the folder or list."""
    id = read(ws, "prediction", reference, predictions.get).id
    found = predictions.rows(ws, id, first=int(after), limit=limit, label=label, rejected=rejected)
    return Page(items=found.items, next=None if found.next is None else str(found.next))


@router.delete("/{reference}")
def delete_prediction(ws: Ws, reference: str) -> EntryAnswer:
    """Delete a prediction; the pictures stay."""
    return EntryAnswer.model_validate(predictions.delete(ws, exact(ws, reference, "prediction")))
