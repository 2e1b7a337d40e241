"""What a request passes before any route: is it from here, who asks, and what became of it."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import urlencode, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from vizsla.api import accounts
from vizsla.errors import DatabaseUnavailable, Forbidden, NotSignedIn, VizslaError
from vizsla.ids import new_id
from vizsla.store.workspace import Workspace
from vizsla.web import auth, problems
from vizsla.web.metrics import Requests

LOOPBACK = ("127.0.0.1", "::1", "localhost")
SAFE = ("GET", "HEAD", "OPTIONS")
# These change nothing, or are pieces of what is written down, and are asked as often as there are pictures.
NOT_WRITTEN_DOWN = (
    "POST /datasets/scan",
    "POST /datasets/fit",
    "POST /models/{reference}/predict",
    "POST /runs/{reference}/predict",
    "POST /runs/{reference}/explain",
    "POST /runs/{reference}/layers",
    "PATCH /uploads/{id}",
    "PUT /uploads/{id}/pictures/{path:path}",
)
ALIVE = "/healthz"
# What a proxy adds. Without accounts it would open the server to all whom it serves.
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")

access = logging.getLogger("vizsla.web.access")
log = logging.getLogger("vizsla.web")


class Guard:
    """Lets through what comes from people and programs that may ask; tells metrics, log and audit what became of it."""

    def __init__(self, app: ASGIApp, *, ws: Workspace, requests: Requests, proxied: bool = False) -> None:
        self._app = app
        self._proxied = proxied
        self._warned = False
        self._ws = ws
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {}).update(who=None, tried="", thing="", request_id=new_id())
        began, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(scope, message)
                if made := MutableHeaders(scope=message).get("location"):
                    scope["state"]["thing"] = made.removeprefix("/api/v1")
            await send(message)

        try:
            await self._pass(scope, receive, noting)
        finally:
            await self._note(scope, status, time.perf_counter() - began)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        try:
            refuse_foreign(connection)
            self._warn_of_proxy(connection)
            scope["state"]["who"] = await run_in_threadpool(self._who, connection)
        except VizslaError as error:
            await _refuse(self._refusal(connection, error), scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _who(self, connection: HTTPConnection) -> auth.Who | None:
        """Who asks; None where nobody has to say so."""
        try:
            exist = auth.accounts_exist(connection.app, self._ws)
        except DatabaseUnavailable:
            if connection.scope["path"] == ALIVE:  # which says no more than that the server lives
                return None
            raise
        if not exist:
            refuse_strangers(connection)
            return auth.Who(self._ws.user, "admin")
        if auth.is_public(connection):
            return None
        return auth.identify(connection, self._ws)

    def _refusal(self, connection: HTTPConnection, error: VizslaError) -> Response:
        """A person who has to say who they are is led to where they can, and back."""
        if isinstance(error, NotSignedIn) and auth.wants_page(connection):
            return RedirectResponse("/sign-in?" + urlencode({"next": _whole_path(connection)}), 303)
        return problems.of(error)

    def _warn_of_proxy(self, connection: HTTPConnection) -> None:
        if not self._proxied and not self._warned and "x-forwarded-for" in connection.headers:
            self._warned = True
            log.warning("Requests come through a proxy that --proxy does not name: all seem to come from one place.")

    async def _note(self, scope: Scope, status: int, elapsed_s: float) -> None:
        """Count, log, and write down what changed something."""
        route = getattr(scope.get("route"), "path", "none").removeprefix("/api/v1")
        method = scope.get("method", "WEBSOCKET")
        who: auth.Who | None = scope["state"]["who"]
        if scope["type"] == "http":
            self._requests.observe(method, route, status, elapsed_s)
        fields = {
            "id": scope["state"]["request_id"],
            "method": method,
            "path": scope["path"],
            "status": status,
            "ms": round(1000 * elapsed_s, 1),
            "account": who.name if who else "",
            "address": address(scope),
        }
        access.info("%s %s %s", method, scope["path"], status, extra={"fields": fields})
        # Of those who did not prove who they are only what was counted: others could fill the disk with lines.
        known = who is not None or (route == "/session" and status == HTTPStatus.UNAUTHORIZED)
        changes = method not in (*SAFE, "WEBSOCKET") and f"{method} {route}" not in NOT_WRITTEN_DOWN
        if changes and known and status not in (404, 405):
            name = fields["account"] or scope["state"]["tried"]
            thing = scope["state"]["thing"] or scope["path"].removeprefix("/api/v1")
            action = f"{method} {route}"
            await run_in_threadpool(self._audit, name, fields["address"], action, thing, str(status))

    def _audit(self, *texts: str) -> None:
        try:
            accounts.note_of(self._ws, *texts)
        except Exception:  # the request is answered; that this could not be written is for who looks after the server
            log.exception("The audit log cannot be written: %s", texts)


def refuse_foreign(connection: HTTPConnection) -> None:
    """Raise `Forbidden` for what a page of another site has a browser send."""
    origin = connection.headers.get("origin")
    site = connection.headers.get("sec-fetch-site", "none")
    if is_visit(connection):
        return
    own = connection.headers.get("host", "")
    downgraded = origin is not None and auth.is_secure(connection) and not origin.startswith("https:")
    if downgraded or (origin is not None and _netloc(origin) != own) or site not in ("none", "same-origin"):
        raise Forbidden("The request comes from a page of another site.", where="Origin")


def is_visit(connection: HTTPConnection) -> bool:
    """Whether a person follows a link to a page, from wherever it stands. A page changes nothing, and is shown in no
    frame of another site; answers to programs are not for this."""
    return (
        connection.scope.get("method") == "GET"
        and not connection.scope["path"].startswith("/api/")
        and connection.headers.get("sec-fetch-mode") == "navigate"
        and connection.headers.get("sec-fetch-dest") == "document"
    )


def refuse_strangers(connection: HTTPConnection) -> None:
    """Raise `Forbidden` for what does not come from this machine; for servers without accounts.

    A name that was made to point here (DNS rebinding) shows in the host.
    """
    if _hostname(f"//{connection.headers.get('host', '')}") not in LOOPBACK:
        raise Forbidden("This server answers to this machine only.", where="Host")
    scheme = {"ws": "http", "wss": "https"}.get(connection.url.scheme, connection.url.scheme)
    if connection.headers.get("origin") not in (None, f"{scheme}://{connection.headers['host']}"):
        raise Forbidden("The request comes from a page of another site.", where="Origin")
    if forwarded := next((name for name in FORWARDED if name in connection.headers), None):
        raise Forbidden(
            "The request was forwarded, and there are no accounts to tell who may do what.",
            where=forwarded,
            remedy="Make one first: vizsla account create NAME",
        )


def address(scope: Scope) -> str:
    """Where a request comes from."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _whole_path(connection: HTTPConnection) -> str:
    query = connection.url.query
    return connection.url.path + (f"?{query}" if query else "")


def _hostname(url: str) -> str | None:
    with suppress(ValueError):
        return urlsplit(url).hostname
    return None


def _netloc(url: str) -> str | None:
    with suppress(ValueError):
        return urlsplit(url).netloc
    return None


def _add_headers(scope: Scope, message: Message) -> None:
    headers = MutableHeaders(scope=message)
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("Cache-Control", "no-store")
    headers["X-Request-Id"] = scope["state"]["request_id"]


async def _refuse(answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await answer(scope, receive, send)
    else:
        await WebSocket(scope, receive, send).close(code=1008)
