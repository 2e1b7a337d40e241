from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import vizsla
from vizsla import files
from vizsla.api import workspace
from vizsla.api.workspace import ORPHAN_AGE_S, Workspace
from vizsla.errors import Conflict, InvalidInput


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with vizsla.open(tmp_path / "workspace") as opened:
        yield opened


def test_what_is_finished_stays(ws: Workspace) -> None:
    with workspace.claim(ws, "dataset", "d") as claim:
        assert files.lock_holder(claim.folder) == os.getpid()
        files.write_json(claim.folder / "dataset.json", {})
    assert ws.store.find("dataset", "d").id == claim.entry.id
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


def test_a_file_is_not_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="is a file"):
        vizsla.open(tmp_path / "file")
    with pytest.raises(InvalidInput, match="cannot be made"):
        vizsla.open(tmp_path / "file" / "below")
