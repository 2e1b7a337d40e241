"""What requests bring: pictures as the files of a form, as the body, or in JSON. Nothing is larger than it may be."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from vizsla.errors import Busy, InvalidInput, TooLarge
from vizsla.serving.spec import COPIES, JSON_COPIES, Limits

PATIENCE_S = 30.0
MAX_NAME = 200
# Of objects in JSON that are validated, all of which have a few fields.
MAX_FIELDS = 32
MAX_DEPTH = 8
# Of JSON, before it is parsed: meanwhile nothing else is done, and a megabyte may be half a million lists.
MAX_PARTS = 100_000


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


@dataclass(slots=True)
class Picture:
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

    @contextlib.contextmanager
    def share(self) -> Iterator[Share]:
        """What one request holds; nothing after it."""
        share = Share(self)
        try:
            yield share
        finally:
            share.keep(0)


class Share:
    """What one request holds in memory."""

    def __init__(self, held: Held) -> None:
        self._held, self.num_bytes = held, 0

    def take(self, num_bytes: int) -> None:
        """Hold more.

        Raises:
            Busy: all requests together would hold too much.
        """
        self._held.take(num_bytes)
        self.num_bytes += num_bytes

    def give_back(self, num_bytes: int) -> None:
        """Hold so much less."""
        self.keep(max(0, self.num_bytes - num_bytes))

    def keep(self, num_bytes: int) -> None:
        """Hold so much, which is no more than before."""
        self._held.give_back(self.num_bytes - num_bytes)
        self.num_bytes = num_bytes


async def whole(request: Request, limits: Limits, share: Share, *, json: bool = False) -> bytes:
    """The body of a request.

    Args:
        json: it is JSON, of which less is taken: while it is parsed, nothing else is done.

    Raises:
        TooLarge: it is longer than it may be.
        Busy: all requests together hold too much.
        Gone: who sends it left.
        HTTPException: it did not come in time.
    """
    if json:
        pieces = bounded(request, limits.max_json_bytes, kind="request of JSON")
    else:
        pieces = bounded(request, limits.max_request_bytes)
    with _patience():
        async with asyncio.timeout(PATIENCE_S):
            return b"".join([piece async for piece in _held(pieces, share, JSON_COPIES if json else COPIES)])


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        what = f"The request took longer than {PATIENCE_S:g} s to come."
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, what) from None
    except ClientDisconnect:
        raise Gone from None


async def _held(pieces: AsyncGenerator[bytes], share: Share, copies: int) -> AsyncGenerator[bytes]:
    async for piece in pieces:
        share.take(copies * len(piece))
        yield piece


async def bounded(request: Request, max_bytes: int, *, kind: str = "request") -> AsyncGenerator[bytes]:
    """What comes, piece by piece, until it is too much; at once where the request says so itself.

    Args:
        kind: what is said to be too long.

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
                f"A {kind} brings {max_bytes / 1e6:g} MB at most.", remedy="Send some of the pictures at a time."
            )
        yield chunk


async def sent(request: Request, limits: Limits, share: Share) -> list[Picture] | bytes:
    """The pictures of a request, or the JSON that they are in, for `from_json`.

    Raises:
        InvalidInput: there is none, or the body is of another kind.
        TooLarge: there are too many, or the body is longer than it may be.
        Busy: all requests together hold too much.
        Gone: who sends it left.
        HTTPException: it did not come in time.
    """
    kind = kind_of(request.headers)
    if kind == "application/json":
        return await whole(request, limits, share, json=True)
    if kind == "multipart/form-data":
        found = await _form(request, limits, share)
    elif kind.startswith("image/") or kind in ("application/octet-stream", ""):
        data = await whole(request, limits, share)
        found = [Picture("body", data)] if data else []
    else:
        raise InvalidInput(
            "This request brings no pictures.",
            where="content-type",
            remedy="Send files of a form (multipart/form-data), one as the body (image/jpeg), or application/json.",
        )
    if not found:
        raise InvalidInput("There is no picture to look at.", remedy="Send one or more picture files.")
    share.keep(sum(len(one.data) for one in found))
    return found


