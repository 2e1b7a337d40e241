"""Logs as lines of JSON (ndjson), which go on while the work does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import orjson
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from vizsla.api.logs import Tail, is_live
from vizsla.store.rows import Kind
from vizsla.store.workspace import Workspace

MEDIA_TYPE = "application/x-ndjson"
POLL_S, HEARTBEAT_S = 0.25, 15.0


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


async def logged(ws: Workspace, find: Callable[[], Thing], request: Request, wanted: LogQuery) -> Response:
    """The log of what works on the thing that `find` finds."""
    thing, tail = await run_in_threadpool(_opened, ws, find, int(wanted.after))
    enough = request.app.state.closing if wanted.follow else lambda: True
    # A proxy such as nginx is not to collect what follows.
    return StreamingResponse(
        _lines(ws, thing, tail, enough), media_type=MEDIA_TYPE, headers={"X-Accel-Buffering": "no"}
    )


def _opened(ws: Workspace, find: Callable[[], Thing], after: int) -> tuple[Thing, Tail]:
    thing = find()
    return thing, Tail(ws, thing.kind, thing.id, after)


async def _lines(ws: Workspace, thing: Thing, tail: Tail, enough: Callable[[], bool]) -> AsyncIterator[bytes]:
    """What is there, and what is added until the work has ended or it is `enough`."""
    told_at = time.monotonic()
    try:
        while True:
            live = await run_in_threadpool(is_live, ws, thing.kind, thing.id)  # before the log: no line is missed
            while found := await run_in_threadpool(tail.read, ended=not live):
                yield b"".join(_line(line.text, line.next, line.goes_on) for line in found)
                told_at = time.monotonic()
            if not live or enough():
                return
            if time.monotonic() - told_at > HEARTBEAT_S:
                yield _line(None, tail.place, False)
                told_at = time.monotonic()
            await asyncio.sleep(POLL_S)
    finally:
        tail.close()


def _line(text: str | None, following: int, goes_on: bool) -> bytes:
    return orjson.dumps({"text": text, "next": str(following), "goes_on": goes_on}, option=orjson.OPT_APPEND_NEWLINE)
