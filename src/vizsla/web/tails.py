"""Logs as lines of JSON (ndjson), which go on while the work does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import orjson
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from vizsla.api.logs import Tail, is_live
from vizsla.errors import Busy, DatabaseUnavailable, Forbidden, NotSignedIn, TooMany, VizslaError
from vizsla.store.rows import Kind
from vizsla.store.workspace import Workspace
from vizsla.web import auth
from vizsla.web.steady import Steady

MEDIA_TYPE = "application/x-ndjson"
POLL_S, HEARTBEAT_S = 0.25, 15.0
MAX_FOLLOWED, MAX_FOLLOWED_EACH = 100, 20
"""logs that are followed at a time: by all, and by one account"""


class LogQuery(BaseModel):
    """Which part of a log is wanted."""

    model_config = ConfigDict(extra="forbid")

    follow: bool = Field(False, description="Go on until the work has ended.")
    after: str = Field("0", pattern="^[0-9]{1,15}$", description="The `next` of the line before.")


class LogLine(BaseModel):
    """A line of the answer."""

    text: str | None = Field(description="without its end; null: nothing has been added for a while")
    next: str = Field(description="give it as `after` for the lines that follow")
    goes_on: bool = Field(description="the line is long, and goes on in the next one")


LOG_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One JSON object a line.",
        "content": {
            MEDIA_TYPE: {
                "schema": LogLine.model_json_schema(),
                "example": '{"text":"measuring number formats","next":"25","goes_on":false}\n',
            }
        },
    }
}


class Thing(NamedTuple):
    """What a worker makes."""

    kind: Kind
    id: str


class Followed:
    """How many logs are followed, and by whom. Each is looked at four times a second. Of the event loop's thread."""

    def __init__(self) -> None:
        self._by: Counter[str] = Counter()

    def enter(self, name: str) -> None:
        """Count one more of an account, until `leave`.

        Raises:
            TooMany: it follows many.
            Busy: all together do.
        """
        if self._by[name] >= MAX_FOLLOWED_EACH:
            raise TooMany(f"You follow {MAX_FOLLOWED_EACH} logs.", where="follow", remedy="Let go of some first.")
        if self._by.total() >= MAX_FOLLOWED:
            raise Busy(
                f"{MAX_FOLLOWED} logs are followed.", where="follow", remedy="Ask without `follow`, or again later."
            )
        self._by[name] += 1

    def leave(self, name: str) -> None:
        """Count one less."""
        self._by -= Counter([name])


class _Lines(StreamingResponse):
    """Lines that go on for long; when they have ended, or were never asked for, nothing is held for them."""

    def __init__(self, lines: AsyncIterator[bytes], end: Callable[[], None]) -> None:
        # A proxy such as nginx is not to collect what follows.
        super().__init__(lines, media_type=MEDIA_TYPE, headers={"X-Accel-Buffering": "no"})
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


async def logged(ws: Workspace, find: Callable[[], Thing], request: Request, wanted: LogQuery) -> Response:
    """The log of what works on the thing that `find` finds.

    Raises:
        TooMany, Busy: see `Followed.enter`.
    """
    thing, tail = await run_in_threadpool(_opened, ws, find, int(wanted.after))
    if not wanted.follow:
        return _Lines(_lines(ws, thing, tail, None), tail.close)
    followed: Followed = request.app.state.followed
    name = auth.who(request).name
    try:
        followed.enter(name)
    except VizslaError:
        tail.close()
        raise

    def end() -> None:
        followed.leave(name)
        tail.close()

    return _Lines(_lines(ws, thing, tail, _Follower(request, ws)), end)


def _opened(ws: Workspace, find: Callable[[], Thing], after: int) -> tuple[Thing, Tail]:
    thing = find()
    return thing, Tail(ws, thing.kind, thing.id, after)


class _Follower:
    """Who follows a log, and may be told for as long as they would be let in."""

    def __init__(self, request: Request, ws: Workspace) -> None:
        self._request = request
        self._admitted = Steady(lambda: auth.admit(request, ws), None)
        self._looked_at = time.monotonic()

    async def may(self) -> bool:
        """Whether they may be told more; looked up from time to time."""
        if time.monotonic() - self._looked_at > auth.ADMITTED_FOR_S:
            try:
                await run_in_threadpool(self._admitted.look)
            except (NotSignedIn, Forbidden, DatabaseUnavailable):
                return False
            self._looked_at = time.monotonic()
        return not self._request.app.state.closing()


async def _lines(ws: Workspace, thing: Thing, tail: Tail, follower: _Follower | None) -> AsyncIterator[bytes]:
    """What is there; for a follower also what is added until the work has ended, or they may not be told any more."""
    told_at = time.monotonic()
    goes_on = Steady(lambda: is_live(ws, thing.kind, thing.id), True)
    while True:
        try:
            live = await run_in_threadpool(goes_on.look)  # before the log: no line is missed
        except DatabaseUnavailable:
            return
        while found := await run_in_threadpool(tail.read, ended=not live):
            yield b"".join(_line(line.text, line.next, line.goes_on) for line in found)
            told_at = time.monotonic()
            if follower is not None and not await follower.may():
                return
        if not live or follower is None or not await follower.may():
            return
        if time.monotonic() - told_at > HEARTBEAT_S:
            yield _line(None, tail.place, False)
            told_at = time.monotonic()
        await asyncio.sleep(POLL_S)


def _line(text: str | None, following: int, goes_on: bool) -> bytes:
    return orjson.dumps({"text": text, "next": str(following), "goes_on": goes_on}, option=orjson.OPT_APPEND_NEWLINE)
