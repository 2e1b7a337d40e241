"""What requests bring: pictures as the files of a form, as the body, or in JSON. Nothing is larger than it may be."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from vizsla.errors import Busy, InvalidInput, TooLarge
from vizsla.serving.spec import Limits

PATIENCE_S = 30.0
MAX_NAME = 200


CONTENT: dict[str, Any] = {
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
}
"""pictures as a body, for OpenAPI documents"""


class Gone(Exception):
    """Who asked does not wait for the answer any more."""


class Encoded(BaseModel):
    """A picture in JSON."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field("", max_length=MAX_NAME)
    base64: str = Field(description="the bytes of its file")


class Linked(BaseModel):
    """A picture by its address."""

    model_config = ConfigDict(extra="forbid")

    link: str = Field(max_length=2000, description="http or https; only where the service fetches links")


class PicturesBody(BaseModel):
    """Pictures in JSON."""

    model_config = ConfigDict(extra="forbid")

    pictures: Annotated[list[Encoded | Linked], Field(min_length=1)]


_PICTURES = TypeAdapter(PicturesBody)


class Picture(NamedTuple):
    """A picture as it came, or where it is to be had."""

    name: str
    data: bytes
    link: str = ""


class Held:
    """How much all requests hold in memory."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0

    def take(self, num_bytes: int) -> None:
        """Hold more.

        Raises:
            Busy: it would be too much.
        """
        if self._bytes + num_bytes > self._max_bytes:
            raise Busy("The service holds as many pictures as it may.", remedy="Come again in a moment.")
        self._bytes += num_bytes

    def give_back(self, num_bytes: int) -> None:
        """Hold less."""
        self._bytes -= num_bytes


@contextlib.asynccontextmanager
async def body(request: Request, limits: Limits, held: Held) -> AsyncIterator[bytes]:
    """The body of a request.

    Raises:
        TooLarge: it is longer than a request may be.
        Busy: all requests together hold too much.
        HTTPException: it did not come in time.
    """
    taken, pieces = 0, []
    try:
        try:
            async with asyncio.timeout(PATIENCE_S):
                async for piece in bounded(request, round(limits.max_request_mb * 1e6)):
                    held.take(len(piece))
                    taken += len(piece)
                    pieces.append(piece)
        except TimeoutError:
            what = f"The request took longer than {PATIENCE_S:.0f} s to come."
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, what) from None
        except ClientDisconnect:
            raise Gone from None
        data = b"".join(pieces)
        pieces.clear()
        yield data
    finally:
        held.give_back(taken)


async def bounded(request: Request, max_bytes: int) -> AsyncGenerator[bytes]:
    """What comes, piece by piece, until it is too much; at once where the request says so itself.

    Raises:
        TooLarge: it is more than `max_bytes`.
    """
    declared = request.headers.get("content-length", "0")
    num_bytes = int(declared[:20]) if declared.isdecimal() else 0
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if max(num_bytes, seen) > max_bytes:
            raise TooLarge(
                f"A request brings {max_bytes / 1e6:g} MB at most.", remedy="Send some of the pictures at a time."
            )
        yield chunk


async def pictures(headers: Headers, data: bytes, limits: Limits) -> list[Picture]:
    """The pictures in a body.

    Raises:
        InvalidInput: there is none, or the body is of another kind.
        TooLarge: there are too many.
    """
    kind = kind_of(headers)
    if kind == "multipart/form-data":
        found = await _form(headers, data, limits)
    elif kind == "application/json":
        found = _json(data)
    elif kind.startswith("image/") or kind in ("application/octet-stream", ""):
        found = [Picture("body", data)] if data else []
    else:
        raise InvalidInput(
            "This request brings no pictures.",
            where="content-type",
            remedy="Send files of a form (multipart/form-data), one as the body (image/jpeg), or application/json.",
        )
    if not found:
        raise InvalidInput("There is no picture to look at.", remedy="Send one or more picture files.")
    if len(found) > limits.max_pictures:
        raise too_many(limits)
    return found


def kind_of(headers: Headers) -> str:
    """What a request says that its body is, such as `image/jpeg`."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


async def _form(headers: Headers, data: bytes, limits: Limits) -> list[Picture]:
    async def whole() -> AsyncGenerator[bytes]:
        yield data

    parser = MultiPartParser(headers, whole(), max_files=limits.max_pictures, max_fields=0)
    parser.spool_max_size = len(data) + 1  # nothing is written to a disk, which may not be writable
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise too_many(limits) from None
        raise InvalidInput(f"The form cannot be read: {error.message[:200]}", remedy="Send files only.") from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    return [Picture((one.filename or "")[:MAX_NAME], await one.read()) for one in files]


def _json(data: bytes) -> list[Picture]:
    try:
        asked = _PICTURES.validate_python(orjson.loads(data))
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"This is no JSON: {error}"[:300], where="body") from None
    except ValidationError as error:
        raise wrong(error) from None
    return [Picture("", b"", one.link) if isinstance(one, Linked) else _decoded(one) for one in asked.pictures]


def _decoded(one: Encoded) -> Picture:
    try:
        return Picture(one.name, base64.b64decode(one.base64, validate=True))
    except (binascii.Error, ValueError):
        raise InvalidInput("This is no base64.", where="pictures.base64", remedy="Send the file as the body.") from None


def wrong(error: ValidationError) -> InvalidInput:
    """What a body lacks, by its first field that is wrong."""
    first: Any = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    return InvalidInput(f"{first['msg']}.", where=where or "body", remedy="The service's OpenAPI document says more.")


def too_many(limits: Limits) -> TooLarge:
    """What is said of more pictures than a request may bring."""
    return TooLarge(
        f"A request may bring {limits.max_pictures} pictures at most.", remedy="Send some of them at a time."
    )
