"""`/api/v1/session`, `/accounts`, `/tokens` and `/audit`: who may use the server, and what they did."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from vizsla.api import accounts
from vizsla.errors import Conflict, Forbidden, InvalidInput, NotSignedIn
from vizsla.store.rows import TOKEN_DAYS, Role
from vizsla.store.workspace import Workspace
from vizsla.web import auth
from vizsla.web.attempts import Attempts
from vizsla.web.auth import Asker, Who
from vizsla.web.guard import address
from vizsla.web.schema import Answer, Body, Limit, Page, Ws

router = APIRouter(tags=["accounts"])


def _self(asker: Asker, name: str) -> None:
    if asker.name != name:
        raise Forbidden("A token is made by the one for whom it acts.", remedy="Sign in as that account.")


def _self_or_admin(asker: Asker, name: str) -> None:
    if asker.name != name and asker.role != "admin":
        raise Forbidden("Only admins see and change the accounts of others.", remedy="Ask an admin.")


ADMIN = [Depends(auth.admin)]
ADMIN_IN_PERSON = [Depends(auth.admin), Depends(auth.in_person)]
SELF_OR_ADMIN = [Depends(_self_or_admin)]

Password = Annotated[str, Field(max_length=1000)]


class SignIn(Body):
    """Name and password."""

    name: str = Field(max_length=100)
    password: Password


class SessionAnswer(Answer):
    """Who asks."""

    name: str
    role: Role
    proved_by: str = Field(description="session, token, or nothing: on a server without accounts")
    expires_at: str | None


class AccountAnswer(Answer):
    """An account."""

    id: str
    name: str
    role: Role
    created_at: str
    disabled: bool


class Confirmed(Body):
    """What takes the password of who asks once more: a browser may have been left open."""

    current_password: Password | None = Field(None, description="of who asks; a server without accounts needs none")


class NewAccount(Confirmed):
    """An account to make."""

    name: str = Field(max_length=100)
    password: Password
    role: Role = "member"


class AccountChange(Confirmed):
    """What is to become of an account; what is left out stays."""

    role: Role | None = None
    disabled: bool | None = None
    password: Password | None = None


class TokenAnswer(Answer):
    """A token, without its secret."""

    id: str
    name: str
    created_at: str
    expires_at: str
    used_at: str | None = Field(description="to ten minutes")


class NewToken(Confirmed):
    """A token to make."""

    name: str = Field(max_length=100, description="what it is for")
    days: int = Field(TOKEN_DAYS, ge=1, le=accounts.MAX_TOKEN_DAYS)


class Secret(TokenAnswer):
    """A token with its secret, which is told only once."""

    secret: str


class ActionAnswer(Answer):
    """Something that was done, or tried."""

    number: int
    at: str
    account: str
    address: str
    action: str
    thing: str
    outcome: str


@router.post("/session")
def sign_in(request: Request, body: SignIn, response: Response) -> SessionAnswer:
    """Begin a session: the answer sets a cookie."""
    ws = request.app.state.workspace
    if not auth.accounts_exist(request.app, ws):
        raise Conflict("There are no accounts: nobody has to sign in.", remedy="Make one: vizsla account create NAME")
    attempts: Attempts = request.app.state.attempts
    request.state.tried = _known(ws, body.name)
    with attempts.one(address(request.scope), body.name):
        secret, (account, credential) = accounts.sign_in(ws, body.name, body.password)
    request.state.who = Who(account.name, account.role, credential)  # for the audit log
    auth.set_cookie(request, response, secret)
    return _session(request.state.who)


@router.get("/session")
def get_session(asker: Asker) -> SessionAnswer:
    """Who asks."""
    return _session(asker)


@router.delete("/session", status_code=204)
def sign_out(request: Request, response: Response, asker: Asker, ws: Ws) -> None:
    """End the session, or give back the token, that proves who asks."""
    if asker.credential is not None:
        accounts.revoke(ws, asker.name, asker.credential.id)
    auth.forget_cookie(request, response)


def _session(asker: Who) -> SessionAnswer:
    proof = asker.credential
    return SessionAnswer(
        name=asker.name,
        role=asker.role,
        proved_by=proof.kind if proof else "nothing",
        expires_at=proof.expires_at if proof else None,
    )


@router.get("/accounts", dependencies=ADMIN)
def list_accounts(ws: Ws) -> list[AccountAnswer]:
    """All accounts, by name."""
    return [AccountAnswer.model_validate(account) for account in accounts.list_all(ws)]


@router.post("/accounts", status_code=201, dependencies=ADMIN_IN_PERSON)
def create_account(ws: Ws, asker: Asker, request: Request, body: NewAccount) -> AccountAnswer:
    """Make an account. The first one is made at the command line, by who may do everything anyway."""
    if asker.credential is None:
        raise Forbidden("The first account is made on the machine.", remedy="There: vizsla account create NAME")
    _confirm(request, ws, body)
    request.state.thing = f"{body.name} as {body.role}"
    return AccountAnswer.model_validate(accounts.create(ws, body.name, body.password, role=body.role))


@router.get("/accounts/{name}", dependencies=SELF_OR_ADMIN)
def get_account(ws: Ws, name: str) -> AccountAnswer:
    """One's own account; for admins, any."""
    return AccountAnswer.model_validate(accounts.get(ws, name))


