"""`/api/v1/models`: folders with weights, a checked graph and a card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import Field

from vizsla.api import models, receiving
from vizsla.datasets.spec import upload_id
from vizsla.models import archive
from vizsla.models.card import Card
from vizsla.web import pictures
from vizsla.web.etags import tagged, unchanged
from vizsla.web.kept import Known
from vizsla.web.lists import Listing, page, parent_id
from vizsla.web.once import KEYED, Once
from vizsla.web.paths import allowed
from vizsla.web.schema import (
    Body,
    Changed,
    Checkpoint,
    EntryAnswer,
    JobAnswer,
    Name,
    NotesAnswer,
    Queued,
    TagsAnswer,
    Things,
    Ws,
    exact,
    queued,
    read,
)
from vizsla.web.written import changed, labelled, noted

router = APIRouter(prefix="/models", tags=["models"], route_class=Once)


class NewModel(Queued):
    """A checkpoint to make a model of."""

    run: str = Field(description="id or name of a run", examples=["dogs-1"])
    checkpoint: Checkpoint = "best"
    name: Name | None = None


class NewImport(Body):
    """An archive to take a model from."""

    archive: str = Field(
        description="its path on the server, or an upload such as upload:1swk2a7qx4", examples=["/srv/models/dogs.zip"]
    )
    name: Name | None = None


class ModelListing(Listing):
    """Which models are wanted."""

    run: str | None = Field(None, description="Only of the run of this id or name.")
    network: str | None = Field(None, description="Only with this network.")


@router.get("", response_model=Things[Card])
def list_models(ws: Ws, kept: Known, wanted: Annotated[ModelListing, Query()]) -> Response:
    """The cards of models."""
    parents = [parent_id(ws, "run", wanted.run, "run")]
    return page(ws, kept, "model", wanted, parents=parents, network=wanted.network)


@router.post("", status_code=202, dependencies=KEYED)
def create_model(ws: Ws, body: NewModel, response: Response) -> JobAnswer:
    """Put the export of a run's checkpoint into the queue. That of a run that waits or trains waits for its end."""
    return queued(
        models.submit(ws, exact(ws, body.run, "run"), name=body.name, checkpoint=body.checkpoint, job=body.job),
        response,
    )


@router.post("/import", status_code=201, dependencies=KEYED)
def import_model(ws: Ws, body: NewImport, request: Request) -> Card:
    """Take a model from an archive on the server, in a folder that it may read, or that was uploaded."""
    if (id := upload_id(Path(body.archive))) is not None:
        with receiving.opened(ws, id) as path:
            return models.bring(ws, path, name=body.name)
    return models.bring(ws, allowed(request, body.archive, where="archive"), name=body.name)


@router.get("/{reference}", response_model=Card)
def get_model(ws: Ws, kept: Known, reference: str, request: Request) -> Response:
    """The card of a model: figures, lineage, licence of its weights."""
    return tagged(request, kept.require(ws, "model", exact(ws, reference, "model")).body)


@router.post("/{reference}/predict", openapi_extra={"requestBody": pictures.BODY})
async def predict(
    ws: Ws, reference: str, request: Request, top: pictures.Top = 5, thumbnails: pictures.Thumbnails = False
) -> pictures.Predicted:
    """Classify pictures: the files of a form, one as the body, or links, where the server was started to fetch them.

    One that cannot be read, or fetched, fails alone.
    """
    card = await run_in_threadpool(read, ws, "model", reference, models.get)
    return await pictures.classify(request, ws, card, top, thumbnails)


@router.get("/{reference}/archive", response_class=StreamingResponse)
def get_archive(
    ws: Ws, reference: str, format: Annotated[archive.Format, Query(description="of the archive")] = "zip"
) -> StreamingResponse:
    """A model as one file, which can be brought into another workspace."""
    id = read(ws, "model", reference, models.get).id
    headers = {"Content-Disposition": f'attachment; filename="model-{id}.{format}"'}
    pieces = models.pieces(ws, id, format)
    return StreamingResponse(pieces, media_type=archive.MEDIA_TYPES[format], headers=headers)


@router.get("/{reference}/files/{file}", response_class=FileResponse)
def get_file(ws: Ws, reference: str, file: Literal["model.onnx", "model.safetensors", "labels.txt"]) -> FileResponse:
    """A file of a model: the graph for ONNX Runtime, the weights, or the names of the classes.

    Its SHA-256 stands on the card.
    """
    id = read(ws, "model", reference, models.get).id
    return FileResponse(models.file(ws, id, file), media_type="application/octet-stream", filename=f"{id}-{file}")


@router.patch("/{reference}", response_model=Card)
def change_model(ws: Ws, reference: str, body: Changed, request: Request) -> Response:
    """Give a model another name, other notes, or other tags."""
    return changed(request, ws, "model", reference, body)


@router.get("/{reference}/notes", response_model=NotesAnswer)
def get_notes(ws: Ws, reference: str, request: Request) -> Response:
    """What people have written about a model."""
    return noted(request, ws, "model", reference)


@router.get("/{reference}/tags", response_model=TagsAnswer)
def get_tags(ws: Ws, reference: str, request: Request) -> Response:
    """The tags of a model."""
    return labelled(request, ws, "model", reference)


@router.delete("/{reference}")
def delete_model(ws: Ws, kept: Known, reference: str, request: Request) -> EntryAnswer:
    """Delete a model; refused while evaluations, predictions or runs were made from it."""
    id = exact(ws, reference, "model")
    with unchanged(request, lambda: kept.require(ws, "model", id).body):
        return EntryAnswer.model_validate(models.delete(ws, id))
