"""`/api/v1/models`: folders with weights, a checked graph and a card."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from vizsla.api import models
from vizsla.models.card import Card
from vizsla.web import pictures
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

router = APIRouter(prefix="/models", tags=["models"])


class NewModel(Queued):
    """A checkpoint to make a model of."""

    run: str = Field(description="id or name of a run")
    checkpoint: str = Field("best", description="best, last or a step")
    name: str | None = None


@router.get("")
def list_models(ws: Ws, limit: Limit = 50, after: After = None, order: Order = "newest") -> Page[Card]:
    """The cards of models."""
    return finished(ws, "model", models.get, limit=limit, after=after, order=order)


@router.post("", status_code=202)
def create_model(ws: Ws, body: NewModel, response: Response) -> JobAnswer:
    """Put the export of a run's checkpoint into the queue."""
    return queued(
        models.submit(ws, exact(ws, body.run, "run"), name=body.name, checkpoint=body.checkpoint, job=body.job),
        response,
    )


@router.get("/{reference}")
def get_model(ws: Ws, reference: str) -> Card:
    """The card of a model: figures, lineage, licence of its weights."""
    return read(ws, "model", reference, models.get)


@router.post("/{reference}/predict", openapi_extra={"requestBody": pictures.BODY})
async def predict(ws: Ws, reference: str, request: Request, top: pictures.Top = 5) -> pictures.Predicted:
    """Classify pictures: the files of a form, or one as the body. One that cannot be read fails alone."""
    card = await run_in_threadpool(read, ws, "model", reference, models.get)
    return await pictures.classify(request, ws, card, top)


@router.delete("/{reference}")
def delete_model(ws: Ws, reference: str) -> EntryAnswer:
    """Delete a model; refused while evaluations or predictions were made from it."""
    return EntryAnswer.model_validate(models.delete(ws, exact(ws, reference, "model")))
