from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import vizsla
from vizsla import files
from vizsla.api import workspace
from vizsla.api.workspace import ORPHAN_AGE_S
from vizsla.errors import Conflict, DiskFull, InvalidInput
from vizsla.store.workspace import Workspace


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with vizsla.open(tmp_path / "workspace") as opened:
        yield opened


def test_what_is_finished_stays(ws: Workspace) -> None:
    with workspace.claim(ws, "dataset", "d") as claim:
        assert files.lock_holder(claim.folder) == os.getpid()
        files.write_json(claim.folder / "dataset.json", {})
    assert ws.store.find("d", "dataset").id == claim.entry.id
    assert files.lock_holder(claim.folder) is None
    assert workspace.sweep(ws) == []


def test_what_fails_leaves_neither_name_nor_folder(ws: Workspace) -> None:
    with pytest.raises(InvalidInput), workspace.claim(ws, "dataset", "d"):
        raise InvalidInput("no")
    assert ws.store.all("dataset") == []
    assert list((ws.root / "datasets").iterdir()) == []


def test_a_taken_name_leaves_no_folder(ws: Workspace) -> None:
    with workspace.claim(ws, "dataset", "d") as claim:
        files.write_json(claim.folder / "dataset.json", {})
    with pytest.raises(Conflict, match="already"), workspace.claim(ws, "dataset", "d"):
        pass
    assert [p.name for p in (ws.root / "datasets").iterdir()] == [claim.entry.id]


def test_a_thing_in_the_making_is_not_swept(ws: Workspace) -> None:
    with workspace.claim(ws, "dataset", "d") as claim:
        assert workspace.sweep(ws) == []
        assert claim.folder.exists()
        with pytest.raises(Conflict, match=f"Process {os.getpid()} is making"), workspace.claim(ws, "dataset", "d"):
            pass


def test_what_a_dead_process_left_is_swept(ws: Workspace) -> None:
    entry = ws.store.add("dataset", "d")
    folder = ws.folder("dataset", entry.id)
    folder.mkdir()
    (folder / ".lock").write_text("1")  # nobody holds it, whoever has that process id now
    assert [swept.name for swept in workspace.sweep(ws)] == ["d"]
    assert not folder.exists()
    assert ws.store.all("dataset") == []


def test_a_folder_without_a_name_is_swept_when_it_is_old(ws: Workspace) -> None:
    folder = ws.root / "runs" / "1aaaaaaa"
    folder.mkdir()
    workspace.sweep(ws)
    assert folder.exists()
    long_ago = time.time() - ORPHAN_AGE_S - 1
    os.utime(folder, (long_ago, long_ago))
    workspace.sweep(ws)
    assert not folder.exists()


def test_what_was_to_be_told_and_was_not_is_swept_when_it_is_old(ws: Workspace) -> None:
    with workspace.claim(ws, "rate", "told") as claim:
        files.write_json(claim.folder / "rates.json", {})
    assert workspace.sweep(ws) == []
    then = time.time() - 2 * ORPHAN_AGE_S
    os.utime(claim.folder, (then, then))
    assert workspace.sweep(ws) == [claim.entry]
    assert not claim.folder.exists()


def test_what_nobody_can_delete_holds_up_no_deletion(ws: Workspace) -> None:
    with workspace.claim(ws, "dataset", "d") as claim:
        files.write_json(claim.folder / "dataset.json", {})
    with workspace.claim(ws, "rate", "d-1", parents=[claim.entry.id]) as left:
        files.write_json(left.folder / "rates.json", {})
    job = ws.store.jobs.add("rate", left.entry.id, "d-1", owner="ada", need={})
    with pytest.raises(Conflict, match=rf"in use by the rate d-1, which is queued[^\0]*vizsla jobs stop {job.id}"):
        workspace.delete(ws, "dataset", "d")
    ws.store.jobs.change(job, "done")
    assert workspace.delete(ws, "dataset", "d") == claim.entry
    assert not left.folder.exists()
    assert ws.store.all("rate") == []


def test_a_file_is_not_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="is a file"):
        vizsla.open(tmp_path / "file")
    with pytest.raises(InvalidInput, match="cannot be made"):
        vizsla.open(tmp_path / "file" / "below")


