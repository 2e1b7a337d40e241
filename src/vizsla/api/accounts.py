"""Verbs on accounts: who may use a server, how they prove it, and what they did."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import unicodedata
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from vizsla.api.served import served
from vizsla.errors import Forbidden, InvalidInput, NotFound, NotSignedIn
from vizsla.store.accounts import Known
from vizsla.store.rows import TOKEN_DAYS, Account, Action, Credential, CredentialKind, Role
from vizsla.store.workspace import Workspace

if TYPE_CHECKING:
    from pwdlib import PasswordHash

log = logging.getLogger("vizsla.accounts")

NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
MIN_PASSWORD, MAX_PASSWORD = 10, 256
SESSION_DAYS = 7
MAX_TOKEN_DAYS = 366
AUDIT_DAYS = 400
# To note each use of a token would make every request a writing one.
USED_EVERY = timedelta(minutes=10)
# What tools that look for leaked secrets can tell it by.
TOKEN_PREFIX = "vizsla_"


class Bearer(NamedTuple):
    """Who asks, and what proves it."""

    account: Account
    credential: Credential


@served
def create(ws: Workspace, name: str, password: str, *, role: Role | None = None) -> Account:
    """Make an account. The first one of a workspace is made where it lies, and not through a server.

    Args:
        role: viewer (reads), member (makes things, and changes its own), or admin (changes all, and accounts).
            By default the first account is an admin, and every other a member.

    Raises:
        InvalidInput: the name or the password cannot be used.
        Conflict: the name is taken.
    """
    check_name(name)
    _require_admin(ws)
    _check_password(name, password)
    return ws.store.accounts.add(name, role, _hasher().hash(_canonical(password)))


def check_name(name: str) -> None:
    """Raise `InvalidInput` unless this can be the name of an account."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:80]!r} cannot be the name of an account.",
            where="name",
            remedy="It has 1 to 64 characters: small letters, digits, and . _ @ - within.",
        )


@served
def get(ws: Workspace, name: str) -> Account:
    """The account of this name."""
    return ws.store.accounts.get(name)


@served
def list_all(ws: Workspace) -> list[Account]:
    """All accounts, by name."""
    return ws.store.accounts.all()


@served
def change(
    ws: Workspace,
    name: str,
    *,
    role: Role | None = None,
    password: str | None = None,
    disabled: bool | None = None,
) -> Account:
    """Change an account, as a whole or not at all; None leaves as it is. Its sessions end, its tokens stay.

    Args:
        disabled: it proves nothing then, neither by its password nor by its tokens.

    Raises:
        InvalidInput: the password cannot be used.
        Conflict: no admin would be left.
    """
    if ws.user != name or role is not None or disabled is not None:
        _require_admin(ws)
    columns: dict[str, object] = {"role": role, "disabled": disabled}
    if password is not None:
        _check_password(name, password)
        columns["password"] = _hasher().hash(_canonical(password))
    given = {column: value for column, value in columns.items() if value is not None}
    return ws.store.accounts.change(name, **given) if given else ws.store.accounts.get(name)


@served
def delete(ws: Workspace, name: str) -> Account:
    """Delete an account with its sessions and tokens. What it owned stays, for admins to look after.

    Raises:
        Conflict: it is the last admin.
    """
    _require_admin(ws)
    return ws.store.accounts.remove(name)


def sign_in(ws: Workspace, name: str, password: str) -> tuple[str, Bearer]:
    """Begin a session; returns the secret that proves it.

    Raises:
        NotSignedIn: name and password do not belong together, or the account is disabled. Which, is not said.
    """
    known = check_password(ws, name, password)
    secret, credential = _give(ws, known, "session", "", SESSION_DAYS)
    return secret, Bearer(known.account, credential)


def check_password(ws: Workspace, name: str, password: str) -> Known:
    """The account of this name and password, as it is at this moment.

    Raises:
        NotSignedIn: as `sign_in`.
    """
    try:
        known = ws.store.accounts.known(name)
    except NotFound:
        known = None
    # One that does not exist takes as long.
    right = _hasher().verify(_canonical(password[:MAX_PASSWORD]), known.password if known else _nobody())
    if known is None or not right or known.account.disabled or len(password) > MAX_PASSWORD:
        raise NotSignedIn("Name and password do not belong to an account.", remedy="Ask an admin for a new password.")
    return known


