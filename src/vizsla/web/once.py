"""Idempotency-Key: a request that is sent again, because its answer never came, is not done again."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from vizsla.errors import Conflict, InvalidInput, VizslaError
from vizsla.store.answers import Answered
from vizsla.store.workspace import Workspace
from vizsla.web import auth

# A request that comes while the same one is being answered waits so long for that answer.
PATIENCE_S, POLL_S = 10.0, 0.1
MAX_UNSAVED = 1000
MADE = (201, 202)
KEPT_HEADERS = ("content-type", "location")
PATTERN = r"^[\x21-\x7e]{1,200}$"

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def _key(
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=PATTERN,
            description="The same key with the same request gets the answer of the first time, for 24 hours.",
            examples=["9f1c2f0e-6c0b-4c58-b1d7-5e6a0b8f3a55"],
        ),
    ] = None,
) -> None:
    """Checks and describes the header; `Once` heeds it."""


KEYED = [Depends(_key)]
"""the dependencies of a route that takes an Idempotency-Key"""


class Once(APIRoute):
    """Routes of which those with the dependencies `KEYED` heed the header `Idempotency-Key`."""

    def get_route_handler(self) -> Handler:
        """FastAPI's own, behind a look at what was answered before."""
        handle = super().get_route_handler()
        return _once(handle) if any(one.dependency is _key for one in self.dependencies) else handle


def _once(handle: Handler) -> Handler:
    async def handler(request: Request) -> Response:
        key = request.headers.get("idempotency-key")
        if key is None or not re.match(PATTERN, key):  # FastAPI refuses the latter
            return await handle(request)
        auth.by_method(request)  # who may not ask any more gets no answer of before
        ws = auth.workspace(request)
        keys: Keys = request.app.state.keys
        digest = await _digest(request)
        before = await _begin(keys, ws, key, digest)
        if before is not None:
            return Response(before.body, before.status or 202, headers=before.headers)
        try:
            response = await handle(request)
            if response.status_code in MADE:
                headers = {name: value for name, value in response.headers.items() if name in KEPT_HEADERS}
                answer = Answered(digest, response.status_code, headers, bytes(response.body).decode())
                await keys.keep(ws, key, answer)
            return response
        finally:
            keys.working.pop((ws.user, key), None)

    return handler


class Keys:
    """What this server knows of keys and the database does not: no other answers on its workspace."""

    def __init__(self) -> None:
        self.working: dict[tuple[str, str], str] = {}
        """digests of what is being answered, by account and key; a row without an answer that is not here is nothing"""
        self.unsaved: dict[tuple[str, str], Answered] = {}
        """answers that could not be written, since the database was away"""

    async def keep(self, ws: Workspace, key: str, answer: Answered) -> None:
        """Keep an answer for who asks again."""
        status = answer.status or 202
        try:
            await run_in_threadpool(ws.store.answers.end, ws.user, key, status, answer.headers, answer.body)
        except VizslaError:  # what was asked for is made: who asks again must not make it twice
            if len(self.unsaved) >= MAX_UNSAVED:
                self.unsaved.pop(next(iter(self.unsaved)))
            self.unsaved[ws.user, key] = answer


async def _begin(keys: Keys, ws: Workspace, key: str, digest: str) -> Answered | None:
    """Take the key; the answer of the first time, if there was one.

    Raises:
        InvalidInput: the key was used for another request.
        Conflict: the first request is still being answered.
    """
    mine, deadline = (ws.user, key), time.monotonic() + PATIENCE_S
    while mine in keys.working:
        _require_same(keys.working[mine], digest)
        if time.monotonic() > deadline:
            raise Conflict("The same request is being answered.", where="Idempotency-Key", remedy="Ask again later.")
        await asyncio.sleep(POLL_S)
    keys.working[mine] = digest  # with nothing awaited since it was looked for: of two requests one is first
    try:
        before = keys.unsaved.get(mine) or await run_in_threadpool(ws.store.answers.begin, *mine, digest)
        while before is not None and before.status is None:  # it was refused, or failed: nothing was made
            await run_in_threadpool(ws.store.answers.give_up, *mine)
            before = await run_in_threadpool(ws.store.answers.begin, *mine, digest)
        if before is not None:
            _require_same(before.request, digest)
            del keys.working[mine]
        return before
    except BaseException:
        keys.working.pop(mine, None)
        raise


def _require_same(before: str, digest: str) -> None:
    if before != digest:
        raise InvalidInput("This key was used for another request.", where="Idempotency-Key", remedy="Make a new key.")


async def _digest(request: Request) -> str:
    """What is asked."""
    what = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    return hashlib.sha256(what + await request.body()).hexdigest()
