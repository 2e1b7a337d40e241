"""No request is longer than a request needs to be."""

from __future__ import annotations

from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vizsla.web import problems

MAX_BYTES = 1_000_000


class Bounded:
    """Refuses bodies of more than `MAX_BYTES` before they are read as a whole."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        chunks: list[Message] = []
        num_bytes, more = 0, True
        while more:
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > MAX_BYTES:
                refused = problems.answer(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", f"A request has {MAX_BYTES:,} bytes at most."
                )
                await refused(scope, receive, send)
                return
            chunks.append(message)
            more = message["type"] == "http.request" and message.get("more_body", False)

        async def again() -> Message:
            return chunks.pop(0) if chunks else await receive()

        await self._app(scope, again, send)
