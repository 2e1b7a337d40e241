"""Who asks, and what their role allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, NamedTuple, get_args

from fastapi import Depends, FastAPI, Request, Response
from starlette.requests import HTTPConnection

from vizsla.api import accounts
from vizsla.errors import Forbidden, NotSignedIn
from vizsla.store.rows import Credential, Role
from vizsla.store.workspace import Workspace

# What goes on for long, a socket or a log, ends so long after its session has ended or its token was revoked.
ADMITTED_FOR_S = 5.0
COOKIE = "vizsla_session"
"""of a browser without TLS; the port follows: a browser gives the cookies of a host to all its servers"""
# A browser takes a cookie of this name over TLS only, and for this host only.
SECURE_COOKIE = f"__Host-{COOKIE}"
RANK: dict[str, int] = {role: rank for rank, role in enumerate(get_args(Role))}
# Probes carry no token; and who wants to sign in has not done so yet.
PUBLIC = (("GET", "/healthz"), ("GET", "/readyz"), ("POST", "/api/v1/session"), ("GET", "/sign-in"))
# Styles and scripts, the same for everybody.
PUBLIC_FILES = "/static/"


class Who(NamedTuple):
    """Who asks."""

    name: str
    role: Role
    credential: Credential | None = None
    """what proved it; None on a server without accounts"""


def accounts_exist(app: FastAPI, ws: Workspace) -> bool:
    """Whether people have to say who they are. Once there is an account there always is one."""
    app.state.has_accounts = app.state.has_accounts or ws.store.accounts.any()
    return bool(app.state.has_accounts)


def is_public(connection: HTTPConnection) -> bool:
    """Whether anybody may ask this."""
    method, path = connection.scope.get("method"), connection.scope["path"]
    return (method, path) in PUBLIC or (method == "GET" and path.startswith(PUBLIC_FILES))


def wants_page(connection: HTTPConnection) -> bool:
    """Whether a person asks, for a page."""
    page = not connection.scope["path"].startswith("/api/")
    return page and connection.scope.get("method") == "GET" and "text/html" in connection.headers.get("accept", "")


def identify(connection: HTTPConnection, ws: Workspace) -> Who:
    """Who asks, by the token of a program or the session of a browser.

    Raises:
        NotSignedIn: neither is there, or it proves nothing (any more).
    """
    header = connection.headers.get("authorization")
    if header is not None:
        scheme, _, secret = header.partition(" ")
        kind = "token" if scheme.lower() == "bearer" else None
    else:
        secret, kind = connection.cookies.get(_cookie(connection), ""), "session"
    found = accounts.bearer(ws, secret.strip()) if kind and secret else None
    if found is None or found.credential.kind != kind:
        raise NotSignedIn(
            "This server wants to know who asks."
            if header is None and not secret
            else "This token or session is not known here: it is mistyped, was revoked, or has ended.",
            remedy="Sign in, or send a token that is in date: Authorization: Bearer TOKEN",
        )
    return Who(found.account.name, found.account.role, found.credential)


def admit(connection: HTTPConnection, ws: Workspace) -> None:
    """Raise `VizslaError` where who asks may not be told any more; looked at every `ADMITTED_FOR_S`."""
    if accounts_exist(connection.app, ws):
        identify(connection, ws)


def by_method(connection: HTTPConnection) -> None:
    """Let viewers read, and members do all else; whose things may be changed is for the verbs to say."""
    require(connection, "viewer" if connection.scope.get("method", "GET") in ("GET", "HEAD") else "member")


def member(connection: HTTPConnection) -> None:
    """Let members through, and admins."""
    require(connection, "member")


def admin(connection: HTTPConnection) -> None:
    """Let admins through."""
    require(connection, "admin")


def in_person(connection: HTTPConnection) -> None:
    """Let those through who have signed in. A token that was stolen cannot make another, nor an account."""
    credential = who(connection).credential
    if credential is not None and credential.kind != "session":
        raise Forbidden("A token cannot do this.", remedy="Sign in with name and password, commands by --as NAME.")


def require(connection: HTTPConnection, role: Role) -> None:
    """Raise `Forbidden` unless who asks has this role, or one that may do more."""
    mine = who(connection).role
    if RANK[mine] < RANK[role]:
        raise Forbidden(f"This takes the role of {role}; yours is {mine}.", remedy="Ask an admin.")


def who(connection: HTTPConnection) -> Who:
    """Who asks, as the guard has found out."""
    found: Who | None = connection.state.who
    if found is None:
        raise NotSignedIn("This server wants to know who asks.")
    return found


Asker = Annotated[Who, Depends(who)]


def workspace(connection: HTTPConnection) -> Workspace:
    """The workspace that the server runs on, on behalf of who asks."""
    asker = who(connection)
    served: Workspace = connection.app.state.workspace
    return replace(served, user=asker.name, role=asker.role)


def set_cookie(request: Request, response: Response, secret: str) -> None:
    """Have a browser prove who asks from now on."""
    response.set_cookie(
        _cookie(request),
        secret,
        max_age=accounts.SESSION_DAYS * 86_400,
        secure=is_secure(request),
        httponly=True,
        samesite="strict",
    )


def forget_cookie(request: Request, response: Response) -> None:
    """Have a browser forget the session."""
    response.delete_cookie(_cookie(request), secure=is_secure(request), httponly=True, samesite="strict")


def is_secure(connection: HTTPConnection) -> bool:
    """Whether a request came over TLS, as far as is known."""
    return connection.url.scheme in ("https", "wss")


def _cookie(connection: HTTPConnection) -> str:
    return SECURE_COOKIE if is_secure(connection) else f"{COOKIE}_{connection.scope['server'][1]}"
