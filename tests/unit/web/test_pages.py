"""What pages are made of: how far work is, and what a form leaves empty."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

import vizsla
from vizsla import files
from vizsla.events import EventLog
from vizsla.web.app import create_app
from vizsla.web.kept import Kept
from vizsla.web.pages import progress


def test_a_stage_says_how_far_it_is_and_how_long_it_takes(tmp_path: Path) -> None:
    with vizsla.open(tmp_path) as ws:
        entry = ws.store.add("dataset", "dogs")
        ws.folder("dataset", entry.id).mkdir()
        job = ws.store.jobs.add("dataset", entry.id, "dogs", owner="ada", need={})._replace(state="running")
        assert progress.of(ws, Kept(), job).share is None
        with EventLog(ws.folder("dataset", entry.id) / "events.jsonl") as log:
            log.write("progress", stage="scan", done=0, total=0)
            for done in (0, 100, 500):
                line = log.write("progress", stage="read", done=done, total=2000)
        now = progress.of(ws, Kept(), job)
        assert (now.share, now.stage, now.words) == (0.25, "read", "read: 500 of 2,000")
        lines = [{**line, "at": f"2026-01-01T00:00:{at:02d}.000Z", "done": done} for at, done in ((20, 500), (10, 100))]
        assert progress._left([*lines, {**line, "stage": "scan"}]) == 1500 / 40
        assert progress._left(lines[:1]) is None


def test_what_a_form_left_empty_is_not_asked_for(tmp_path: Path) -> None:
    with vizsla.open(tmp_path) as ws, files.Lock(ws.root / "queue") as lock:
        client = TestClient(create_app(ws, lock), base_url="http://127.0.0.1")
        for path in ("/jobs?name=&kind=&state=", "/datasets?name=&sort=name&order=", "/datasets?name=a%26b%2B%C3%A4"):
            assert client.get(path).status_code == 200, path
        assert "a&amp;b+ä" in client.get("/datasets?name=a%26b%2B%C3%A4").text
        assert client.get("/jobs?state=x").status_code == 422


def test_lists_of_work_know_the_last_change(tmp_path: Path) -> None:
    with vizsla.open(tmp_path) as ws, files.Lock(ws.root / "queue") as lock:
        client = TestClient(create_app(ws, lock), base_url="http://127.0.0.1")
        entry = ws.store.add("dataset", "dogs")
        ws.folder("dataset", entry.id).mkdir()
        job = ws.store.jobs.add("dataset", entry.id, "dogs", owner="ada", need={})
        known = f'data-changes="{ws.store.jobs.last_change()}"'
        kinds = ("datasets", "runs", "evaluations", "models", "predictions")
        shown = {
            path: client.get(path).text for path in ("/", "/jobs", f"/datasets/{entry.id}", *map("/{}".format, kinds))
        }
        assert [path for path, text in shown.items() if known not in text] == []
        rows = [path for path, text in shown.items() if f'data-job="{job.id}"' in text]
        assert rows == ["/", "/jobs", f"/datasets/{entry.id}", "/datasets"]
