from pathlib import Path

import pytest

from vizsla.errors import Conflict, InvalidInput, NotFound
from vizsla.ids import new_id
from vizsla.store.queries import Server, Store


def test_names_are_unique_per_kind(store: Store) -> None:
    store.add("dataset", "dogs")
    store.add("run", "dogs")
    with pytest.raises(Conflict, match="dataset named 'dogs' already"):
        store.add("dataset", "dogs")


def test_things_are_found_by_id_name_and_prefix(store: Store) -> None:
    dogs = store.add("dataset", "dogs", id="1aaaaaaa")
    cats = store.add("dataset", "cats", id="1bbbbbbb")
    assert store.find("dogs", "dataset") == dogs
    assert store.find("ca", "dataset") == cats
    assert store.find("1b", "dataset") == cats
    with pytest.raises(NotFound, match="may mean 2 things"):
        store.find("1", "dataset")
    with pytest.raises(NotFound, match="Did you mean 'dogs'"):
        store.find("dgos", "dataset")
    with pytest.raises(NotFound):
        store.find("", "dataset")


def test_a_thing_of_another_kind_is_called_so(store: Store) -> None:
    store.add("run", "dogs")
    with pytest.raises(NotFound, match="'dogs' is a run, not a model") as caught:
        store.find("dogs", "model")
    assert "vizsla model export dogs" in caught.value.remedy
    with pytest.raises(NotFound, match="'dogs' is a run, not a dataset") as caught:
        store.find("dogs", "dataset")
    assert caught.value.remedy == ""


def test_a_whole_name_wins_over_a_prefix(store: Store) -> None:
    store.add("dataset", "dogs-2")
    dogs = store.add("dataset", "dogs")
    assert store.find("dogs", "dataset") == dogs


def test_what_others_depend_on_stays(store: Store) -> None:
    dogs = store.add("dataset", "dogs")
    run = store.add("run", "r", parents=[dogs.id])
    with pytest.raises(Conflict, match="in use by run r"):
        store.remove(dogs.id)
    store.remove(run.id)
    store.remove(dogs.id)
    assert store.all("dataset") == []


@pytest.mark.parametrize("name", ["", " a", "-a", "a/b", "a\\b", "a\nb", "a\x1b[31m", "x" * 101, ".." + "/x"])
def test_names_that_cannot_be_typed_are_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be a name"):
        store.add("dataset", name)


def test_free_name_counts_up(store: Store) -> None:
    assert store.free_name("run", "dogs") == "dogs-1"
    store.add("run", "dogs-1")
    assert store.free_name("run", "dogs") == "dogs-2"
    assert len(store.free_name("run", "x" * 100)) <= 100


def test_a_database_of_a_newer_version_is_left_alone(store: Store, where: Path | Server) -> None:
    with store.engine.execution_options(writes=True).begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Conflict, match="newer Vizsla"):
        Store(where)


def test_the_tables_are_those_of_the_migrations(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from vizsla.store.tables import metadata

    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for second in (1_800_000_000, 1_800_000_001, 1_900_000_000):
        monkeypatch.setattr("time.time", lambda second=second: float(second))
        ids.append(new_id())
    assert ids == sorted(ids)
    assert all(len(id) == 10 for id in ids)
