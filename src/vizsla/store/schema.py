"""Brings a database to the schema of this version, after a backup."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, MetaData, Table, inspect, text
from sqlalchemy.schema import SetTableComment

from vizsla.errors import Conflict
from vizsla.store import backups

CURRENT = "0004"


def prepare(engine: Engine, where: str, source: Path | URL, backup: Path) -> bool:
    """Create or upgrade the schema of a database; returns whether it was created just now.

    Args:
        engine: whose transactions write.
        where: the database, for people.
        source: the SQLite file, or the address.
        backup: path of the copies, to which the schema of what is copied and an ending are added.

    Raises:
        Conflict: the database was written by a newer Vizsla.
        Unavailable: it cannot be copied before it is upgraded.
    """
    with engine.execution_options(writes=False).connect() as connection:
        if _known(connection, where) == CURRENT:
            return False
    # A second process that opens the same workspace waits here, see `engines`.
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            _prepare_postgresql(connection, where)
        revision = _known(connection, where)
        if revision == CURRENT:
            return False
        if revision is not None:
            _copy(connection, source, backup.with_name(f"{backup.name}.{revision}.backup"))
        _upgrade(connection)
        if connection.dialect.name == "postgresql":
            _sort_by_bytes(connection)
    return revision is None


def _known(connection: Connection, where: str) -> str | None:
    """The schema that there is, unless it is from the future."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if revision is not None and re.fullmatch(r"\d{4}", revision) is None:
        raise Conflict(
            "The database is that of another program.", where=where, remedy="Give Vizsla a database of its own."
        )
    if revision is not None and revision > CURRENT:
        raise Conflict(
            f"The workspace was last used by a newer Vizsla (schema {revision}; this one knows {CURRENT}).",
            where=where,
            remedy="Upgrade Vizsla, or use another workspace with --workspace.",
        )
    return revision


def _prepare_postgresql(connection: Connection, where: str) -> None:
    encoding = connection.execute(text("SHOW server_encoding")).scalar()
    if encoding != "UTF8":
        raise Conflict(
            f"The database is encoded as {encoding}.",
            where=where,
            remedy="Make one with: CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0",
        )
    for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):  # a copy takes its time
        connection.execute(text(f"SET LOCAL {setting} = 0"))


def _copy(connection: Connection, source: Path | URL, target: Path) -> None:
    if isinstance(source, Path):
        backups.of_sqlite(source, target)
        return
    version = connection.execute(text("SELECT current_setting('server_version_num')::int / 10000")).scalar_one()
    backups.of_postgresql(source, version, target)


def _upgrade(connection: Connection) -> None:
    # Alembic takes half a second to import and is needed once a workspace.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _sort_by_bytes(connection: Connection) -> None:
    """Let every text sort by its bytes, as in SQLite and in Python, whatever the language of the server.

    Pages go on after the last time and id that was seen, and an index by the rules of a language breaks when these
    are changed by an upgrade of the system.
    """
    columns = text(
        "SELECT table_name, column_name, character_maximum_length FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND data_type IN ('character varying', 'text')"
        " AND collation_name IS DISTINCT FROM 'C'"
    )
    quote = connection.dialect.identifier_preparer.quote_identifier
    for table, column, length in connection.execute(columns).all():
        kind = f"varchar({length})" if length else "text"
        statement = f'ALTER TABLE {quote(table)} ALTER COLUMN {quote(column)} TYPE {kind} COLLATE "C"'
        connection.execute(text(statement))


def claim(engine: Engine, where: str, workspace: str, root: Path) -> None:
    """Make a PostgreSQL database that of one workspace: the rows are about its folders, and no others.

    The comment of the table of Alembic says whose it is, so that a restored backup says it too.

    Raises:
        Conflict: it is another one's.
    """
    with engine.execution_options(writes=False).connect() as connection:
        owner = _owner(connection)
    if owner is None:
        with engine.begin() as connection:
            owner = _owner(connection)
            if owner is None:
                owner = f"{workspace} {root}"
                table = Table("alembic_version", MetaData(), comment=f"workspace {owner}")
                connection.execute(SetTableComment(table))
    if owner.split(" ", 1)[0] != workspace:
        raise Conflict(
            f"The database is that of another workspace, which was at {owner.partition(' ')[2]} when it was made.",
            where=where,
            remedy="Give each workspace a database of its own. A workspace that was moved needs its database.json.",
        )


def _owner(connection: Connection) -> str | None:
    query = text("SELECT obj_description('alembic_version'::regclass, 'pg_class')")
    comment: str | None = connection.execute(query).scalar()
    return comment.removeprefix("workspace ") if comment else None
