"""Tags: which there can be, and that a folder and the database agree on them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import event

import vizsla
from vizsla import files
from vizsla.api import tags as verbs
from vizsla.api import workspace
from vizsla.errors import Busy, Conflict, InvalidInput, NotFound
from vizsla.store import backups, tagging
from vizsla.store.pages import Cut
from vizsla.store.queries import Store
from vizsla.store.rows import Used
from vizsla.store.tables import tag, tag_stamp
from vizsla.store.tagnames import FILE, cleaned, of_folder
from vizsla.store.workspace import Workspace


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with vizsla.open(tmp_path / "workspace") as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    """A workspace on each of the databases."""
    database = None if request.param == "sqlite" else request.getfixturevalue("database")
    with vizsla.open(tmp_path / "either", database=database) as opened:
        yield opened


def make(ws: Workspace, name: str) -> str:
    """A dataset, as far as names and tags go; its id."""
    with workspace.claim(ws, "dataset", name) as claim:
        facts = {"id": claim.entry.id, "name": name, "created_at": claim.entry.created_at}
        files.write_json(claim.folder / "dataset.json", facts)
    return claim.entry.id


def tagged(ws: Workspace, *tags: str) -> list[str]:
    """The names of the datasets that have all of these tags, by the database."""
    return [entry.name for entry in ws.store.all("dataset", tags=tags)]


def test_tags_are_trimmed_folded_and_sorted() -> None:
    assert cleaned(["v2", " for  paper\t", "Baseline", "baseline", "V2"]) == ["Baseline", "for paper", "v2"]
    assert cleaned(["e\u0301cole", "\u00c9COLE"]) == ["\u00e9cole"]
    assert cleaned(["x" * 40, "\u5b9f\u9a13", "a/b", "50 %", "<b>"]) == ["50 %", "<b>", "a/b", "x" * 40, "\u5b9f\u9a13"]
    assert cleaned([]) == []


@pytest.mark.parametrize(
    "tag", ["", " ", "x" * 41, "a,b", "-a", "a\0b", "a\x1b[2Jb", "\u202eb", "\u2066b", "\u200b", "\ud800"]
)
def test_what_cannot_be_typed_or_seen_is_no_tag(tag: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be a tag") as caught:
        cleaned(["good", tag])
    assert caught.value.where == "tags"


def test_there_are_not_too_many_and_a_text_is_no_list() -> None:
    assert len(cleaned([*map(str, range(20)), "0"])) == 20
    with pytest.raises(InvalidInput, match="20 tags at most, and these are 21"):
        cleaned(map(str, range(21)))
    with pytest.raises(InvalidInput, match="are a list"):
        cleaned("baseline")


def test_things_are_found_by_all_of_some_tags_in_whatever_case(store: Store) -> None:
    ids = {}
    for name, found in {"a": ["v2", "Gr\u00fc\u00dfe"], "b": ["v2"], "c": []}.items():
        ids[name] = store.add("run", name, tags=found).id
    store.add("model", "a", tags=["v2"])
    assert [entry.name for entry in store.all("run", tags=["V2"])] == ["a", "b"]
    assert [entry.name for entry in store.all("run", tags=["v2", "GR\u00dcSSE"])] == ["a"]
    assert store.all("run", tags=["v"]) == []
    assert [entry.name for entry in store.all("run", tags=["", " ", "gr\u00fc\u00dfe"])] == ["a"], "empty ones are none"
    newest = Cut(1, "created_at", descending=True)
    assert [entry.name for entry in store.page("run", newest, tags=[" v2 "])] == ["b"]
    assert store.tags.of(list(ids.values())) == {ids["a"]: ["Gr\u00fc\u00dfe", "v2"], ids["b"]: ["v2"]}
    assert store.tags.used("run", 9) == [Used("v2", 2), Used("Gr\u00fc\u00dfe", 1)]
    assert store.tags.used("run", 1) == [Used("v2", 2)]
    store.tags.replace(ids["a"], ["x" * 40, "\u0390" * 40])  # which casefolding makes three times as long
    store.tags.replace(ids["b"], [])
    assert store.tags.used("run", 9) == [Used("x" * 40, 1), Used("\u0390" * 40, 1)]
    for id in ids.values():
        store.remove(id)
    assert store.tags.used("run", 9) == []
    store.tags.replace(ids["a"], ["late"])  # of what is gone
    assert store.tags.of([ids["a"]]) == {}


def test_tags_go_with_their_thing_and_stay_when_it_is_renamed(ws: Workspace) -> None:
    id = make(ws, "d")
    assert verbs.write(ws, "dataset", "d", ["v2", " baseline"]) == ["baseline", "v2"]
    workspace.rename(ws, "dataset", "d", "new")
    assert verbs.read(ws, "dataset", "new") == ["baseline", "v2"]
    assert tagged(ws, "Baseline") == ["new"]
    with files.Lock(ws.folder("dataset", id)):  # also while work goes on
        verbs.write(ws, "dataset", "new", ["v3"])
    assert (tagged(ws, "v2"), tagged(ws, "v3")) == ([], ["new"])
    assert verbs.write(ws, "dataset", "new", []) == []
    assert not (ws.folder("dataset", id) / FILE).exists()
    verbs.write(ws, "dataset", "new", ["v3"])
    workspace.delete(ws, "dataset", "new")
    assert ws.store.tags.of([id]) == {}
    with pytest.raises(NotFound):
        verbs.read(ws, "dataset", "new")


def test_what_is_in_the_making_has_no_tags(ws: Workspace) -> None:
    with workspace.claim(ws, "dataset", "d") as claim, pytest.raises(Conflict, match="is not finished"):
        verbs.write(ws, "dataset", "d", ["v2"])
    assert not (claim.folder / FILE).exists()


def test_the_folder_is_believed_when_the_database_is_lost(ws: Workspace) -> None:
    for name, found in {"a": ["v2"], "b": []}.items():
        make(ws, name)
        verbs.write(ws, "dataset", name, found)
    path = ws.folder("dataset", ws.store.exact("b", "dataset").id) / FILE
    path.write_text("By hand\n\n-no\n" + "x" * 99 + "\nby hand\n\u202e\n" + "\n".join(map(str, range(30))))
    ws.close()
    (ws.root / "vizsla.db").unlink()
    with vizsla.open(ws.root) as again:
        assert (tagged(again, "v2"), tagged(again, "BY HAND")) == (["a"], ["b"])
        found = again.store.tags.of([path.parent.name])[path.parent.name]
        assert found == of_folder(path.parent)
        assert len(found) == 19, "twenty, of which two are one"


def differing(ws: Workspace) -> str:
    """The id of a dataset whose file has tags of which no list knows, as after a kill between file and rows."""
    id = make(ws, "d")
    verbs.write(ws, "dataset", "d", ["old"])
    (ws.root / tagging.TAGGING / tagging.STAMP).write_text("0" * 32)
    (ws.folder("dataset", id) / FILE).write_text("new\n")
    assert tagged(ws, "old") == ["d"]
    return id


KILLED = """
import os, signal, sys
import vizsla
from vizsla.api import tags
with vizsla.open(sys.argv[1]) as ws:
    def die(event, args):
        if event == "os.rename" and any(str(one).endswith(sys.argv[2]) for one in args):
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(die)
    if sys.argv[2] == "rows":
        ws.store.tags.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    tags.write(ws, "dataset", "d", ["new"])
