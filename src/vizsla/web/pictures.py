"""The pictures that a request brings (files of a form, one as its body, or links), and what a model sees in them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir
from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from vizsla import files
from vizsla.errors import InvalidInput, TooLarge
from vizsla.jobs.pool import Pool
from vizsla.models.card import Card
from vizsla.models.predictions import MAX_TOP, Score
from vizsla.serving import bodies
from vizsla.store.workspace import Workspace
from vizsla.web import links
from vizsla.web.auth import Who
from vizsla.web.links import LinkedPictures, Links, Unfetched
from vizsla.web.schema import Answer

Top = Annotated[int, Query(ge=1, le=MAX_TOP, description="How many classes to name for each picture.")]
Thumbnails = Annotated[bool, Query(description="A small JPEG of each picture too.")]

MAX_PICTURES = 64
MAX_BYTES = 64_000_000
MAX_PICTURE_BYTES = 32_000_000
PATIENCE_S = 60
LINKS = "application/json"

BODY: dict[str, Any] = {
    "required": True,
    "content": {
        **bodies.CONTENT,
        LINKS: {"schema": {"$ref": f"#/components/schemas/{LinkedPictures.__name__}"}},
    },
}
"""what the routes take, for the OpenAPI document"""


@contextlib.asynccontextmanager
async def placed(request: Request, pool: Pool) -> AsyncIterator[Sequence[UploadFile | Unfetched]]:
    """The pictures of a request, with a place of a pool for them; raises as `brought` and `Pool.place` do.

    What is sent needs the place before it comes, so that there is room for it. Links are fetched before: they have a
    line of their own, and hosts that are slow would hold up those whose pictures are here.
    """
    by_links = bodies.kind_of(request.headers) == LINKS
    async with contextlib.AsyncExitStack() as held:
        place = held.enter_context(contextlib.ExitStack())
        place.enter_context(pool.place())
        if by_links:
            place.close()  # there is one now: nothing is fetched for a request that is not let in anyway
        pictures = await held.enter_async_context(brought(request))
        if by_links:
            held.enter_context(pool.place())
        yield pictures


@contextlib.asynccontextmanager
async def brought(request: Request) -> AsyncIterator[Sequence[UploadFile | Unfetched]]:
    """The pictures of a request. What does not fit into memory lies in a temporary file meanwhile.

    Raises:
        InvalidInput, RequestValidationError: there is none, or the request is of another kind.
        TooLarge: there are too many.
        DiskFull: there is no room for them.
        Forbidden: it brings links, and the server fetches none.
        Busy: it brings links, and too many others do.
        HTTPException: they did not come in time.
    """
    async with contextlib.AsyncExitStack() as closing:
        try:
            async with asyncio.timeout(PATIENCE_S):
                with files.disk_errors(Path(gettempdir(), "picture")):
                    found = await _read(request, closing)
        except TimeoutError:
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, f"The pictures took longer than {PATIENCE_S} s.") from None
        yield found


async def _read(request: Request, closing: contextlib.AsyncExitStack) -> Sequence[UploadFile | Unfetched]:
    kind = bodies.kind_of(request.headers)
    if kind == LINKS:
        wanted = await links.named(request)
        fetching: Links = request.app.state.links
        who: Who | None = request.state.who
        account = who.name if who else ""
        return await fetching.bring(wanted, closing, account=account, max_each=MAX_PICTURE_BYTES, max_bytes=MAX_BYTES)
    found = [await _body(request)] if kind.startswith("image/") else await _form(request, kind)
    for picture in found:
        closing.push_async_callback(picture.close)
    return found


async def _form(request: Request, kind: str) -> list[UploadFile]:
    if kind != "multipart/form-data":
        raise InvalidInput(
            "This request brings no pictures.",
            where="content-type",
            remedy="Send them as files of a form (multipart/form-data), or one as the body, as image/jpeg.",
        )
    pieces = bodies.bounded(request, MAX_BYTES)
    parser = bodies.FormParser(request.headers, pieces, max_files=MAX_PICTURES, max_fields=0)
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
    held = SpooledTemporaryFile(max_size=links.IN_MEMORY_BYTES)  # noqa: SIM115 - closed with what is made of it
    picture = UploadFile(held, size=0, filename="body")  # type: ignore[arg-type]
    try:
        async for chunk in bodies.bounded(request, MAX_BYTES):
            await picture.write(chunk)
        await picture.seek(0)
    except BaseException:
        await picture.close()
        raise
    return picture


class ErrorAnswer(Answer):
    """Why a picture could not be looked at."""

    kind: str
    what: str


class PredictionAnswer(Answer):
    """What a model sees in one picture: the best classes first, or the reason why it could not look."""

    picture: str = Field(description="name of its file, or its link")
    scores: list[Score]
    error: ErrorAnswer | None
    thumbnail: str | None = Field(None, description="if asked for, and it is a picture: JPEG in base64")


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


async def classify(request: Request, ws: Workspace, card: Card, top: int, thumbnails: bool = False) -> Predicted:
    """Classify the pictures of a request; one that is no picture, or is too large, fails alone."""
    pool, counted = request.app.state.pool, request.app.state.predictions
    async with placed(request, pool) as pictures:
        began = time.perf_counter()
        fitting = [one for one in pictures if isinstance(one, UploadFile) and (one.size or 0) <= MAX_PICTURE_BYTES]
        folder = ws.folder("model", card.id)
        answers = iter(await pool.predict(folder, fitting, top=top, thumbnails=thumbnails) if fitting else ())
        found = [_prediction(picture, next(answers) if picture in fitting else None) for picture in pictures]
        seconds = time.perf_counter() - began
    counted.add(seconds, rejected=sum(one.error is not None for one in found), pictures=len(found))
    model = ModelAnswer(id=card.id, name=card.name, checkpoint=card.run.checkpoint)
    return Predicted(model=model, predictions=found, seconds=round(seconds, 4))


def _prediction(picture: UploadFile | Unfetched, answer: dict[str, Any] | None) -> PredictionAnswer:
    name = picture.filename or ""
    if answer is None:
        refused = picture.error if isinstance(picture, Unfetched) else _TOO_LARGE
        told = ErrorAnswer(kind=refused.kind, what=f"{refused.what} {refused.remedy}".strip())
        return PredictionAnswer(picture=name, scores=[], error=told)
    scores = [Score(label=label, probability=probability) for label, probability in answer["scores"]]
    return PredictionAnswer(picture=name, scores=scores, error=answer["error"], thumbnail=answer.get("thumbnail"))


_TOO_LARGE = InvalidInput(f"more than the limit of {MAX_PICTURE_BYTES // 10**6} MB")
