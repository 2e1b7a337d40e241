"""What was answered to requests that carried a key, for those who ask again because they never heard it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from vizsla.events import now
from vizsla.store.tables import answered

KEPT = timedelta(hours=24)


class Answered(NamedTuple):
    """A request that carried a key."""

    request: str
    """what was asked, as a digest"""
    status: int | None
    """None while it is being answered"""
    headers: dict[str, str]
    body: str


class Answers:
    """The answers in a database. Every method is one transaction."""

    def __init__(self, engine: Engine, writer: Engine) -> None:
        self._engine = engine
        self._writer = writer

    def begin(self, account: str, key: str, request: str) -> Answered | None:
        """Take a key of an account, for a request to be answered now; None: it is this one's. Else who has it."""
        forgotten = (datetime.now(UTC) - KEPT).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        same = (answered.c.account == account) & (answered.c.key == key)
        values = {"account": account, "key": key, "request": request, "at": now(), "headers": {}, "body": ""}
        while True:
            try:
                with self._writer.begin() as connection:
                    connection.execute(delete(answered).where(answered.c.at < forgotten))
                    connection.execute(insert(answered).values(values))
                return None
            except IntegrityError:
                with self._engine.connect() as connection:
                    row = connection.execute(select(answered).where(same)).first()
                if row is not None:  # else it was given up at this moment
                    return Answered(row.request, row.status, row.headers, row.body)

    def end(self, account: str, key: str, status: int, headers: dict[str, str], body: str) -> None:
        """Keep the answer for a key that was taken."""
        same = (answered.c.account == account) & (answered.c.key == key)
        with self._writer.begin() as connection:
            connection.execute(update(answered).where(same).values(status=status, headers=headers, body=body))

    def give_up(self, account: str, key: str) -> None:
        """Let go of a key: nothing was made under it."""
        same = (answered.c.account == account) & (answered.c.key == key)
        with self._writer.begin() as connection:
            connection.execute(delete(answered).where(same & answered.c.status.is_(None)))

    def give_up_all(self) -> None:
        """Let go of the keys of a server that is gone, and that it never came to answer."""
        with self._writer.begin() as connection:
            connection.execute(delete(answered).where(answered.c.status.is_(None)))
