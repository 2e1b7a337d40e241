"""Tags: which there can be, and that a folder and the database agree on them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import vizsla
from vizsla import files
from vizsla.api import tags as verbs
from vizsla.api import workspace
from vizsla.errors import Conflict, InvalidInput, NotFound
from vizsla.store import tagging
from vizsla.store.pages import Cut
from vizsla.store.queries import Store
from vizsla.store.rows import Used
from vizsla.store.tags import FILE, cleaned, of_folder
from vizsla.store.workspace import Workspace


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with vizsla.open(tmp_path / "workspace") as opened:
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


KILLED = """
import os, signal, sys
import vizsla
from vizsla.api import tags
with vizsla.open(sys.argv[1]) as ws:
    def die(event, args):
        if event == sys.argv[2] and any(str(one).endswith(sys.argv[3]) for one in args):
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(die)
    if sys.argv[3] == "rows":
        ws.store.tags.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    tags.write(ws, "dataset", "d", ["new"])
"""


@pytest.mark.parametrize(
    ("event", "place", "tags"),
    [("os.rename", "tags.txt", ["old"]), ("", "rows", ["new"]), ("os.remove", "dataset-{id}", ["new"])],
    ids=["before the file", "between file and rows", "after the rows"],
)
def test_a_writing_that_was_killed_ends_as_the_file_has_it(
    ws: Workspace, event: str, place: str, tags: list[str]
) -> None:
    id = make(ws, "d")
    verbs.write(ws, "dataset", "d", ["old"])
    done = subprocess.run([sys.executable, "-c", KILLED, ws.root, event, place.format(id=id)], check=False)
    assert done.returncode == -signal.SIGKILL
    if place == "rows":
        assert (of_folder(ws.folder("dataset", id)), tagged(ws, "old")) == (["new"], ["d"]), "they differ"
    with files.Lock(ws.root / tagging.TAGGING):  # who writes is left alone
        workspace.sweep(ws)
    with vizsla.open(ws.root) as again:
        assert verbs.read(again, "dataset", "d") == tags
        assert again.store.tags.of([id]) == {id: tags}
    assert tagging._left(ws) == []


def test_of_two_who_write_at_a_time_both_file_and_rows_are_the_last_ones(ws: Workspace) -> None:
    id = make(ws, "d")
    threads = [
        threading.Thread(target=lambda n=n: [verbs.write(ws, "dataset", id, [f"{n} {i}"]) for i in range(5)])
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ws.store.tags.of([id]) == {id: verbs.read(ws, "dataset", id)}