def kind_of(headers: Headers) -> str:
    """What a request says that its body is, such as `image/jpeg`."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


class FormParser(MultiPartParser):
    """Reads the files of a form, and refuses one that was cut off.

    Names of files are UTF-8, whatever the request says: its `charset` could name any codec that there is.
    """

    _ended = False

    def on_headers_finished(self) -> None:
        """Know the name and the file of a part."""
        self._charset = "latin-1"
        super().on_headers_finished()
        file = self._current_part.file
        if file is not None and file.filename:
            file.filename = file.filename.encode("latin-1").decode("utf-8", "replace")

    def on_end(self) -> None:
        """Note that the last boundary was there."""
        self._ended = True

    async def parse(self) -> FormData:
        """The files and fields.

        Raises:
            MultiPartException: it is no whole form, or has more files or fields than it may.
        """
        try:
            form = await super().parse()
        except FormParserError:
            raise MultiPartException("Invalid multipart data.") from None
        if not self._ended:
            for file in self._files_to_close_on_error:
                file.close()
            raise MultiPartException("it ends before its last boundary")
        return form


async def _form(request: Request, limits: Limits, share: Share) -> list[Picture]:
    """The files of a form, which is taken apart while it comes: others have their turn between the pieces."""
    pieces = _held(bounded(request, limits.max_request_bytes), share, COPIES)
    parser = FormParser(request.headers, pieces, max_files=limits.max_pictures, max_fields=0)
    parser.spool_max_size = limits.max_request_bytes + 1  # nothing is written to a disk, which may not be writable
    try:
        with _patience():
            async with asyncio.timeout(PATIENCE_S):
                form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise too_many(limits) from None
        raise InvalidInput(f"The form cannot be read: {error.message[:200]}", remedy="Send files only.") from None
    found = []
    for _, one in form.multi_items():
        if isinstance(one, UploadFile):
            found.append(Picture((one.filename or "")[:MAX_NAME], await one.read()))
            await one.close()
    return found


def loaded(data: bytes, *, max_parts: int = MAX_PARTS) -> Any:
    """What a text of JSON says.

    Args:
        max_parts: numbers, texts, lists and objects in it.

    Raises:
        InvalidInput: it is none.
        TooLarge: it has too many parts.
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > max_parts:
        raise TooLarge(
            f"The JSON has more than {max_parts:,} parts.",
            where="body",
            remedy="Send fewer pictures at a time, as files of a form or as binary tensors.",
        )
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"This is no JSON: {error}"[:300], where="body") from None


def require_small(found: Any, *, max_items: int, but: str = "") -> None:
    """Refuse JSON that is larger than what it could mean: each part that is wrong would be an error to be told.

    Args:
        found: what is to be validated.
        max_items: of a list.
        but: a field of objects that is not looked into.

    Raises:
        InvalidInput: an object or a list has too many parts, or they lie too deep.
    """
    parts = [found] if isinstance(found, dict | list) else []
    for _ in range(MAX_DEPTH):
        for one in parts:
            most = MAX_FIELDS if isinstance(one, dict) else max_items
            if len(one) > most:
                part = "An object" if isinstance(one, dict) else "A list"
                raise InvalidInput(f"{part} in the JSON has {len(one):,} parts, more than {most}.", where="body")
        inner = []
        for one in parts:
            inner += [value for key, value in one.items() if key != but] if isinstance(one, dict) else one
            if len(inner) > MAX_FIELDS * max_items:
                raise InvalidInput("The JSON has more parts than such a request has.", where="body")
        parts = [one for one in inner if isinstance(one, dict | list)]
    if parts:
        raise InvalidInput(f"The JSON is more than {MAX_DEPTH} levels deep.", where="body")


def from_json(data: bytes, limits: Limits) -> list[Picture]:
    """The pictures in a body of JSON.

    Raises:
        InvalidInput: there is none, or the body is another.
        TooLarge: there are too many.
    """
    found = loaded(data)
    wanted = found.get("pictures") if isinstance(found, dict) else None
    if isinstance(wanted, list) and len(wanted) > limits.max_pictures:
        raise too_many(limits)
    require_small(found, max_items=limits.max_pictures)
    try:
        asked = _PICTURES.validate_python(found)
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