def test_what_was_finished_while_a_sweep_looked_stays(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ws.store.add("dataset", "d")
    folder = ws.folder("dataset", entry.id)
    folder.mkdir()
    acquire = files.Lock.acquire

    def finish_first(lock: files.Lock, patience_s: float = 1.0) -> None:
        files.write_json(folder / "dataset.json", {})
        acquire(lock, patience_s)

    monkeypatch.setattr(files.Lock, "acquire", finish_first)
    assert workspace.sweep(ws) == []
    assert folder.exists()
    assert ws.store.find("d", "dataset") == entry


def test_a_name_without_a_folder_is_given_back(ws: Workspace) -> None:
    ws.store.add("dataset", "ghost")
    with workspace.claim(ws, "dataset", "ghost") as claim:
        files.write_json(claim.folder / "dataset.json", {})
    assert [row.id for row in ws.store.all("dataset")] == [claim.entry.id]


def test_a_damaged_folder_does_not_hide_the_others(ws: Workspace) -> None:
    for id, text in (("1aaaaaaa", "{"), ("1bbbbbbb", '{"id": "1bbbbbbb", "name": "whole", "created_at": "2026"}')):
        (ws.root / "datasets" / id).mkdir()
        (ws.root / "datasets" / id / "dataset.json").write_text(text)
    with pytest.warns(UserWarning, match="1aaaaaaa.*left out"):
        workspace.sweep(ws)
    assert [row.name for row in ws.store.all("dataset")] == ["whole"]


def test_what_was_made_from_what_is_known_again_after_the_loss_of_the_database(ws: Workspace) -> None:
    whole = {"id": "1dddddddd", "name": "d", "created_at": "2026"}
    made = {"id": "1rrrrrrrr", "name": "r", "created_at": "2027", "dataset": {"id": "1dddddddd"}, "model": {"id": 7}}
    for kind, facts in (("dataset", whole), ("run", made)):
        (ws.root / f"{kind}s" / str(facts["id"])).mkdir()
        files.write_json(ws.root / f"{kind}s" / str(facts["id"]) / f"{kind}.json", facts)
    assert workspace.sweep(ws) == []
    assert [row.name for row in ws.store.children("1dddddddd")] == ["r"]


def test_only_what_is_wanted_is_read(ws: Workspace) -> None:
    for name in "abc":
        with workspace.claim(ws, "dataset", name) as claim:
            files.write_json(claim.folder / "dataset.json", {"name": name})
    read: list[str] = []

    def name_of(folder: Path) -> str:
        read.append(folder.name)
        return str(files.read_json(folder / "dataset.json")["name"])

    assert workspace.readable(ws, "dataset", name_of, 2) == ["b", "c"]
    assert len(read) == 2
    (claim.folder / "dataset.json").write_text("[")
    with pytest.warns(UserWarning, match="'c'.*is left out"):
        assert workspace.readable(ws, "dataset", name_of, 2) == ["a", "b"]
    assert workspace.readable(ws, "dataset", lambda folder: folder.name) == [row.id for row in ws.store.all("dataset")]


def test_a_damaged_database_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "vizsla.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(Conflict, match="cannot be used"):
        vizsla.open(tmp_path / "w")


def test_what_is_to_stay_free_is_said_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with vizsla.open(tmp_path / "w") as ws:
        ws.require_space()
    monkeypatch.setenv("VIZSLA_KEEP_FREE", "100000")
    with vizsla.open(tmp_path / "w") as ws:
        assert ws.keep_free_bytes == 10**14
        with pytest.raises(DiskFull, match=r"MB are free, and 100,000,000 MB are to stay free\."):
            ws.require_space()
    for wrong in ("much", "-1", "nan", "1e9"):
        monkeypatch.setenv("VIZSLA_KEEP_FREE", wrong)
        with pytest.raises(InvalidInput, match="no amount of room"):
            vizsla.open(tmp_path / "w")


KILLED_BETWEEN = """
import os, signal, sys
import vizsla
from vizsla.api import workspace
with vizsla.open(sys.argv[1]) as ws:
    def die(event, args):
        if event == "os.rename" and str(args[1]).endswith(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(die)
    workspace.rename(ws, "dataset", "d", "new")
"""


@pytest.mark.parametrize(("dies_before", "name"), [(".renaming", "d"), ("dataset.json", "new")])
def test_a_renaming_that_was_killed_ends_as_the_database_has_it(ws: Workspace, dies_before: str, name: str) -> None:
    with workspace.claim(ws, "dataset", "d") as claim:
        files.write_json(claim.folder / "dataset.json", {"name": "d", "classes": 3})
    killed = subprocess.run([sys.executable, "-c", KILLED_BETWEEN, ws.root, dies_before], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert ws.store.exact(claim.entry.id, "dataset").name == name
    assert files.read_json(claim.folder / "dataset.json")["name"] == "d"
    with files.Lock(claim.folder):  # who is at work in it is left alone
        workspace.sweep(ws)
    assert files.read_json(claim.folder / "dataset.json")["name"] == "d"
    workspace.sweep(ws)
    assert files.read_json(claim.folder / "dataset.json") == {"name": name, "classes": 3}
    assert not (claim.folder / workspace.RENAMING).exists()


def test_a_renaming_that_is_refused_leaves_nothing(ws: Workspace) -> None:
    for taken in ("d", "e"):
        with workspace.claim(ws, "dataset", taken) as claim:
            files.write_json(claim.folder / "dataset.json", {"name": taken})
    before = (claim.folder / "dataset.json").read_bytes()
    with pytest.raises(Conflict, match="taken"):
        workspace.rename(ws, "dataset", "e", "d")
    assert (claim.folder / "dataset.json").read_bytes() == before
    assert not (claim.folder / workspace.RENAMING).exists()
    (claim.folder / workspace.RENAMING).touch()
    (claim.folder / "dataset.json").write_text("[")
    with pytest.warns(UserWarning, match="does not have its new name yet"):
        workspace.sweep(ws)
