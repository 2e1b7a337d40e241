"""What pages are made of: fields out of settings, how far work is, and what a form leaves empty."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

import vizsla
from vizsla import files
from vizsla.datasets.spec import DatasetSpec
from vizsla.events import EventLog
from vizsla.web.app import create_app
from vizsla.web.kept import Kept
from vizsla.web.pages import progress
from vizsla.web.pages.fields import fields


def test_fields_are_drawn_from_the_settings() -> None:
    found = fields(DatasetSpec)
    assert set(found) == set(DatasetSpec.model_fields)
    width, resize, share, most = (found[name] for name in ("width", "resize", "val_percent", "max_per_class"))
    assert (width.name, width.kind, width.min, width.max, width.step, width.default) == (
        "spec.width", "number", 1, 4096, "1", "256",
    )  # fmt: skip
    assert (resize.kind, resize.choices, resize.default) == (
        "choice", ("squash", "crop", "fill", "half-crop"), "squash",
    )  # fmt: skip
    assert (share.label, share.step, share.default, share.max) == ("Val percent", "any", "25", 100)
    assert (most.kind, most.min, most.default) == ("number", 1, "")
    assert found["source"].kind == "text"
    assert all(field.help for field in found.values())


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
