"""Pictures that a request names by links, which the server fetches where it was told that it may."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError
from starlette.datastructures import UploadFile

from vizsla import files
from vizsla.errors import Busy, Forbidden, TooLarge, TooSlow, Unavailable, VizslaError
from vizsla.web.schema import Body

MAX_LINKS = 16
MAX_BODY_BYTES = 100_000
IN_MEMORY_BYTES = 2**20
# By all requests together, and by those of one account: its slow links leave places to others.
AT_ONCE = 8
AT_ONCE_EACH = 4
# Requests whose links are fetched, or wait for that; of all and of one account.
LINE = 32
LINE_EACH = 16
PATIENCE_S = 20.0
MAX_HOST = 253

log = logging.getLogger("vizsla.web.links")


class Fetch(Protocol):
    """Gets the bytes behind a link, as `images.links.fetch` does."""

    def __call__(self, link: str, write: Callable[[bytes], Awaitable[object]], *, max_bytes: int) -> Awaitable[None]:
        """Write so many at most, as they come."""


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
        self._line: Counter[str] = Counter()
        self._places_of: dict[str, asyncio.Semaphore] = {}

    async def bring(
        self, links: Sequence[str], closing: AsyncExitStack, *, account: str, max_each: int, max_bytes: int
    ) -> list[UploadFile | Unfetched]:
        """A picture for each link, in their order; one that cannot be fetched fails alone.

        Args:
            closing: closes the pictures.
            account: who asks.
            max_each: bytes of each.
            max_bytes: of all of them.

        Raises:
            Busy: too many requests wait for their links.
        """
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        room = _Room(max_bytes)

        async def one(link: str) -> UploadFile | Unfetched:
            try:
                async with asyncio.timeout_at(deadline), mine, self._places:
                    return await self._held(link, closing, room, max_each)
            except TimeoutError:
                late = TooSlow(f"The links took longer than {PATIENCE_S:g} s.", remedy="Send fewer at a time.")
                return Unfetched(link, late)
            except VizslaError as error:
                return Unfetched(link, error)
            except Exception:  # a host can answer anything: what nobody thought of is no fault of the other links
                log.exception("A picture could not be fetched.")
                remedy = "Save it, and send the file."
                return Unfetched(link, Unavailable("The picture could not be fetched.", remedy=remedy))

        with self._in_line(account) as mine:
            async with asyncio.TaskGroup() as together:
                tasks = [together.create_task(one(link)) for link in links]
        found = [task.result() for task in tasks]
        _note(links, account, sum(isinstance(one, Unfetched) for one in found))
        return found

    @contextmanager
    def _in_line(self, account: str) -> Iterator[asyncio.Semaphore]:
        """Be one of the requests that are let in; with the places of the account."""
        if self._line.total() >= LINE or self._line[account] >= LINE_EACH:
            raise Busy(
                "Too many requests wait for their links, and no more are let in.",
                remedy="Ask again in some seconds, or send the files.",
            )
        self._line[account] += 1
        try:
            yield self._places_of.setdefault(account, asyncio.Semaphore(AT_ONCE_EACH))
        finally:
            self._line[account] -= 1
            if not self._line[account]:
                del self._line[account], self._places_of[account]

    async def _held(self, link: str, closing: AsyncExitStack, room: _Room, max_each: int) -> UploadFile:
        """The picture behind a link. What does not fit into memory lies in a temporary file."""
        held = SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 - closed with what is made of it
        picture = UploadFile(held, size=0, filename=link)  # type: ignore[arg-type]

        async def write(data: bytes) -> None:
            room.take(len(data))
            with files.disk_errors(Path(gettempdir(), "picture")):
                await picture.write(data)

        try:
            await self._fetch(link, write, max_bytes=max_each)
            await picture.seek(0)
        except BaseException:
            room.left += picture.size or 0
            await picture.close()
            raise
        closing.push_async_callback(picture.close)
        return picture


def _note(links: Sequence[str], account: str, failed: int) -> None:
    """Tell the log who had which hosts asked. What else stands in a link may be a secret."""
    hosts = sorted(set(map(_host, links)))
    fields = {"account": account, "hosts": hosts, "links": len(links), "failed": failed}
    log.info("Links were fetched, to %s", ", ".join(hosts), extra={"fields": fields})


def _host(link: str) -> str:
    """What a link names as its host; nothing where it is none."""
    with suppress(ValueError):
        return (urlsplit(link.strip()).hostname or "")[:MAX_HOST]
    return ""


class _Room:
    """Bytes that all pictures of a request may have together."""

    def __init__(self, num_bytes: int) -> None:
        self.left = num_bytes
        self._all = num_bytes

    def take(self, num_bytes: int) -> None:
        """Take some for a picture that has come so far.

        Raises:
            TooLarge: there are not so many.
        """
        if num_bytes > self.left:
            raise TooLarge(f"together more than {self._all / 1e6:g} MB", remedy="Send fewer at a time.")
        self.left -= num_bytes


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
