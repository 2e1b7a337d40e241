"""`/api/v1/predictions`: what a model sees in many pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from vizsla.api import predictions
from vizsla.datasets.spec import upload_id
from vizsla.models.predictions import MAX_TOP, Prediction, Row
from vizsla.web.etags import tagged, unchanged
from vizsla.web.kept import Known
from vizsla.web.lists import Listing, page, parent_id
from vizsla.web.once import KEYED, Once
from vizsla.web.paths import allowed
from vizsla.web.schema import (
    Changed,
    EntryAnswer,
    JobAnswer,
    Limit,
    Name,
    NotesAnswer,
    Page,
    Queued,
    TagsAnswer,
    Things,
    Ws,
    exact,
    queued,
    read,
)
from vizsla.web.written import changed, labelled, noted

router = APIRouter(prefix="/predictions", tags=["predictions"], route_class=Once)


class NewPrediction(Queued):
    """Pictures to classify."""

    model: str = Field(description="id or name of a model")
    source: Path = Field(
        description="a folder or an archive, searched to the bottom; upload:ID; or a text list with a path in each line"
    )
    base: Path | None = Field(None, description="to which the paths of a list are relative; default: its own folder")
    top: int = Field(5, ge=1, le=MAX_TOP, description="how many classes to name for each picture")
    name: Name | None = None


class PredictionListing(Listing):
    """Which part of the list of predictions is wanted."""

    model: str | None = Field(None, description="Only of this model, by its id or name.")


@router.get("", response_model=Things[Prediction])
def list_predictions(ws: Ws, kept: Known, wanted: Annotated[PredictionListing, Query()]) -> Response:
    """What came out of predictions."""
    return page(ws, kept, "prediction", wanted, parents=[parent_id(ws, "model", wanted.model, "model")])


@router.post("", status_code=202, dependencies=KEYED)
def create_prediction(ws: Ws, body: NewPrediction, request: Request, response: Response) -> JobAnswer:
    """Put a prediction into the queue, of pictures that the server may read, or of an upload."""
    model = exact(ws, body.model, "model")
    source = body.source if upload_id(body.source) else allowed(request, body.source, where="source")
    base = allowed(request, body.base, where="base") if body.base is not None else None
    within = request.app.state.allowed
    return queued(
        predictions.submit(ws, model, source, base=base, within=within, top=body.top, name=body.name, job=body.job),
        response,
    )


@router.get("/{reference}", response_model=Prediction)
def get_prediction(ws: Ws, kept: Known, reference: str, request: Request) -> Response:
    """What came out of a prediction: how many pictures of each class, and what could not be looked at."""
    return tagged(request, kept.require(ws, "prediction", exact(ws, reference, "prediction")).body)


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


@router.get("/{reference}/rows.csv", response_class=StreamingResponse)
def get_csv(ws: Ws, reference: str) -> StreamingResponse:
    """What the model sees in each picture as CSV: path, label, predicted, probability, error."""
    id = read(ws, "prediction", reference, predictions.get).id
    headers = {"Content-Disposition": f'attachment; filename="prediction-{id}.csv"'}
    return StreamingResponse(predictions.csv_parts(ws, id), media_type="text/csv; charset=utf-8", headers=headers)


@router.patch("/{reference}", response_model=Prediction)
def change_prediction(ws: Ws, reference: str, body: Changed, request: Request) -> Response:
    """Give a prediction another name, other notes, or other tags."""
    return changed(request, ws, "prediction", reference, body)


@router.get("/{reference}/notes", response_model=NotesAnswer)
def get_notes(ws: Ws, reference: str, request: Request) -> Response:
    """What people have written about a prediction."""
    return noted(request, ws, "prediction", reference)


@router.get("/{reference}/tags", response_model=TagsAnswer)
def get_tags(ws: Ws, reference: str, request: Request) -> Response:
    """The tags of a prediction."""
    return labelled(request, ws, "prediction", reference)


@router.delete("/{reference}")
def delete_prediction(ws: Ws, kept: Known, reference: str, request: Request) -> EntryAnswer:
    """Delete a prediction; the pictures stay."""
    id = exact(ws, reference, "prediction")
    with unchanged(request, lambda: kept.require(ws, "prediction", id).body):
        return EntryAnswer.model_validate(predictions.delete(ws, id))
