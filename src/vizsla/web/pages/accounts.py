"""`/sign-in`, `/account`, `/accounts`: who may use the server, and what they did."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from vizsla.api import accounts as verbs
from vizsla.store.rows import TOKEN_DAYS
from vizsla.web import auth
from vizsla.web.auth import Asker
from vizsla.web.pages.render import PageRoute, render
from vizsla.web.routes import accounts
from vizsla.web.schema import Ws

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/sign-in", response_class=HTMLResponse)
def sign_in(request: Request, next: Annotated[str, Query(max_length=2000)] = "/") -> Response:
    """Where people say who they are. Afterwards they go on to `next`, which is a page of this server."""
    onward = next if next.startswith("/") and not next.startswith(("//", "/\\")) else "/"
    if not auth.accounts_exist(request.app, request.app.state.workspace):
        return RedirectResponse(onward, 303)
    return render(request, "sign-in.html", onward=onward)


@router.get("/account", response_class=HTMLResponse, dependencies=[Depends(auth.by_method)])
def my_account(ws: Ws, asker: Asker, request: Request) -> HTMLResponse:
    """One's own account: password, tokens."""
    tokens = verbs.tokens(ws, asker.name) if asker.credential else []
    return render(request, "account.html", twin="/api/v1/session", tokens=tokens, days=TOKEN_DAYS)


@router.get("/accounts", response_class=HTMLResponse, dependencies=[Depends(auth.admin)])
def list_accounts(
    ws: Ws,
    request: Request,
    after: Annotated[str | None, Query(pattern="^[0-9]{1,15}$")] = None,
) -> HTMLResponse:
    """All accounts, and what was done by whom; for admins."""
    actions = accounts.list_actions(ws, limit=50, after=after)
    return render(
        request,
        "accounts.html",
        twin="/api/v1/accounts",
        accounts=verbs.list_all(ws),
        actions=actions.items,
        next=actions.next,
    )
