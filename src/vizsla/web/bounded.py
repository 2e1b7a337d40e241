"""No request is longer than a request needs to be."""

from __future__ import annotations

import re
from http import HTTPStatus

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vizsla.web import problems

MAX_BYTES = 1_000_000
# What who asks may do was looked up before the body came.
PATIENCE_S = 30.0
# These have bounds of their own, and read what comes piece by piece.
STREAMED = re.compile(r"POST /api/v1/(models|runs)/[^/]+/predict|(PATCH|PUT) /api/v1/uploads/.+", re.DOTALL)


class Bounded:
    """Refuses bodies of more than `MAX_BYTES` before they are read as a whole."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or STREAMED.fullmatch(f"{scope['method']} {scope['path']}"):
            await self._app(scope, receive, send)
            return
        try:
            with anyio.fail_after(PATIENCE_S):
                message = await _whole(receive)
        except TimeoutError:
            slow = problems.answer(HTTPStatus.REQUEST_TIMEOUT, "too-slow", "The request did not come to its end.")
            await slow(scope, receive, send)
            return
        if message is None:
            long = problems.answer(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", f"A request has {MAX_BYTES:,} bytes at most."
            )
            await long(scope, receive, send)
            return
        told = False

        async def again() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return message

        await self._app(scope, again, send)


async def _whole(receive: Receive) -> Message | None:
    """A body as one message, however small the pieces were; None when it is too long."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":  # who asked has gone
            return message
        body += message.get("body", b"")
        if len(body) > MAX_BYTES:
            return None
        if not message.get("more_body", False):
            return {"type": "http.request", "body": bytes(body), "more_body": False}
