"""The rows of accounts, of what proves who asks, and of what was done."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from vizsla.errors import Conflict, NotFound, NotSignedIn
from vizsla.events import now
from vizsla.ids import new_id
from vizsla.store.rows import Account, Action, Credential, CredentialKind, Role
from vizsla.store.tables import account, answered, audit, credential, entry, job

MAX_CREDENTIALS = 200
MAX_ACTIONS = 1_000_000
# As wide as their columns.
MAX_TEXT = {"account": 100, "address": 64, "action": 64, "thing": 200, "outcome": 64}


class Known(NamedTuple):
    """An account, and the hash of its password, which is for nobody else."""

    account: Account
    password: str


class Accounts:
    """The accounts in a database. Every method is one transaction."""

    def __init__(self, engine: Engine, writer: Engine) -> None:
        self._engine = engine
        self._writer = writer

    def any(self) -> bool:
        """Whether there is an account."""
        with self._engine.connect() as connection:
            return connection.execute(select(account.c.id).limit(1)).first() is not None

    def add(self, name: str, role: Role | None, password: str) -> Account:
        """Make an account. The first one has to be an admin: no other could make more.

        Args:
            role: None makes the first an admin, and every other a member.
            password: its hash.

        Raises:
            Conflict: the name is taken, or that of an owner; or it is the first and no admin.
        """
        try:
            with self._writer.begin() as connection:
                first = connection.execute(select(account.c.id).limit(1)).first() is None
                role = role or ("admin" if first else "member")
                if first and role != "admin":
                    raise Conflict("The first account has to be an admin.", where="role", remedy="Make an admin first.")
                if role != "admin" and connection.execute(select(entry.c.id).where(entry.c.owner == name)).first():
                    raise Conflict(
                        f"Things that were made on this machine belong to a {name!r} already.",
                        where="name",
                        remedy="Choose another name; or make it an admin, who may change them anyway.",
                    )
                made = Account(new_id(), name, role, now(), disabled=False)
                connection.execute(insert(account).values(made._asdict() | {"password": password}))
        except IntegrityError:
            raise Conflict(f"There is an account {name!r} already.", remedy="Choose another name.") from None
        return made

    def get(self, name: str) -> Account:
        """The account of this name.

        Raises:
            NotFound: there is none.
        """
        return self.known(name).account

    def known(self, name: str) -> Known:
        """The account of this name with the hash of its password; errors as those of `get`."""
        with self._engine.connect() as connection:
            row = connection.execute(select(account).where(account.c.name == name)).first()
        if row is None:
            raise NotFound(f"There is no account {name[:100]!r}.", remedy="`vizsla account list` shows them all.")
        return Known(_account(row), row.password)

    def all(self) -> list[Account]:
        """All accounts, by name."""
        with self._engine.connect() as connection:
            return [_account(row) for row in connection.execute(select(account).order_by(account.c.name))]

    def change(self, name: str, **columns: Any) -> Account:
        """Change an account; ends its sessions. At least one admin who may sign in remains.

        Raises:
            NotFound: there is none of this name.
            Conflict: it is the last admin.
        """
        before = self.get(name)
        with self._writer.begin() as connection:
            connection.execute(update(account).where(account.c.id == before.id).values(columns))
            _require_admin(connection, name)
            sessions = (credential.c.account_id == before.id) & (credential.c.kind == "session")
            connection.execute(delete(credential).where(sessions))
        return self.get(name)

    def remove(self, name: str) -> Account:
        """Forget an account with its sessions and tokens. What it owned stays, and belongs to nobody.

        Raises:
            NotFound: there is none of this name.
            Conflict: it is the last admin.
        """
        gone = self.get(name)
        with self._writer.begin() as connection:
            connection.execute(delete(account).where(account.c.id == gone.id))
            _require_admin(connection, name)
            # Another of the same name would inherit it.
            for table in (entry, job):
                connection.execute(update(table).where(table.c.owner == name).values(owner=""))
            connection.execute(delete(answered).where(answered.c.account == name))
        return gone

    def give(self, owner: Known, kind: CredentialKind, name: str, digest: str, expires_at: str) -> Credential:
        """Let a secret with this digest prove that its bearer is `owner`.

        Raises:
            NotSignedIn: the account is not any more as it was seen.
            Conflict: it has very many.
        """
        made = Credential(new_id(), kind, name, now(), expires_at, None)
        id = owner.account.id
        same = (account.c.id == id) & (account.c.password == owner.password) & ~account.c.disabled
        mine = (credential.c.account_id == id) & (credential.c.kind == kind)
        with self._writer.begin() as connection:
            connection.execute(delete(credential).where(credential.c.expires_at < made.created_at))
            if connection.execute(select(account.c.id).where(same)).first() is None:
                raise NotSignedIn("The account was changed meanwhile.", remedy="Sign in again.")
            if connection.execute(select(func.count()).select_from(credential).where(mine)).scalar() == MAX_CREDENTIALS:
                what = f"{owner.account.name} has {MAX_CREDENTIALS} {kind}s."
                raise Conflict(what, remedy="Give some back first.")
            connection.execute(insert(credential).values(made._asdict() | {"account_id": id, "digest": digest}))
        return made

    def bearer(self, digest: str) -> tuple[Account, Credential] | None:
        """Whose secret has this digest; None when it is unknown, out of date, or the account is disabled."""
        query = (
            select(account, *(column.label(f"c_{column.name}") for column in credential.c))
            .join(credential, credential.c.account_id == account.c.id)
            .where((credential.c.digest == digest) & ~account.c.disabled)
            .where(credential.c.expires_at > now())
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            return None
        found = Credential(**{name: row[f"c_{name}"] for name in Credential._fields})
        return Account(**{name: row[name] for name in Account._fields}), found

    def used(self, id: str) -> None:
        """Note that a credential is in use."""
        with self._writer.begin() as connection:
            connection.execute(update(credential).where(credential.c.id == id).values(used_at=now()))

    def credentials(self, owner: Account, kind: CredentialKind) -> list[Credential]:
        """What an account has of a kind and is not out of date, oldest first."""
        query = (
            select(credential)
            .where((credential.c.account_id == owner.id) & (credential.c.kind == kind))
            .where(credential.c.expires_at > now())
            .order_by(credential.c.created_at, credential.c.id)
        )
        with self._engine.connect() as connection:
            return [_credential(row) for row in connection.execute(query)]

    def revoke(self, owner: Account, id: str) -> None:
        """Let a credential of an account prove nothing from now on.

        Raises:
            NotFound: the account has none of this id.
        """
        mine = (credential.c.id == id) & (credential.c.account_id == owner.id)
        with self._writer.begin() as connection:
            if connection.execute(delete(credential).where(mine)).rowcount == 0:
                raise NotFound(f"{owner.name} has no token {id[:40]!r}.")

    def note(self, account_name: str, address: str, action: str, thing: str, outcome: str, *, until: str) -> None:
        """Write down what was done, or tried; forget what was before `until`, and all but the last `MAX_ACTIONS`."""
        texts = {"account": account_name, "address": address, "action": action, "thing": thing, "outcome": outcome}
        values = {name: text[: MAX_TEXT[name]] for name, text in texts.items()}
        with self._writer.begin() as connection:
            adding = insert(audit).values(at=now(), **values).returning(audit.c.number)
            number = connection.execute(adding).scalar_one()
            connection.execute(delete(audit).where((audit.c.number <= number - MAX_ACTIONS) | (audit.c.at < until)))

    def actions(self, *, limit: int, before: int | None = None) -> list[Action]:
        """What was done, the last first, of those with a number below `before`."""
        query = select(audit).order_by(audit.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.number < before)
        with self._engine.connect() as connection:
            return [Action(**row) for row in connection.execute(query).mappings()]


def _require_admin(connection: Connection, name: str) -> None:
    """Raise, which rolls the change back, unless an admin who may sign in is left."""
    admins = select(func.count()).select_from(account).where((account.c.role == "admin") & ~account.c.disabled)
    if connection.execute(admins).scalar() == 0:
        raise Conflict(
            f"{name!r} is the last admin: nobody could look after the accounts any more.",
            remedy="Make another account an admin first.",
        )


def _account(row: Row[Any]) -> Account:
    return Account(*(getattr(row, name) for name in Account._fields))


def _credential(row: Row[Any]) -> Credential:
    return Credential(*(getattr(row, name) for name in Credential._fields))
