"""Where a workspace's database is: a SQLite file in it, or a PostgreSQL database that it remembers."""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from vizsla import files, records
from vizsla.errors import Conflict, InvalidInput
from vizsla.ids import new_id
from vizsla.store import engines
from vizsla.store.queries import Server, Store

DATABASE = "vizsla.db"
REMEMBERED = "database.json"
FORM = "Give it as postgresql://USER@HOST/DATABASE."


class Address(BaseModel):
    """The PostgreSQL database of a workspace, as its file says."""

    format: Literal["vizsla.database/1"] = "vizsla.database/1"
    workspace: str = Field(pattern="^[0-9a-z]+$")
    """what the database knows this workspace by"""
    url: str = Field(repr=False)


def open_store(root: Path, given: str | None) -> Store:
    """The database of the workspace at `root`, which is created, or brought up to date.

    Args:
        given: address of a PostgreSQL database; None for the one that the workspace remembers, or else SQLite.

    Raises:
        InvalidInput: `given` is no such address.
        Conflict: the workspace uses another database, or the database belongs to another workspace.
        Unavailable: there is no driver.
        DatabaseUnavailable: the server does not answer.
    """
    wanted = parse(given) if given else None
    known = _recall(root)
    if known is None and wanted is None:
        return Store(root / DATABASE)
    if known is None:
        assert wanted is not None
        return _first(root, wanted)
    url = parse(known.url, where=str(root / REMEMBERED))
    if wanted is None or wanted == url:
        return Store(Server(url, known.workspace, root))
    if _place(wanted) != _place(url):
        raise Conflict(
            f"The workspace uses the database {engines.shown(url)}, and not {engines.shown(wanted)}.",
            where=str(root),
            remedy=f"Leave out --database (VIZSLA_DATABASE). If it has moved, say so in {root / REMEMBERED}.",
        )
    store = Store(Server(wanted, known.workspace, root))
    _write(root / REMEMBERED, known.model_copy(update={"url": _text(wanted)}))  # another account or password
    return store


def parse(text: str, where: str = "--database") -> URL:
    """An address of a PostgreSQL database.

    Raises:
        InvalidInput: it is none. The message does not repeat it, since it may hold a password.
    """
    unreadable = InvalidInput(
        "This is no address of a database.",
        where=where,
        remedy=f"{FORM} Other characters than letters and digits in a password are written as in URLs: %40 for @.",
    )
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise unreadable from None
    if url.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        what = "SQLite needs no address" if url.drivername.startswith("sqlite") else "Only PostgreSQL can be used"
        remedy = f"{FORM} Without --database, a file in the workspace is used."
        raise InvalidInput(f"{what}.", where=where, remedy=remedy)
    if set(url.database or "") & set("@/"):  # the end of a password
        raise unreadable
    if any("password" in name for name in url.query):
        remedy = "Give it as USER:PASSWORD@HOST, or in the file ~/.pgpass, where no list of processes shows it."
        raise InvalidInput("A password cannot be a parameter of the address.", where=where, remedy=remedy)
    if not url.database:
        raise InvalidInput("The address names no database.", where=where, remedy=FORM)
    return url.set(drivername="postgresql")


def _first(root: Path, url: URL) -> Store:
    """Open a database with a workspace that remembers none yet."""
    if _has_rows(root / DATABASE):
        raise Conflict(
            f"The workspace has its database in a file already, {DATABASE}.",
            where=str(root),
            remedy="Leave out --database (VIZSLA_DATABASE). To move to PostgreSQL, wait until the queue is empty, and "
            f"move {DATABASE} away: all that is made keeps its name, but accounts and the queue's history stay there.",
        )
    engine = engines.postgresql(url)
    try:
        engine.connect().close()  # it answers: an address with a slip of the pen is not remembered
    finally:
        engine.dispose()
    mine = Address(workspace=new_id() + secrets.token_hex(8), url=_text(url))
    root.mkdir(parents=True, exist_ok=True)
    try:
        _write(root / REMEMBERED, mine, new=True)
    except FileExistsError:  # another process was faster
        return open_store(root, _text(url))
    try:
        return Store(Server(url, mine.workspace, root))
    except BaseException:
        (root / REMEMBERED).unlink()
        raise


def _recall(root: Path) -> Address | None:
    path = root / REMEMBERED
    try:
        if not path.exists():
            return None
        return records.read(path, Address, remedy="Bring it back from a backup.")
    except PermissionError:
        raise InvalidInput(
            "The workspace's file with the address of its database cannot be read.",
            where=str(path),
            remedy="Work as the user to whom it belongs, or let that user's group read it.",
        ) from None


def _write(path: Path, address: Address, *, new: bool = False) -> None:
    """Write the file for its owner's eyes only; with `new`, raise `FileExistsError` if it is there."""
    mode = 0o600 if new else path.stat().st_mode & 0o777
    with files.atomic(path) as temporary:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
        temporary.write_text(address.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if new:  # a link, unlike a renamed file, takes no other one's place
            files.fsync(temporary)
            os.link(temporary, path)


def _has_rows(path: Path) -> bool:
    if not path.exists():
        return False
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'alembic_version'"
    with closing(sqlite3.connect(path)) as connection:
        try:
            names = [name for (name,) in connection.execute(tables)]
            return any(connection.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone() for name in names)
        except sqlite3.DatabaseError:  # damaged, or of another program: not to be passed over
            return True


def _place(url: URL) -> tuple[object, ...]:
    """What makes two addresses those of one database, whoever connects."""
    host = url.host or url.query.get("host") or ""
    return host, url.port or url.query.get("port") or 5432, url.database


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