@router.patch("/accounts/{name}", dependencies=[*SELF_OR_ADMIN, Depends(auth.in_person)])
def change_account(ws: Ws, asker: Asker, request: Request, name: str, body: AccountChange) -> AccountAnswer:
    """Change one's own password; for admins, anything of any account. Its sessions end."""
    if asker.role != "admin" and (body.role is not None or body.disabled is not None):
        raise Forbidden("Only admins change roles, and disable accounts.", remedy="Ask an admin.")
    changes = body.model_dump(exclude_none=True, exclude={"current_password"})
    request.state.thing = f"{name}: {', '.join(changes)}"
    if changes:
        _confirm(request, ws, body)
    changed = accounts.change(ws, name, role=body.role, password=body.password, disabled=body.disabled)
    return AccountAnswer.model_validate(changed)


def _confirm(request: Request, ws: Ws, body: Confirmed) -> None:
    """Raise unless it is still the one who signed in: who finds a browser open cannot make its owner's place theirs."""
    attempts: Attempts = request.app.state.attempts
    try:
        with attempts.one(address(request.scope), ws.user):
            accounts.check_password(ws, ws.user, body.current_password or "")
    except NotSignedIn:
        raise InvalidInput(
            "This is not your password.", where="current_password", remedy="Give it once more, to prove that it is you."
        ) from None


def _known(ws: Workspace, name: str) -> str:
    """A name if an account has it, for the audit log: people type passwords where names belong."""
    return name if any(account.name == name for account in accounts.list_all(ws)) else ""


@router.delete("/accounts/{name}", dependencies=ADMIN_IN_PERSON)
def delete_account(ws: Ws, name: str) -> AccountAnswer:
    """Delete an account with its tokens. What it owns stays."""
    return AccountAnswer.model_validate(accounts.delete(ws, name))


@router.get("/accounts/{name}/tokens", dependencies=SELF_OR_ADMIN)
def list_tokens(ws: Ws, name: str) -> list[TokenAnswer]:
    """The tokens of one's own account; for admins, of any."""
    return [TokenAnswer.model_validate(token) for token in accounts.tokens(ws, name)]


@router.post("/accounts/{name}/tokens", status_code=201, dependencies=[Depends(_self), Depends(auth.in_person)])
def create_token(ws: Ws, request: Request, name: str, body: NewToken) -> Secret:
    """A token with which a program acts for an account. Its secret is told here, and never again."""
    _confirm(request, ws, body)
    secret, token = accounts.create_token(ws, name, body.name, days=body.days)
    request.state.thing = f"{name}: token {token.id}"
    return Secret.model_validate(token._asdict() | {"secret": secret})


@router.delete("/accounts/{name}/tokens/{id}", status_code=204, dependencies=SELF_OR_ADMIN)
def revoke_token(ws: Ws, name: str, id: str) -> None:
    """Let a token of one's own prove nothing from now on; for admins, any."""
    accounts.revoke(ws, name, id)


@router.get("/audit", dependencies=ADMIN)
def list_actions(
    ws: Ws,
    limit: Limit = 50,
    after: Annotated[str | None, Query(pattern="^[0-9]{1,15}$", description="The `next` of the page before.")] = None,
) -> Page[ActionAnswer]:
    """What was done, and tried, and by whom: the last first."""
    found = accounts.actions(ws, limit=limit + 1, before=int(after) if after else None)
    items = [ActionAnswer.model_validate(action) for action in found[:limit]]
    return Page(items=items, next=str(items[-1].number) if len(found) > limit else None)
