"""Connections to a database: a SQLite file, or PostgreSQL. On both, whoever writes is alone until it has committed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event

from vizsla.errors import DatabaseUnavailable, DiskFull, InvalidInput, Unavailable

BUSY_TIMEOUT_S = 15
WRITER = 0x76697A736C61
"""the advisory lock of who writes to PostgreSQL"""

_SETTINGS = {
    "lock_timeout": f"{BUSY_TIMEOUT_S}s",
    "statement_timeout": "60s",
    # Who is stopped in the middle of writing must not hold up all others.
    "idle_in_transaction_session_timeout": "60s",
    # A job that was said to start has started, also after a power cut of the server.
    "synchronous_commit": "on",
}
_CONNECTION = {
    "connect_timeout": 10,
    # A server that is gone without a word is noticed within a minute.
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 50_000,
    "application_name": "vizsla",
}
_DISK_FULL = "53100"
# Classes of SQLSTATE (and two of their codes) that tell of the server or of others, and not of what was asked.
_TRANSIENT = ("08", "40", "53", "55P03", "57", "58", "25006")


def sqlite(path: Path) -> Engine:
    """An engine on a SQLite file in WAL mode, with foreign keys held and writers waiting for each other."""
    with contextlib.suppress(OSError):  # the engine says why
        path.touch(mode=0o660)  # nobody else on the machine reads the hashes of passwords
    engine = create_engine(URL.create("sqlite", database=str(path)), hide_parameters=True)

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's own BEGIN, below, replaces the driver's late one
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "handle_error")
    def on_error(context: Any) -> None:
        error = context.original_exception
        # The index of its log is a file of its own, which also a reader has to make.
        if "disk is full" in str(error) or getattr(error, "sqlite_errorname", "") == "SQLITE_IOERR_SHMSIZE":
            remedy = "Free some space, and start again."
            raise DiskFull("The disk is full.", where=str(path.parent), remedy=remedy) from error
        if "database is locked" in str(error):
            raise DatabaseUnavailable(
                "The database is busy: another process has been writing to it for long.",
                where=str(path),
                remedy="Try again; if it stays so, see which process has the file open.",
            ) from error

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        # A writer waits for the lock at once; a transaction that turns from reading to writing could only fail.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def postgresql(url: URL) -> Engine:
    """An engine on a PostgreSQL database, which connects again after the server was away.

    Raises:
        Unavailable: there is no driver.
    """
    own = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
    given = url.query.get("options", "")
    options = {"options": f"{own} {given if isinstance(given, str) else ' '.join(given)}".strip()}
    defaults = {name: value for name, value in _CONNECTION.items() if name not in url.query}
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args=defaults | options,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=10,
            max_overflow=40,  # more than a server has threads
        )
    except ImportError:
        raise Unavailable(
            "PostgreSQL needs its driver, psycopg.", remedy="Install it: pip install 'vizsla[postgres]'"
        ) from None

    @event.listens_for(engine, "handle_error")
    def on_error(context: Any) -> None:
        if not context.is_pre_ping:  # one that fails is followed by a new connection
            _translate(context, shown(url))

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        # As with SQLite: what was read before writing is still so when it is written.
        if connection.get_execution_options().get("writes", False):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER})")

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def on_execute(connection: Any, cursor: Any, statement: str, values: Any, *_: Any) -> tuple[str, Any]:
        return statement, _storable(values)

    return engine


def shown(url: URL) -> str:
    """An address for people: without its password, and without parameters, which may hold one."""
    return without_password(url).set(query={}).render_as_string()


def without_password(url: URL) -> URL:
    """The address alone, which anybody may see."""
    return URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)


def _translate(context: Any, where: str) -> None:
    """Raise what an error of the driver means to others, if it tells of the server and not of what was asked of it."""
    error = context.original_exception
    code = getattr(error, "sqlstate", None) or ""
    said = (str(error).splitlines() or [type(error).__name__])[0].strip()
    if code == _DISK_FULL:
        raise DiskFull(
            "The disk of the database server is full.", where=where, remedy="Free some space there, and start again."
        ) from error
    if code == "55P03":
        raise DatabaseUnavailable(
            "The database is busy: another process has been writing to it for long.",
            where=where,
            remedy="Try again; if it stays so, see `SELECT * FROM pg_stat_activity`.",
        ) from error
    if context.connection is None and context.dialect.loaded_dbapi.ProgrammingError is type(error):
        raise InvalidInput(f"The address of the database cannot be used: {said}.", where=where) from error
    if context.connection is None or context.is_disconnect or code.startswith(_TRANSIENT):
        raise DatabaseUnavailable(
            f"The database server does not answer: {said}",
            where=where,
            remedy="See that it is running, and that its address, account and password are right.",
        ) from error


def _storable(values: Any) -> Any:
    """PostgreSQL keeps no NUL in a text, and nothing has a name with one: it is replaced, as in what is shown."""
    if isinstance(values, dict):
        return {name: _storable(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(_storable(value) for value in values)
    return values.replace("\0", "\ufffd") if isinstance(values, str) else values
