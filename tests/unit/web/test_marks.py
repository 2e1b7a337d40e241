"""What happened in a run beside its steps."""

from __future__ import annotations

from pathlib import Path

from vizsla.events import EventLog
from vizsla.web.pages.marks import marks_of


def test_marks_lie_at_the_step_before_them(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert marks_of(path) == []
    with EventLog(path) as log:
        log.write("started", epochs=2, total_steps=20)
        log.write("step", step=7, loss=1.0)
        log.notice("Out of memory: from here on 4 pictures at a time go through each process.")
        log.write("step", step=9, loss=0.5)
        log.write("resumed", step=5, after="lost")
        log.notice("Goes on on cpu.")
        log.write("failed", error={"what": "The loss is not a finite number any more.", "remedy": ""})
    with path.open("a") as file:
        file.write('{"event": "don')
    found = [(mark.kind, mark.step) for mark in marks_of(path)]
    assert found == [("started", 0), ("memory", 7), ("resumed", 5), ("notice", 5), ("nan", 5)]
