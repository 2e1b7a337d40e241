"""Things as JSON: read once, read again when their files have changed, and in bounded memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import pytest
from pydantic import BaseModel

import vizsla
from vizsla import events, files
from vizsla.evaluation.report import read_report
from vizsla.store.workspace import Workspace
from vizsla.web.kept import OVERHEAD_BYTES, READERS, Kept

EXAMPLES = json.loads(resources.files("vizsla.web").joinpath("examples.json").read_text())


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with vizsla.open(tmp_path / "workspace") as opened:
        yield opened


def _report(ws: Workspace, name: str) -> str:
    id = ws.store.add("evaluation", name).id
    ws.folder("evaluation", id).mkdir()
    files.write_json(ws.folder("evaluation", id) / "report.json", EXAMPLES["Report"] | {"id": id, "name": name})
    return id


def test_what_has_not_changed_is_not_read_again(ws: Workspace) -> None:
    kept, id = Kept(), _report(ws, "first")
    found = kept.require(ws, "evaluation", id)
    assert json.loads(found.body)["name"] == "first"
    assert found.facts == {"split": "test"}
    assert kept.require(ws, "evaluation", id) is found
    path = ws.folder("evaluation", id) / "report.json"
    files.write_json(path, EXAMPLES["Report"] | {"id": id, "name": "other"})
    assert json.loads(kept.require(ws, "evaluation", id).body)["name"] == "other"
    path.write_text("{")
    assert kept.get(ws, "evaluation", id) is None
    path.unlink()
    assert kept.get(ws, "evaluation", id) is None


def test_a_run_is_as_its_worker_and_its_events_are(ws: Workspace) -> None:
    kept, id = Kept(), ws.store.add("run", "r").id
    folder = ws.folder("run", id)
    folder.mkdir()
    files.write_json(folder / "run.json", EXAMPLES["RunAnswer"]["run"] | {"id": id, "name": "r"})

    def state() -> str:
        return kept.require(ws, "run", id).facts["state"]

    assert state() == "lost"
    with files.Lock(folder), events.EventLog(folder / "events.jsonl") as log:
        assert state() == "running"
        log.write("started", total_steps=1, epochs=1)
        assert state() == "running"
        log.write("done")
    assert state() == "done"
    assert kept.require(ws, "run", id) is kept.require(ws, "run", id)
    with events.EventLog(folder / "events.jsonl") as log:
        log.write("resumed", step=0, after="done")
    assert state() == "lost"


def test_what_several_ask_for_is_read_once_and_never_as_it_was_before(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, id = Kept(), _report(ws, "old")
    begun, go_on, num_read = threading.Event(), threading.Event(), 0

    def slow(folder: Path) -> BaseModel:
        nonlocal num_read
        num_read += 1
        found = read_report(folder)
        begun.set()
        assert go_on.wait(10)
        return found

    monkeypatch.setitem(READERS, "evaluation", slow)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(kept.get, ws, "evaluation", id)
        assert begun.wait(10)
        files.write_json(ws.folder("evaluation", id) / "report.json", EXAMPLES["Report"] | {"id": id, "name": "new"})
        later = [pool.submit(kept.get, ws, "evaluation", id) for _ in range(8)]
        go_on.set()
        assert [json.loads(one.body)["name"] for one in (done.result() for done in (first, *later)) if one] == [
            "old",
            *["new"] * 8,
        ]
    assert num_read == 2


def test_what_cannot_be_what_is_wanted_is_not_read(ws: Workspace) -> None:
    kept, id = Kept(), ws.store.add("run", "r").id
    folder = ws.folder("run", id)
    folder.mkdir()
    files.write_json(folder / "run.json", EXAMPLES["RunAnswer"]["run"] | {"id": id, "name": "r"})
    assert kept.get(ws, "run", id, {"state": "running"}) is None
    assert kept.num_bytes == 0
    with files.Lock(folder):
        assert kept.get(ws, "run", id, {"state": "running", "network": "alexnet"}) is None
        found = kept.get(ws, "run", id, {"state": "running"})
        assert found is not None
        assert found.facts["state"] == "running"
    assert kept.get(ws, "run", id, {"state": "running"}) is None
    assert kept.get(ws, "run", id, {"state": "lost"}) is not None


def test_memory_is_bounded(ws: Workspace) -> None:
    ids = [_report(ws, f"report {number}") for number in range(12)]
    size = len(Kept().require(ws, "evaluation", ids[0]).body) + OVERHEAD_BYTES + 100
    kept = Kept(max_bytes=3 * size)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = list(pool.map(lambda id: kept.get(ws, "evaluation", id), ids))
            assert [json.loads(one.body)["id"] for one in found if one] == ids
            assert 0 < kept.num_bytes <= 3 * size
    assert kept.get(ws, "evaluation", ids[-1]) is kept.get(ws, "evaluation", ids[-1])
