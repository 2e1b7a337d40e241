"""Which database a workspace uses, and what is said when it cannot."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.postgres import PASSWORD, Postgres

import vizsla
from vizsla.errors import Conflict, DatabaseUnavailable, InvalidInput, VizslaError
from vizsla.store import address


def _other(url: str, **changed: str) -> str:
    return address._text(address.parse(url).set(**changed))  # type: ignore[arg-type]


def test_a_workspace_remembers_its_database(tmp_path: Path, database: str) -> None:
    with vizsla.open(tmp_path / "w", database=database) as ws:
        ws.store.add("dataset", "dogs", id="d1")
    with vizsla.open(tmp_path / "w") as ws:
        assert ws.store.exact("dogs", "dataset").id == "d1"
    with vizsla.open(tmp_path / "w", database=database) as ws:
        assert ws.store.engine.dialect.name == "postgresql"
    remembered = tmp_path / "w" / "database.json"
    assert stat.S_IMODE(remembered.stat().st_mode) == 0o600
    assert not (tmp_path / "w" / "vizsla.db").exists()


def test_another_database_is_refused(tmp_path: Path, database: str, postgres: Postgres) -> None:
    vizsla.open(tmp_path / "w", database=database).close()
    other = postgres.create("another")
    with pytest.raises(Conflict, match=r"uses the database postgresql://.*, and not .*/another") as caught:
        vizsla.open(tmp_path / "w", database=other)
    assert PASSWORD not in str(caught.value)
    assert "%20" not in str(caught.value)


def test_another_password_is_remembered_when_it_works(tmp_path: Path, database: str, postgres: Postgres) -> None:
    name = address.parse(database).database
    postgres.execute("postgres", "CREATE ROLE second LOGIN SUPERUSER PASSWORD 'two'")
    vizsla.open(tmp_path / "w", database=database).close()
    with pytest.raises(DatabaseUnavailable, match="password authentication failed"):
        vizsla.open(tmp_path / "w", database=_other(database, username="second", password="wrong"))
    vizsla.open(tmp_path / "w").close()
    vizsla.open(tmp_path / "w", database=_other(database, username="second", password="two")).close()
    assert f"second:two@127.0.0.1:{postgres.port}/{name}" in (tmp_path / "w" / "database.json").read_text()
    assert stat.S_IMODE((tmp_path / "w" / "database.json").stat().st_mode) == 0o600


def test_a_workspace_with_things_in_its_file_stays_with_it(tmp_path: Path, database: str) -> None:
    with vizsla.open(tmp_path / "w") as ws:
        ws.store.add("dataset", "dogs")
    with pytest.raises(Conflict, match="in a file already") as caught:
        vizsla.open(tmp_path / "w", database=database)
    assert "move vizsla.db away" in caught.value.remedy
    assert not (tmp_path / "w" / "database.json").exists()
    with vizsla.open(tmp_path / "w") as ws:
        assert ws.store.exact("dogs", "dataset")


def test_a_database_serves_one_workspace(tmp_path: Path, database: str) -> None:
    vizsla.open(tmp_path / "first", database=database).close()
    with pytest.raises(Conflict, match=f"another workspace, which was at {tmp_path / 'first'}"):
        vizsla.open(tmp_path / "second", database=database)
    assert not (tmp_path / "second" / "database.json").exists()
    (tmp_path / "first").rename(tmp_path / "moved")
    vizsla.open(tmp_path / "moved").close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://ada:hush@localhost/v", "Only PostgreSQL can be used"),
        ("postgresql+psycopg2://ada:hush@localhost/v", "Only PostgreSQL can be used"),
        ("sqlite:////tmp/v.db", "SQLite needs no address"),
        ("hush", "This is no address of a database"),
        ("postgresql://ada:hush@hush/hush@localhost/v", "This is no address of a database"),
        ("postgresql://ada:hush@localhost", "names no database"),
        ("postgresql://ada@localhost/v?password=hush", "A password cannot be a parameter"),
        ("postgresql://ada:hush@localhost/v?colour=hush-hush", 'invalid connection option "colour"'),
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(tmp_path: Path, url: str, said: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(InvalidInput, match=said) as caught:
        vizsla.open(tmp_path / "w", database=url)
    assert "hush" not in str(caught.value)
    assert not (tmp_path / "w" / "database.json").exists()


def test_a_server_that_is_not_there_is_said_clearly(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(DatabaseUnavailable, match=r"does not answer: connection failed.*refused") as caught:
        vizsla.open(tmp_path / "w", database="postgresql://ada:hush@127.0.0.1:9/v")
    assert caught.value.where == "postgresql://ada@127.0.0.1:9/v"
    assert "hush" not in str(caught.value)
    assert not (tmp_path / "w" / "database.json").exists()


def test_a_missing_driver_is_named(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('not here')")
    code = f"import vizsla; vizsla.open({str(tmp_path / 'w')!r}, database='postgresql://ada@127.0.0.1:9/v')"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True)
    assert b"pip install 'vizsla[postgres]'" in done.stderr


def test_a_database_that_cannot_hold_every_name_is_refused(tmp_path: Path, postgres: Postgres) -> None:
    url = postgres.create("latin", "ENCODING 'LATIN1' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'")
    with pytest.raises(Conflict, match="encoded as LATIN1"):
        vizsla.open(tmp_path / "w", database=url)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("CREATE TABLE alembic_version AS SELECT '5f1c2a' AS version_num", "that of another program"),
        ("CREATE TABLE job (id int)", 'relation "job" already exists'),
    ],
)
def test_a_database_of_another_program_is_left_alone(
    tmp_path: Path, database: str, postgres: Postgres, statement: str, said: str
) -> None:
    name = address.parse(database).database or ""
    postgres.execute(name, statement)
    with pytest.raises(Conflict, match=said):
        vizsla.open(tmp_path / "w", database=database)
    tables = postgres.execute(name, "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")
    assert tables == [(1,)]


def test_an_account_that_may_not_make_tables_is_told_so(tmp_path: Path, database: str, postgres: Postgres) -> None:
    postgres.execute("postgres", "CREATE ROLE guest LOGIN PASSWORD 'two'")
    with pytest.raises(Conflict, match="permission denied for schema public") as caught:
        vizsla.open(tmp_path / "w", database=_other(database, username="guest", password="two"))
    assert "has to own it" in caught.value.remedy
    assert not (tmp_path / "w" / "database.json").exists()


def test_what_is_in_the_folders_comes_back_in_a_new_database(tmp_path: Path, database: str, postgres: Postgres) -> None:
    root = tmp_path / "w"
    vizsla.open(root, database=database).close()
    (root / "datasets" / "d1").mkdir()
    (root / "datasets" / "d1" / "dataset.json").write_text(
        '{"id": "d1", "name": "dogs", "created_at": "2026-01-01T00:00:00.000Z"}'
    )
    (root / "database.json").unlink()
    with vizsla.open(root, database=postgres.create("fresh")) as ws:
        assert ws.store.exact("dogs", "dataset").id == "d1"


def test_a_damaged_file_says_so_without_its_content(tmp_path: Path) -> None:
    (tmp_path / "database.json").write_text('{"format": "vizsla.database/1", "workspace": "a b", "url": "hush"}')
    with pytest.raises(VizslaError, match="damaged: workspace") as caught:
        vizsla.open(tmp_path)
    assert "hush" not in str(caught.value)
