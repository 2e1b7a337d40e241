"""The pictures that a request brings (the files of a form, or one as its body), and what a model sees in them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from http import HTTPStatus
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir
from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

from vizsla import files
from vizsla.errors import InvalidInput, TooLarge
from vizsla.models.card import Card
from vizsla.models.predictions import MAX_TOP, Score
from vizsla.store.workspace import Workspace
from vizsla.web.schema import Answer

Top = Annotated[int, Query(ge=1, le=MAX_TOP, description="How many classes to name for each picture.")]

MAX_PICTURES = 64
MAX_BYTES = 64_000_000
MAX_PICTURE_BYTES = 32_000_000
IN_MEMORY_BYTES = 2**20
PATIENCE_S = 60

BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["pictures"],
                "properties": {
                    "pictures": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
                },
            }
        },
        "image/*": {"schema": {"type": "string", "format": "binary"}},
    },
}
"""what the routes take, for the OpenAPI document"""


@contextlib.asynccontextmanager
async def brought(request: Request) -> AsyncIterator[list[UploadFile]]:
    """The pictures of a request. What does not fit into memory lies in a temporary file meanwhile.

    Raises:
        InvalidInput: there is none, or the request is of another kind.
        TooLarge: there are too many.
        DiskFull: there is no room for them.
        HTTPException: they did not come in time.
    """
    async with contextlib.AsyncExitStack() as closing:
        try:
            async with asyncio.timeout(PATIENCE_S):
                with files.disk_errors(Path(gettempdir(), "picture")):
                    found = await _read(request)
        except TimeoutError:
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, f"The pictures took longer than {PATIENCE_S} s.") from None
        for picture in found:
            closing.push_async_callback(picture.close)
        yield found


async def _read(request: Request) -> list[UploadFile]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("image/"):
        return [await _body(request)]
    if kind != "multipart/form-data":
        raise InvalidInput(
            "This request brings no pictures.",
            where="content-type",
            remedy="Send them as the files of a form (multipart/form-data), or one as the body, as image/jpeg.",
        )
    parser = MultiPartParser(request.headers, _bounded(request), max_files=MAX_PICTURES, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise _wrong_form(error.message) from None
    found = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not found:
        raise InvalidInput("There is no picture to classify.", remedy="Send one or more picture files.")
    return found


def _wrong_form(detail: str) -> TooLarge | InvalidInput:
    if detail.startswith("Too many files"):
        return TooLarge(f"A request may bring {MAX_PICTURES} pictures at most.", remedy="Send some of them at a time.")
    if detail.startswith("Too many fields"):
        return InvalidInput("The form has a field that is no file.", where="body", remedy="Send files only.")
    return InvalidInput(f"The form cannot be read: {detail}", where="body")


async def _body(request: Request) -> UploadFile:
    held = SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 - closed with what is made of it
    picture = UploadFile(held, size=0, filename="body")  # type: ignore[arg-type]
    try:
        async for chunk in _bounded(request):
            await picture.write(chunk)
        await picture.seek(0)
    except BaseException:
        await picture.close()
        raise
    return picture


async def _bounded(request: Request) -> AsyncGenerator[bytes]:
    """What comes, piece by piece, until it is too much; at once where the request says so itself."""
    declared = request.headers.get("content-length", "0")
    num_bytes = int(declared[:20]) if declared.isdecimal() else 0
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if max(num_bytes, seen) > MAX_BYTES:
            raise TooLarge(
                f"Pictures of {MAX_BYTES:,} bytes may be sent at once.", remedy="Send some of them at a time."
            )
        yield chunk


class ErrorAnswer(Answer):
    """Why a picture could not be looked at."""

    kind: str
    what: str


class PredictionAnswer(Answer):
    """What a model sees in one picture: the best classes first, or the reason why it could not look."""

    picture: str = Field(description="name of its file")
    scores: list[Score]
    error: ErrorAnswer | None


class ModelAnswer(Answer):
    """The model that classified."""

    id: str
    name: str
    checkpoint: int = Field(description="step of the run that it was made of")


class Predicted(Answer):
    """What a model sees in the pictures that were sent. How often it is right stands on the model's card."""

    model: ModelAnswer
    predictions: list[PredictionAnswer]
    seconds: float = Field(description="from when the pictures were here")


async def classify(request: Request, ws: Workspace, card: Card, top: int) -> Predicted:
    """Classify the pictures of a request; one that is no picture, or is too large, fails alone."""
    pool, counted = request.app.state.pool, request.app.state.predictions
    with pool.place():
        async with brought(request) as pictures:
            began = time.perf_counter()
            fitting = [picture for picture in pictures if (picture.size or 0) <= MAX_PICTURE_BYTES]
            answers = iter(await pool.predict(ws.folder("model", card.id), fitting, top=top))
            found = [_prediction(picture, next(answers) if picture in fitting else _TOO_LARGE) for picture in pictures]
            seconds = time.perf_counter() - began
    counted.add(seconds, rejected=sum(one.error is not None for one in found), pictures=len(found))
    model = ModelAnswer(id=card.id, name=card.name, checkpoint=card.run.checkpoint)
    return Predicted(model=model, predictions=found, seconds=round(seconds, 4))


_TOO_LARGE = {
    "scores": [],
    "error": {"kind": "invalid-input", "what": f"more than the limit of {MAX_PICTURE_BYTES // 10**6} MB"},
}


def _prediction(picture: UploadFile, answer: dict[str, Any]) -> PredictionAnswer:
    scores = [Score(label=label, probability=probability) for label, probability in answer["scores"]]
    return PredictionAnswer(picture=picture.filename or "", scores=scores, error=answer["error"])