@served
def create_token(ws: Workspace, account: str, name: str, *, days: int = TOKEN_DAYS) -> tuple[str, Credential]:
    """A token with which a program acts for an account; its secret is returned here, and never again.

    A server gives one to the account itself only, signed in with its password.

    Args:
        name: what it is for.
        days: until it proves nothing.
    """
    if not name or len(name) > 100 or not name.isprintable():
        raise InvalidInput("A token needs a name of 1 to 100 printable characters.", where="name")
    if not 1 <= days <= MAX_TOKEN_DAYS:
        raise InvalidInput(f"A token lives for 1 to {MAX_TOKEN_DAYS} days.", where="days")
    return _give(ws, ws.store.accounts.known(account), "token", name, days)


@served
def tokens(ws: Workspace, account: str) -> list[Credential]:
    """The tokens of an account that are not out of date, oldest first."""
    return ws.store.accounts.credentials(ws.store.accounts.get(account), "token")


@served
def revoke(ws: Workspace, account: str, id: str) -> None:
    """Let a token or session of an account prove nothing from now on.

    Raises:
        NotFound: the account has none of this id.
    """
    ws.store.accounts.revoke(ws.store.accounts.get(account), id)


def bearer(ws: Workspace, secret: str) -> Bearer | None:
    """Who it is that has this secret; None when it proves nothing."""
    found = ws.store.accounts.bearer(_digest(secret))
    if found is None:
        return None
    account, credential = found
    if credential.used_at is None or datetime.now(UTC) - datetime.fromisoformat(credential.used_at) > USED_EVERY:
        try:
            ws.store.accounts.used(credential.id)
        except Exception:  # a full disk must not keep out the one who would make room
            log.warning("The use of a token cannot be noted.", exc_info=True)
    return Bearer(account, credential)


@served
def actions(ws: Workspace, *, limit: int = 50, before: int | None = None) -> list[Action]:
    """What was done, and tried, through servers and with accounts: the last first."""
    return ws.store.accounts.actions(limit=limit, before=before)


@served
def note(ws: Workspace, action: str, thing: str) -> None:
    """Write down what was done here, without a server; a server writes down by itself what it is asked."""
    note_of(ws, ws.user, "here", action, thing, "done")


def note_of(ws: Workspace, *texts: str) -> None:
    """Write down who did, or tried, from where, what, to what, and how it ended; forget it after `AUDIT_DAYS`."""
    ws.store.accounts.note(*texts, until=_time(-AUDIT_DAYS))


def _give(ws: Workspace, owner: Known, kind: CredentialKind, name: str, days: int) -> tuple[str, Credential]:
    secret = (TOKEN_PREFIX if kind == "token" else "") + secrets.token_urlsafe(32)
    return secret, ws.store.accounts.give(owner, kind, name, _digest(secret), _time(days))


def _require_admin(ws: Workspace) -> None:
    if ws.role != "admin":
        raise Forbidden("Only admins change accounts.", remedy="Ask an admin.")


def _digest(secret: str) -> str:
    # 256 bits of chance cannot be guessed, so a fast hash will do.
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _time(days: int) -> str:
    at = datetime.now(UTC) + timedelta(days=days)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _check_password(name: str, password: str) -> None:
    stripped = password.strip()
    if len(stripped) < MIN_PASSWORD or len(password) > MAX_PASSWORD or stripped.casefold() == name.casefold():
        raise InvalidInput(
            "The password cannot be used.",
            where="password",
            remedy=f"It has {MIN_PASSWORD} to {MAX_PASSWORD} characters, and is not the name.",
        )


def _canonical(password: str) -> bytes:
    """The same bytes for the same letters, however a keyboard composes them."""
    return unicodedata.normalize("NFKC", password).encode(errors="surrogatepass")


@cache
def _hasher() -> PasswordHash:
    from pwdlib import PasswordHash

    return PasswordHash.recommended()


@cache
def _nobody() -> str:
    return _hasher().hash(secrets.token_urlsafe())
