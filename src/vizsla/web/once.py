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

from vizsla.errors import Conflict, InvalidInput
from vizsla.store.answers import Answered
from vizsla.store.workspace import Workspace
from vizsla.web import auth

# A request that comes while the same one is being answered waits so long for that answer.
PATIENCE_S, POLL_S = 10.0, 0.1
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
        before = await _begin(ws, key, await _digest(request))
        if before is not None:
            return Response(before.body, before.status or 202, headers=before.headers)
        try:
            response = await handle(request)
        except Exception:
            await run_in_threadpool(ws.store.answers.give_up, ws.user, key)
            raise
        if response.status_code != 202:
            await run_in_threadpool(ws.store.answers.give_up, ws.user, key)
            return response
        headers = {name: value for name, value in response.headers.items() if name in KEPT_HEADERS}
        body = bytes(response.body).decode()
        await run_in_threadpool(ws.store.answers.end, ws.user, key, response.status_code, headers, body)
        return response

    return handler


async def _begin(ws: Workspace, key: str, digest: str) -> Answered | None:
    """Take the key; the answer of the first time, if there was one.

    Raises:
        InvalidInput: the key was used for another request.
        Conflict: the first request is still being answered.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        before = await run_in_threadpool(ws.store.answers.begin, ws.user, key, digest)
        if before is None:
            return None
        if before.request != digest:
            raise InvalidInput(
                "This key was used for another request.", where="Idempotency-Key", remedy="Make a new key."
            )
        if before.status is not None:
            return before
        if time.monotonic() > deadline:
            raise Conflict("The same request is being answered.", where="Idempotency-Key", remedy="Ask again later.")
        await asyncio.sleep(POLL_S)


async def _digest(request: Request) -> str:
    """What is asked."""
    what = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    return hashlib.sha256(what + await request.body()).hexdigest()
