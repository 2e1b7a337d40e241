"""`vizsla account`: who may use a server of this workspace, and what they did."""

from __future__ import annotations

import getpass
import sys
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import App, Parameter

import vizsla
from vizsla.api import accounts
from vizsla.cli.opening import server_of
from vizsla.cli.options import Common, count
from vizsla.cli.output import err, next_step, out, print_json, safe, table
from vizsla.client.server import Server
from vizsla.errors import InvalidInput
from vizsla.store.rows import TOKEN_DAYS, Account, Credential, Role
from vizsla.store.workspace import Workspace

app = App(name="account", help="Say who may use a server of this workspace, and see what they did.")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Person:
    """Who asks a server about accounts: by a token, or in person."""

    account: Annotated[
        str | None,
        Parameter(
            name="--as",
            show_default=False,
            help="With a server, the account to sign in as, with its password; a token changes no accounts.",
        ),
    ] = None
    password_stdin: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Read passwords from standard input, a line each, that of --as first, and do not ask.",
        ),
    ] = False

    def open(self, common: Common) -> Workspace | Server:
        """The workspace of a command, signed in to where it is a server's and somebody is named."""
        if self.account is None:
            return common.open()
        url = server_of(common)
        if url is None:
            raise InvalidInput("--as signs in to a server.", where="--as", remedy="Give --server, or leave it out.")
        return vizsla.connect(url, account=self.account, password=self.read(f"Password of {safe(self.account)}: "))

    def read_new(self) -> str:
        """A new password, asked for twice at a terminal."""
        first = self.read("New password: ")
        if not self.password_stdin and self.read("Once more: ") != first:
            raise InvalidInput("The two are not the same.", remedy="Try again.")
        return first

    def read(self, prompt: str) -> str:
        """A password."""
        if self.password_stdin:
            return sys.stdin.readline().rstrip("\r\n")
        if not sys.stdin.isatty():
            raise InvalidInput("There is no terminal to ask for a password at.", remedy="Use --password-stdin.")
        return getpass.getpass(prompt)


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
    person: Person = Person(),
    common: Common = Common(),
) -> None:
    """Make an account. With the first one, everybody has to sign in to a server of this workspace.

    Args:
        name: Small letters and digits, with . _ @ - within.
    """
    accounts.check_name(name)  # before a password is asked for
    with person.open(common) as ws:
        made = accounts.create(ws, name, person.read_new(), role=role)
        accounts.note(ws, "account create", f"{made.name} as {made.role}")
        first = len(accounts.list_all(ws)) == 1
    text = f"Made the account {safe(made.name)}, a{'n' if made.role == 'admin' else ''} {made.role}."
    _tell(made, text + " From now on everybody has to sign in to a server here." if first else text, common)
    if not common.json and server_of(common) is None:
        next_step(["vizsla", "serve"], "Serve the workspace to those who have an account:")


@app.command(name="list")
def list_(*, person: Person = Person(), common: Common = Common()) -> None:
    """List all accounts."""
    with person.open(common) as ws:
        found = accounts.list_all(ws)
    if common.json:
        print_json([account._asdict() for account in found])
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
def role(name: str, role: Role, /, *, person: Person = Person(), common: Common = Common()) -> None:
    """Give an account another role. Its sessions end.

    Args:
        name: Of the account.
        role: viewer, member or admin.
    """
    with person.open(common) as ws:
        changed = accounts.change(ws, name, role=role)
        accounts.note(ws, "account role", f"{name}: {role}")
    _tell(changed, f"{safe(name)} is a{'n' if role == 'admin' else ''} {role} now.", common)


@app.command
def password(name: str, /, *, person: Person = Person(), common: Common = Common()) -> None:
    """Give an account another password. Its sessions end, its tokens stay.

    Args:
        name: Of the account.
    """
    with person.open(common) as ws:
        accounts.get(ws, name)
        changed = accounts.change(ws, name, password=person.read_new())
        accounts.note(ws, "account password", name)
    _tell(changed, f"{safe(name)} has another password now.", common)


@app.command
def disable(name: str, /, *, person: Person = Person(), common: Common = Common()) -> None:
    """Let neither password nor tokens of an account prove anything, until it is enabled again.

    Args:
        name: Of the account.
    """
    with person.open(common) as ws:
        changed = accounts.change(ws, name, disabled=True)
        accounts.note(ws, "account disable", name)
    _tell(changed, f"{safe(name)} cannot use a server any more.", common)


@app.command
def enable(name: str, /, *, person: Person = Person(), common: Common = Common()) -> None:
    """Undo `disable`.

    Args:
        name: Of the account.
    """
    with person.open(common) as ws:
        changed = accounts.change(ws, name, disabled=False)
        accounts.note(ws, "account enable", name)
    _tell(changed, f"{safe(name)} can use a server again.", common)


@app.command
def delete(name: str, /, *, person: Person = Person(), common: Common = Common()) -> None:
    """Delete an account with its tokens. What it owned stays, for admins to look after.

    Args:
        name: Of the account.
    """
    with person.open(common) as ws:
        gone = accounts.delete(ws, name)
        accounts.note(ws, "account delete", name)
    _tell(gone, f"Deleted the account {safe(name)}.", common)


@app.command
def token(
    name: str,
    /,
    *,
    purpose: Annotated[str, Parameter(name="--for", help="What it is for, to know it by.")] = "programs",
    days: Annotated[int, Parameter(help="Days until it proves nothing.", converter=count)] = TOKEN_DAYS,
    person: Person = Person(),
    common: Common = Common(),
) -> None:
    """Make a token with which a program acts for an account, and print its secret, which is not kept.

    Args:
        name: Of the account.
    """
    with person.open(common) as ws:
        secret, made = accounts.create_token(ws, name, purpose, days=days)
        accounts.note(ws, "account token", f"{name}: {made.id}")
    if common.json:
        print_json(_as_json(made) | {"secret": secret})
        return
    err.print(f"A token that acts for {safe(name)} until {(made.expires_at or '')[:10]}. It is shown this once:")
    print(secret)  # alone on standard output, so that a script can take it


@app.command
def tokens(name: str, /, *, person: Person = Person(), common: Common = Common()) -> None:
    """List the tokens of an account.

    Args:
        name: Of the account.
    """
    with person.open(common) as ws:
        found = accounts.tokens(ws, name)
    if common.json:
        print_json([_as_json(token) for token in found])
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
def revoke(name: str, token: str, /, *, person: Person = Person(), common: Common = Common()) -> None:
    """Let a token prove nothing from now on.

    Args:
        name: Of the account.
        token: Id of the token.
    """
    with person.open(common) as ws:
        accounts.revoke(ws, name, token)
        accounts.note(ws, "account revoke", f"{name}: {token}")
    if common.json:
        print_json({"revoked": token})
    else:
        out.print(f"The token {safe(token)} proves nothing any more.")


@app.command
def audit(
    *,
    limit: Annotated[int, Parameter(help="Lines to show at most.", converter=count)] = 50,
    person: Person = Person(),
    common: Common = Common(),
) -> None:
    """Show what was done, and tried, through servers and with accounts: the last first."""
    with person.open(common) as ws:
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


def _tell(account: Account, text: str, common: Common) -> None:
    if common.json:
        print_json(account._asdict())
    else:
        out.print(text)


def _as_json(token: Credential) -> dict[str, Any]:
    return {name: value for name, value in token._asdict().items() if name != "kind"}
