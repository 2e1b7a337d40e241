"""`/api/v1/uploads`: archives and pictures that come in pieces, and go on where they were cut off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field
from starlette.requests import ClientDisconnect

from vizsla.api import receiving, uploads
from vizsla.datasets.upload import Kind, Status
from vizsla.errors import InvalidInput, VizslaError
from vizsla.web.schema import Answer, Body, Page, Ws

router = APIRouter(prefix="/uploads", tags=["uploads"])
# The disk is written to by a thread, which pays for a megabyte and not for each packet.
PIECE_BYTES = 2**20
STALLED_S = 60
# What who asks may do was looked up before the body came.
PATIENCE_S = 900
BYTES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class NewUpload(Body):
    """What is going to be uploaded."""

    name: str = Field(description="what it is called, such as dogs.zip")
    kind: Kind = Field("archive", description="folder: of pictures that come one by one")
    size: int | None = Field(None, ge=1, description="bytes of an archive or a picture")
    sha256: str | None = Field(None, description="of the whole, in hexadecimal digits; checked at the end")


class UploadAnswer(Answer):
    """An upload, and how much of it is there."""

    id: str
    name: str
    kind: Kind
    owner: str
    created_at: str
    size: int | None
    sha256: str | None = Field(description="of the whole, as it was promised")
    offset: int = Field(description="bytes that are there: where to go on")
    complete: bool = Field(description="of an archive or a picture: it is whole, and is what was promised")
    num_pictures: int = Field(description="of a folder")
    used_by: str | None = Field(description="id of the dataset or prediction that is being made from it")
    expires_at: float = Field(description="when it is removed unless more of it comes, in seconds since 1970")


class UploadedAnswer(Answer):
    """A picture that came into a folder."""

    path: str
    bytes: int
    sha256: str


@router.get("")
def list_uploads(ws: Ws) -> list[UploadAnswer]:
    """Your uploads that were not used yet."""
    return [_answer(status) for status in uploads.list_all(ws)]


@router.post("", status_code=201)
def create_upload(ws: Ws, body: NewUpload, request: Request, response: Response) -> UploadAnswer:
    """Begin an upload. `Location` is where its bytes go, by PATCH, or a folder's pictures, by PUT below `pictures/`."""
    limit = request.app.state.max_upload_bytes
    made = uploads.create(ws, body.name, kind=body.kind, size=body.size, sha256=body.sha256, max_bytes=limit)
    response.headers["Location"] = f"/api/v1/uploads/{made.upload.id}"
    return _answer(made, response)


@router.get("/{id}")
def get_upload(ws: Ws, id: str, response: Response) -> UploadAnswer:
    """An upload; `Upload-Offset` says where to go on."""
    return _answer(uploads.get(ws, id), response)


@router.patch("/{id}", openapi_extra=BYTES)
async def append_to_upload(
    ws: Ws,
    id: str,
    request: Request,
    response: Response,
    upload_offset: Annotated[int, Header(ge=0, description="Where these bytes begin.")],
) -> UploadAnswer:
    """Send the bytes from `Upload-Offset` on, 16 MiB at most. What came before a request broke off stays.

    A wrong offset is a conflict, whose `Upload-Offset` is the true one. With the last byte the hash is checked.
    """
    return _answer(await _receive(request, partial(receiving.Receiving, ws, id, upload_offset)), response)


@router.put("/{id}/pictures/{path:path}", openapi_extra=BYTES)
async def put_picture(ws: Ws, id: str, path: str, request: Request, response: Response) -> UploadAnswer:
    """Put a picture of 16 MiB at most into a folder, as CLASS/FILE. One that is there already is replaced."""
    limit = request.app.state.max_upload_bytes
    begin = partial(receiving.ReceivingPicture, ws, id, path, max_bytes=limit)
    return _answer(await _receive(request, begin), response)


@router.get("/{id}/pictures")
def list_pictures(
    ws: Ws,
    id: str,
    after: Annotated[str, Query(description="The `next` of the answer before.", pattern="^[0-9]{1,15}$")] = "0",
) -> Page[UploadedAnswer]:
    """The pictures that came into a folder, in that order; one that came twice is named twice."""
    found, place = uploads.pictures(ws, id, int(after))
    items = [UploadedAnswer.model_validate(picture) for picture in found]
    return Page(items=items, next=str(place) if items else None)


@router.delete("/{id}")
def delete_upload(ws: Ws, id: str) -> dict[str, str]:
    """Delete an upload; refused while something is being made from it."""
    return {"id": uploads.delete(ws, id).id}


class _Receiver(Protocol):
    def write(self, data: bytes) -> None: ...
    def finish(self) -> Status: ...
    def close(self) -> None: ...


async def _receive(request: Request, begin: Callable[[], _Receiver]) -> Status:
    """Hand the body of a request to a receiver, a megabyte at a time; no more of it is in memory."""
    pieces = _pieces(request)
    try:
        receiver = await run_in_threadpool(begin)
        try:
            async for piece in pieces:
                await run_in_threadpool(receiver.write, piece)
            return await run_in_threadpool(receiver.finish)
        finally:
            await run_in_threadpool(receiver.close)
    except VizslaError:
        # One who is still sending would find the line cut, and not the answer.
        sent = 0
        async for piece in pieces:
            if (sent := sent + len(piece)) > receiving.MAX_CHUNK_BYTES:
                break
        raise


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """The body by the megabyte.

    Raises:
        InvalidInput: nothing came for a while, or the line was cut; what came before is told first.
    """
    stream = request.stream().__aiter__()
    gathered = bytearray()
    broken = ""
    ends = time.monotonic() + PATIENCE_S
    while True:
        try:
            gathered += await asyncio.wait_for(anext(stream), min(STALLED_S, ends - time.monotonic()))
        except StopAsyncIteration:
            break
        except TimeoutError:
            broken = f"Nothing came for {STALLED_S} seconds, or the whole took longer than {PATIENCE_S}."
            break
        except ClientDisconnect:
            broken = "The line was cut."
            break
        if len(gathered) >= PIECE_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)
    if broken:
        raise InvalidInput(broken, remedy="Go on where the upload ends.")


def _answer(status: Status, response: Response | None = None) -> UploadAnswer:
    record = status.upload
    if response is not None:
        response.headers["Upload-Offset"] = str(status.offset)
    return UploadAnswer(
        **record.model_dump(include=set(UploadAnswer.model_fields) & set(type(record).model_fields)),
        offset=status.offset,
        num_pictures=status.num_pictures,
        expires_at=status.expires_at,
    )
