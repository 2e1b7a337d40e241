"""Brings a database to the schema of this version, after a backup."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from vizsla.errors import Conflict

CURRENT = "0003"


def prepare(engine: Engine, path: Path) -> bool:
    """Create or upgrade the schema of the SQLite file `path`; returns whether it was created just now.

    Raises:
        Conflict: the database was written by a newer Vizsla.
    """
    with engine.connect() as connection:
        revision = _revision(connection)
    if revision == CURRENT:
        return False
    if revision is not None and revision > CURRENT:
        raise Conflict(
            f"The workspace was last used by a newer Vizsla (schema {revision}; this one knows {CURRENT}).",
            where=str(path),
            remedy="Upgrade Vizsla, or use another workspace with --workspace.",
        )
    if revision is not None:
        _backup(path, path.with_name(f"{path.name}.{revision}.backup"))
    _upgrade(engine)
    return revision is None


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def _backup(source: Path, target: Path) -> None:
    target.touch(mode=0o660)
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def _upgrade(engine: Engine) -> None:
    # Alembic takes half a second to import and is needed once a workspace.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    # BEGIN IMMEDIATE (see `queries.connect`) makes a second process that opens the same new workspace wait here.
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
