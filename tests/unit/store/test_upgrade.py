"""Databases of older versions: brought up to date with what is in them, after a backup that can be used."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, make_url
from tests.postgres import Postgres

from vizsla.errors import Unavailable
from vizsla.store import backups, engines, schema
from vizsla.store.queries import Server, Store

AT = "2026-01-01T00:00:00.000Z"
MIGRATIONS = Path(schema.__file__).parent / "migrations"


def _engine(where: Path | Server) -> Engine:
    return engines.sqlite(where) if isinstance(where, Path) else engines.postgresql(where.url)


def _make_old(where: Path | Server, revision: str) -> None:
    """A database as an older version left it, with a dataset and a run, and the run's job."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = _engine(where)
    with engine.execution_options(writes=True).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        for id, kind, name in (("d1", "dataset", "dogs"), ("r1", "run", "first")):
            connection.exec_driver_sql(
                f"INSERT INTO entry (id, kind, name, created_at) VALUES ('{id}', '{kind}', '{name}', '{AT}')"
            )
        connection.exec_driver_sql("INSERT INTO link (child_id, parent_id) VALUES ('r1', 'd1')")
        if revision >= "0002":
            connection.exec_driver_sql(
                "INSERT INTO job (id, kind, thing, name, owner, priority, need, retries, created_at, state, changed_at,"
                " cause, attempt, held, stop_asked) VALUES ('j1', 'run', 'r1', 'first', 'ada', 0, '{}', 3,"
                f" '{AT}', 'queued', '{AT}', '', 0, '[]', false)"
            )
            connection.exec_driver_sql(
                f"INSERT INTO job_change (job_id, attempt, state, at, cause) VALUES ('j1', 0, 'queued', '{AT}', '')"
            )
    engine.dispose()


def _check(store: Store, revision: str) -> None:
    dataset, run = store.exact("dogs", "dataset"), store.exact("first", "run")
    assert (dataset.id, dataset.created_at, run.id, run.owner) == ("d1", AT, "r1", "")
    assert store.children("d1") == [run]
    if revision >= "0002":
        assert [change.state for change in store.jobs.history("j1")] == ["queued"]
        assert store.jobs.change(store.jobs.get("j1"), "starting", attempt=1) is not None
        assert [change.state for change in store.jobs.history("j1")] == ["queued", "starting"]


@pytest.fixture
def restored(request: pytest.FixtureRequest, where: Path | Server, tmp_path: Path) -> Callable[[str], Path | Server]:
    """Brings a backup of a schema back, as another database."""

    def restore(revision: str) -> Path | Server:
        if isinstance(where, Path):
            backup = where.with_name(f"{where.name}.{revision}.backup")
            return Path(shutil.copyfile(backup, tmp_path / "restored.db"))
        backup = tmp_path / f"database.{revision}.backup"
        assert backup.stat().st_mode & 0o777 == 0o600
        server: Postgres = request.getfixturevalue("postgres")
        return where._replace(url=make_url(server.restore(backup, f"restored-{where.url.database}")))

    return restore


@pytest.mark.parametrize("revision", ["0001", "0002", "0003"])
def test_an_older_database_is_upgraded_after_a_backup(
    where: Path | Server, revision: str, restored: Callable[[str], Path | Server]
) -> None:
    _make_old(where, revision)
    with_rows = Store(where)
    assert not with_rows.created
    _check(with_rows, revision)
    with_rows.close()
    # The backup is the database as it was: an older version could go on with it, and this one upgrades it again.
    backup = restored(revision)
    engine = _engine(backup)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == revision
        assert connection.exec_driver_sql("SELECT count(*) FROM entry").scalar() == 2
    engine.dispose()
    again = Store(backup)
    _check(again, revision)
    again.close()


def test_without_a_backup_nothing_is_upgraded(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = Server(make_url(database), "1abc", tmp_path)
    _make_old(where, "0002")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(backups, "VERSIONED", str(tmp_path))
    with pytest.raises(Unavailable, match="no pg_dump of version") as caught:
        Store(where)
    assert "apt install postgresql-client-" in caught.value.remedy
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.2'\n")
    old.chmod(0o755)
    with pytest.raises(Unavailable, match="no pg_dump of version"):
        Store(where)
    monkeypatch.undo()
    store = Store(where)
    _check(store, "0002")
    store.close()


def test_two_who_open_an_old_database_upgrade_it_once(where: Path | Server) -> None:
    import threading

    _make_old(where, "0001")
    opened: list[Store] = []
    threads = [threading.Thread(target=lambda: opened.append(Store(where))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 3
    for store in opened:
        _check(store, "0001")
        store.close()
