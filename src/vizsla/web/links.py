"""Pictures that a request names by links, which the server fetches where it was told that it may."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir
from typing import NamedTuple, Protocol

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError
from starlette.datastructures import UploadFile

from vizsla import files
from vizsla.errors import Forbidden, TooLarge, TooSlow, Unavailable, VizslaError
from vizsla.web.schema import Body

MAX_LINKS = 16
MAX_BODY_BYTES = 100_000
IN_MEMORY_BYTES = 2**20
# By all requests together: what is fetched is in memory until it is whole.
AT_ONCE = 8
PATIENCE_S = 20.0

log = logging.getLogger("vizsla.web.links")


class Fetch(Protocol):
    """Gets the bytes behind a link, as `images.links.fetch` does."""

    def __call__(self, link: str, *, max_bytes: int) -> Awaitable[bytes]:
        """So many at most."""


class LinkedPictures(Body):
    """Pictures, by where they are on the internet."""

    links: list[str] = Field(min_length=1, max_length=MAX_LINKS, description="http or https")


class Unfetched(NamedTuple):
    """A link, and why there is no picture of it."""

    filename: str
    error: VizslaError


class Links:
    """Fetches for a server: so many at once, in so much time."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._places = asyncio.Semaphore(AT_ONCE)

    async def bring(
        self, links: Sequence[str], closing: AsyncExitStack, *, max_each: int, max_bytes: int
    ) -> list[UploadFile | Unfetched]:
        """A picture for each link, in their order; one that cannot be fetched fails alone.

        Args:
            closing: closes the pictures.
            max_each: bytes of each.
            max_bytes: of all of them.
        """
        left = max_bytes
        deadline = asyncio.get_running_loop().time() + PATIENCE_S

        async def one(link: str) -> UploadFile | Unfetched:
            nonlocal left
            try:
                async with asyncio.timeout_at(deadline), self._places:
                    data = await self._fetch(link, max_bytes=max_each)
                    if len(data) > left:
                        raise TooLarge(f"together more than {max_bytes / 1e6:g} MB", remedy="Send fewer at a time.")
                    left -= len(data)
                    return await _held(link, data, closing)
            except TimeoutError:
                late = TooSlow(f"The links took longer than {PATIENCE_S:g} s.", remedy="Send fewer at a time.")
                return Unfetched(link, late)
            except VizslaError as error:
                return Unfetched(link, error)
            except Exception:  # a host can answer anything: what nobody thought of is no fault of the other links
                log.exception("A picture could not be fetched.")
                return Unfetched(
                    link, Unavailable("The picture could not be fetched.", remedy="Save it, and send the file.")
                )

        async with asyncio.TaskGroup() as together:
            tasks = [together.create_task(one(link)) for link in links]
        return [task.result() for task in tasks]


async def _held(link: str, data: bytes, closing: AsyncExitStack) -> UploadFile:
    """What does not fit into memory lies in a temporary file."""
    held = SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 - closed with what is made of it
    picture = UploadFile(held, size=0, filename=link)  # type: ignore[arg-type]
    closing.push_async_callback(picture.close)
    with files.disk_errors(Path(gettempdir(), "picture")):
        await picture.write(data)
    await picture.seek(0)
    return picture


async def named(request: Request) -> list[str]:
    """The links in the body of a request.

    Raises:
        RequestValidationError: it is another one.
        TooLarge: it is longer than such a body is.
        Forbidden: the server fetches none.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge(f"A request with links has {MAX_BODY_BYTES:,} bytes at most.")
    try:
        links = LinkedPictures.model_validate_json(bytes(body)).links
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from None
    if request.app.state.links is None:
        raise Forbidden(
            "This server fetches no pictures by links.",
            where="links",
            remedy="Send the files. Who looks after the server may start it with `vizsla serve --allow-links`.",
        )
    return links