"""


@pytest.mark.parametrize(
    ("place", "tags"),
    [("stamp", ["old"]), ("tags.txt", ["old"]), ("rows", ["new"])],
    ids=["before the stamp", "before the file", "between file and rows"],
)
def test_a_writing_that_was_killed_ends_as_the_file_has_it(either: Workspace, place: str, tags: list[str]) -> None:
    ws = either
    id = make(ws, "d")
    verbs.write(ws, "dataset", "d", ["old"])
    done = subprocess.run([sys.executable, "-c", KILLED, ws.root, place], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (of_folder(ws.folder("dataset", id)), tagged(ws, "old")) == (tags, ["d"])
    with vizsla.open(ws.root) as again:
        assert verbs.read(again, "dataset", "d") == tags
        assert again.store.tags.of([id]) == {id: tags}
        assert tagging._agree(again)


def test_rows_follow_the_files_when_an_older_database_is_brought_back(either: Workspace) -> None:
    ws = either
    ids = [make(ws, name) for name in "abc"]
    for id in ids[:2]:
        verbs.write(ws, "dataset", id, ["old"])
    with ws.store.engine.connect() as connection:
        backup = {table: [row._asdict() for row in connection.execute(table.select())] for table in (tag, tag_stamp)}
    for id, found in zip(ids, (["new"], [], ["new"]), strict=True):
        verbs.write(ws, "dataset", id, found)
    with ws.store.engine.execution_options(writes=True).begin() as connection:
        for table, rows in backup.items():
            connection.execute(table.delete())
            connection.execute(table.insert(), rows)
    assert (tagged(ws, "old"), tagged(ws, "new")) == (["a", "b"], [])
    verbs.write(ws, "dataset", ids[1], ["late"])  # by a server that never noticed
    workspace.sweep(ws)
    assert (tagged(ws, "old"), tagged(ws, "new"), tagged(ws, "late")) == ([], ["a", "c"], ["b"])


def test_rows_follow_the_files_when_a_file_of_sqlite_is_brought_back(ws: Workspace, tmp_path: Path) -> None:
    id = make(ws, "d")
    verbs.write(ws, "dataset", "d", ["old"])
    backups.of_sqlite(ws.root / "vizsla.db", tmp_path / "copy")
    verbs.write(ws, "dataset", "d", ["new"])
    ws.close()
    for path in ws.root.glob("vizsla.db*"):
        path.unlink()
    shutil.copy(tmp_path / "copy", ws.root / "vizsla.db")
    with vizsla.open(ws.root) as again:
        assert again.store.tags.of([id]) == {id: ["new"]}


def test_rows_follow_the_files_after_a_version_without_tags(either: Workspace) -> None:
    ws = either
    id = make(ws, "d")
    verbs.write(ws, "dataset", "d", ["kept"])
    with ws.store.engine.execution_options(writes=True).begin() as connection:
        for statement in ("DROP TABLE tag", "DROP TABLE tag_stamp", "UPDATE alembic_version SET version_num = '0003'"):
            connection.exec_driver_sql(statement)
    with vizsla.open(ws.root) as again:
        assert again.store.tags.of([id]) == {id: ["kept"]}


@pytest.mark.parametrize("stamp", [None, "", "\xff" * 40])
def test_without_its_stamp_a_workspace_reads_all_tags(ws: Workspace, stamp: str | None) -> None:
    id = differing(ws)
    path = ws.root / tagging.TAGGING / tagging.STAMP
    if stamp is None:
        shutil.rmtree(path.parent)
    else:
        path.write_text(stamp)
    with vizsla.open(ws.root) as again:
        assert again.store.tags.of([id]) == {id: ["new"]}
        assert tagging._agree(again)


def test_where_stamps_agree_nothing_but_they_are_read(either: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    ws = either
    make(ws, "d")
    verbs.write(ws, "dataset", "d", ["v2"])
    asked: list[str] = []
    event.listen(ws.store.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    monkeypatch.setattr(tagging, "_make_anew", lambda _: pytest.fail("all is read"))
    tagging.heal(ws)
    (query,) = [one for one in asked if one != "BEGIN"]
    assert query.startswith("SELECT tag_stamp")


def test_who_writes_is_left_alone(ws: Workspace) -> None:
    id = differing(ws)
    with files.Lock(ws.root / tagging.TAGGING):
        workspace.sweep(ws)
        assert ws.store.tags.of([id]) == {id: ["old"]}
    workspace.sweep(ws)
    assert ws.store.tags.of([id]) == {id: ["new"]}


def test_what_cannot_be_read_does_not_stop_the_rest(ws: Workspace) -> None:
    lost = make(ws, "lost")
    verbs.write(ws, "dataset", "lost", ["known"])
    id = differing(ws)
    path = ws.folder("dataset", lost) / FILE
    path.unlink()
    path.mkdir()
    (ws.root / "datasets" / "a file").touch()
    with pytest.warns(UserWarning, match=f"do not know all tags yet.*{lost}"):
        workspace.sweep(ws)
    assert ws.store.tags.of([id, lost]) == {id: ["new"], lost: ["known"]}
    path.rmdir()
    workspace.sweep(ws)
    assert ws.store.tags.of([id, lost]) == {id: ["new"]}


def test_of_two_who_write_at_a_time_the_second_waits(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    id = make(ws, "d")
    halfway, go_on = threading.Event(), threading.Event()
    replace = ws.store.tags.replace

    def slow(id: str, tags: Sequence[str], stamp: str | None) -> None:
        if tags == ["first"]:
            halfway.set()
            assert go_on.wait(20)
        replace(id, tags, stamp)

    monkeypatch.setattr(ws.store.tags, "replace", slow)
    first, second = (
        threading.Thread(target=verbs.write, args=(ws, "dataset", id, [one])) for one in ("first", "second")
    )
    first.start()
    try:
        assert halfway.wait(20)
        second.start()
        second.join(0.3)
        assert verbs.read(ws, "dataset", id) == ["first"], "its rows are still to be written"
    finally:
        go_on.set()
        first.join()
    second.join()
    assert verbs.read(ws, "dataset", id) == ["second"]
    assert ws.store.tags.of([id]) == {id: ["second"]}


def test_who_is_stuck_is_not_waited_for_long(ws: Workspace) -> None:
    id = make(ws, "d")
    begun = time.monotonic()
    with files.Lock(ws.root / tagging.TAGGING), pytest.raises(Busy, match=f"Process {os.getpid()} ") as caught:
        verbs.write(ws, "dataset", "d", ["v2"])
    assert 1 < time.monotonic() - begun < 5
    assert "Try again" in caught.value.remedy
    assert verbs.read(ws, "dataset", id) == []


@pytest.mark.parametrize("tags", [["v2"], []])
@pytest.mark.parametrize("half", [False, True])
def test_what_is_deleted_while_it_is_tagged_leaves_nothing_behind(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, tags: list[str], half: bool
) -> None:
    id = make(ws, "d")
    folder = ws.folder("dataset", id)

    def delete(*_: object) -> None:
        if not half:
            workspace.delete(ws, "dataset", "d")
        else:  # as it is before its folder goes
            ws.store.remove(id)
            shutil.rmtree(folder)
            folder.mkdir()

    monkeypatch.setattr(workspace, "require_finished", delete)
    with pytest.raises(NotFound, match="deleted at this moment"):
        verbs.write(ws, "dataset", "d", tags)
    assert not folder.exists()
    assert tagging._agree(ws)
    assert ws.store.tags.of([id]) == {}
