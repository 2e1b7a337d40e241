"""The verbs on accounts, on a server. What changes them takes a name and a password, and not a token."""

from __future__ import annotations

from typing import Any

from vizsla.client.server import PAGE, Server, parsed
from vizsla.store.rows import TOKEN_DAYS, Account, Action, Credential, Role


def create(server: Server, name: str, password: str, *, role: Role | None = None) -> Account:
    """See `vizsla.api.accounts.create`."""
    body = {"name": name, "password": password, **({"role": role} if role else {})}
    return parsed(Account, server.post("accounts", body=server.confirmed(body)))


def get(server: Server, name: str) -> Account:
    """See `vizsla.api.accounts.get`."""
    return parsed(Account, server.get("accounts", name))


def list_all(server: Server) -> list[Account]:
    """See `vizsla.api.accounts.list_all`."""
    return parsed(list[Account], server.get("accounts"))


def change(
    server: Server,
    name: str,
    *,
    role: Role | None = None,
    password: str | None = None,
    disabled: bool | None = None,
) -> Account:
    """See `vizsla.api.accounts.change`. Who changes their own account is signed in anew."""
    given = {"role": role, "password": password, "disabled": disabled}
    body = {field: value for field, value in given.items() if value is not None}
    changed = parsed(Account, server.patch("accounts", name, body=server.confirmed(body)))
    if body and server.person is not None and server.person.name == name and not changed.disabled:
        server.sign_in(name, password or server.person.password)
    return changed


def delete(server: Server, name: str) -> Account:
    """See `vizsla.api.accounts.delete`."""
    return parsed(Account, server.delete("accounts", name))


def create_token(server: Server, account: str, name: str, *, days: int = TOKEN_DAYS) -> tuple[str, Credential]:
    """See `vizsla.api.accounts.create_token`."""
    found = server.post("accounts", account, "tokens", body=server.confirmed({"name": name, "days": days}))
    secret: str = found.pop("secret")
    return secret, _token(found)


def tokens(server: Server, account: str) -> list[Credential]:
    """See `vizsla.api.accounts.tokens`."""
    return [_token(found) for found in server.get("accounts", account, "tokens")]


def revoke(server: Server, account: str, id: str) -> None:
    """See `vizsla.api.accounts.revoke`."""
    server.delete("accounts", account, "tokens", id)


def actions(server: Server, *, limit: int = 50, before: int | None = None) -> list[Action]:
    """See `vizsla.api.accounts.actions`."""
    found: list[Action] = []
    after = None if before is None else str(before)
    while len(found) < limit:
        page = server.get("audit", limit=min(limit - len(found), PAGE), after=after)
        found += parsed(list[Action], page["items"])
        after = page["next"]
        if after is None:
            break
    return found


def note(server: Server, action: str, thing: str) -> None:
    """See `vizsla.api.accounts.note`: a server writes down by itself what it is asked."""


def _token(found: dict[str, Any]) -> Credential:
    return parsed(Credential, found | {"kind": "token"})
