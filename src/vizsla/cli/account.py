"""`vizsla account`: who may use a server of this workspace, and what they did."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated, Any

from cyclopts import App, Parameter

from vizsla.api import accounts
from vizsla.cli.options import Common, count
from vizsla.cli.output import err, next_step, out, print_json, safe, table
from vizsla.errors import InvalidInput
from vizsla.store.accounts import Account, Credential, Role
from vizsla.store.workspace import Workspace

WHY = "Accounts are made and changed where the workspace lies, or by those who sign in to the server."

app = App(name="account", help="Say who may use a server of this workspace, and see what they did.")

PasswordStdin = Annotated[
    bool, Parameter(negative="", show_default=False, help="Read the password from standard input, and do not ask.")
]


@app.command
def create(
    name: str,
    /,
    *,
    role: Annotated[
        Role | None,
        Parameter(
            show_default=False,
            help="viewer: sees all. member: makes things, changes their own. admin: changes all, and accounts. "
            "Default: admin for the first account, else member.",
        ),
    ] = None,
    password_stdin: PasswordStdin = False,
    common: Common = Common(),
) -> None:
    """Make an account. With the first one, everybody has to sign in to a server of this workspace.

    Args:
        name: Small letters and digits, with . _ @ - within.
    """
    accounts.check_name(name)  # before a password is asked for
    with common.open_here(why=WHY) as ws:
        made = accounts.create(ws, name, _password(password_stdin), role=role)
        _note(ws, "create", f"{made.name} as {made.role}")
    _tell(made, f"Made the account {safe(made.name)}, a{'n' if made.role == 'admin' else ''} {made.role}.", common)
    if not common.json:
        next_step(["vizsla", "serve"], "Serve the workspace to those who have an account:")


@app.command(name="list")
def list_(*, common: Common = Common()) -> None:
    """List all accounts."""
    with common.open_here(why=WHY) as ws:
        found = accounts.list_all(ws)
    if common.json:
        print_json([_as_json(account) for account in found])
    elif not found:
        out.print("There are no accounts: a server answers to this machine only, and to all who use it.")
        next_step(["vizsla", "account", "create", "NAME"], "Make one:")
    else:
        rows = [
            (safe(account.name), account.role, "disabled" if account.disabled else "", account.created_at[:10])
            for account in found
        ]
        out.print(table(("name", "role", "", "since"), rows))


@app.command
def role(name: str, role: Role, /, *, common: Common = Common()) -> None:
    """Give an account another role. Its sessions end.

    Args:
        name: Of the account.
        role: viewer, member or admin.
    """
    with common.open_here(why=WHY) as ws:
        changed = accounts.change(ws, name, role=role)
        _note(ws, "role", f"{name}: {role}")
    _tell(changed, f"{safe(name)} is a{'n' if role == 'admin' else ''} {role} now.", common)


@app.command
def password(name: str, /, *, password_stdin: PasswordStdin = False, common: Common = Common()) -> None:
    """Give an account another password. Its sessions end, its tokens stay.

    Args:
        name: Of the account.
    """
    with common.open_here(why=WHY) as ws:
        accounts.get(ws, name)
        changed = accounts.change(ws, name, password=_password(password_stdin))
        _note(ws, "password", name)
    _tell(changed, f"{safe(name)} has another password now.", common)


@app.command
def disable(name: str, /, *, common: Common = Common()) -> None:
    """Let neither password nor tokens of an account prove anything, until it is enabled again.

    Args:
        name: Of the account.
    """
    with common.open_here(why=WHY) as ws:
        changed = accounts.change(ws, name, disabled=True)
        _note(ws, "disable", name)
    _tell(changed, f"{safe(name)} cannot use a server any more.", common)


@app.command
def enable(name: str, /, *, common: Common = Common()) -> None:
    """Undo `disable`.

    Args:
        name: Of the account.
    """
    with common.open_here(why=WHY) as ws:
        changed = accounts.change(ws, name, disabled=False)
        _note(ws, "enable", name)
    _tell(changed, f"{safe(name)} can use a server again.", common)


@app.command
def delete(name: str, /, *, common: Common = Common()) -> None:
    """Delete an account with its tokens. What it owned stays, for admins to look after.

    Args:
        name: Of the account.
    """
    with common.open_here(why=WHY) as ws:
        gone = accounts.delete(ws, name)
        _note(ws, "delete", name)
    _tell(gone, f"Deleted the account {safe(name)}.", common)


@app.command
def token(
    name: str,
    /,
    *,
    purpose: Annotated[str, Parameter(name="--for", help="What it is for, to know it by.")] = "programs",
    days: Annotated[int, Parameter(help="Days until it proves nothing.", converter=count)] = accounts.TOKEN_DAYS,
    common: Common = Common(),
) -> None:
    """Make a token with which a program acts for an account, and print its secret, which is not kept.

    Args:
        name: Of the account.
    """
    with common.open_here(why=WHY) as ws:
        secret, made = accounts.create_token(ws, name, purpose, days=days)
        _note(ws, "token", f"{name}: {made.id}")
    if common.json:
        print_json(_without_digest(made) | {"secret": secret})
        return
    err.print(f"A token that acts for {safe(name)} until {(made.expires_at or '')[:10]}. It is shown this once:")
    print(secret)  # alone on standard output, so that a script can take it


@app.command
def tokens(name: str, /, *, common: Common = Common()) -> None:
    """List the tokens of an account.

    Args:
        name: Of the account.
    """
    with common.open_here(why=WHY) as ws:
        found = accounts.tokens(ws, name)
    if common.json:
        print_json([_without_digest(token) for token in found])
    elif not found:
        out.print(f"{safe(name)} has no tokens.")
    else:
        rows = [
            (
                token.id,
                safe(token.name),
                token.created_at[:10],
                (token.expires_at or "")[:10],
                (token.used_at or "")[:16],
            )
            for token in found
        ]
        out.print(table(("id", "for", "since", "until", "last used (UTC)"), rows))


@app.command
def revoke(name: str, token: str, /, *, common: Common = Common()) -> None:
    """Let a token prove nothing from now on.

    Args:
        name: Of the account.
        token: Id of the token.
    """
    with common.open_here(why=WHY) as ws:
        accounts.revoke(ws, name, token)
        _note(ws, "revoke", f"{name}: {token}")
    if common.json:
        print_json({"revoked": token})
    else:
        out.print(f"The token {safe(token)} proves nothing any more.")


@app.command
def audit(
    *,
    limit: Annotated[int, Parameter(help="Lines to show at most.", converter=count)] = 50,
    common: Common = Common(),
) -> None:
    """Show what was done, and tried, through servers and with accounts: the last first."""
    with common.open_here(why=WHY) as ws:
        found = accounts.actions(ws, limit=limit)
    if common.json:
        print_json([action._asdict() for action in found])
    elif not found:
        out.print("Nothing was done through a server yet.")
    else:
        rows = [
            (
                action.at[:19].replace("T", " "),
                safe(action.account),
                safe(action.address),
                safe(action.action),
                safe(action.thing),
                action.outcome,
            )
            for action in found
        ]
        out.print(table(("at (UTC)", "account", "from", "what", "of", "outcome"), rows))


def _password(from_stdin: bool) -> str:
    """A password, asked for twice at a terminal."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidInput("There is no terminal to ask for a password at.", remedy="Use --password-stdin.")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != first:
        raise InvalidInput("The two are not the same.", remedy="Try again.")
    return first


def _note(ws: Workspace, action: str, thing: str) -> None:
    accounts.note(ws, f"account {action}", thing)


def _tell(account: Account, text: str, common: Common) -> None:
    if common.json:
        print_json(_as_json(account))
    else:
        out.print(text)


def _as_json(account: Account) -> dict[str, Any]:
    fields = account._asdict()
    del fields["password"]
    return fields


def _without_digest(token: Credential) -> dict[str, Any]:
    return {name: value for name, value in token._asdict().items() if name not in ("digest", "account_id", "kind")}
