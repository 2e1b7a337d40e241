from __future__ import annotations

from pathlib import Path

import pytest

from vizsla.events import Event, EventLog, now
from vizsla.training.run import Request, epochs, progress
from vizsla.training.spec import TrainingSpec


@pytest.mark.parametrize(
    ("asked", "device", "processes"),
    [
        ({"processes": 2}, None, 2),
        ({"processes": 2}, "auto", 2),
        ({"processes": 2}, "cpu", 2),
        ({"processes": 2}, "cuda:0", 1),
        ({"device": "cuda:0,1"}, "cuda:3", 1),
        ({"device": "cuda:0,1"}, "cuda:1,2,3", 3),
        ({}, "cuda:0,1", 2),
    ],
)
def test_a_run_goes_on_in_as_many_processes_as_gpus_are_named(
    asked: dict[str, object], device: str | None, processes: int
) -> None:
    spec = TrainingSpec(**asked)  # type: ignore[arg-type]
    request = Request(id="1", name="r", created_at=now(), dataset_folder=Path("d"), spec=spec, device=device)
    assert request.num_processes == processes
    named = device is not None and ":" in device
    assert len(request.named_devices) == (processes if named else 0)


def _told(folder: Path, *lines: Event) -> None:
    with EventLog(folder / "events.jsonl") as log:
        for line in lines:
            log.write(line["event"], **{name: value for name, value in line.items() if name != "event"})


def test_how_far_a_run_has_come_is_found_past_the_steps_that_hold_and_those_that_were_undone(tmp_path: Path) -> None:
    def step(number: int) -> Event:
        return {"event": "step", "step": number, "elapsed_s": number / 10}

    first = {"event": "epoch", "epoch": 1, "step": 10, "best_step": 10, "elapsed_s": 1.0}
    _told(tmp_path, {"event": "started"}, *(step(n) for n in range(1, 11)), first)
    second = {"event": "epoch", "epoch": 2, "step": 20, "best_step": 20, "elapsed_s": 2.0}
    _told(tmp_path, *(step(n) for n in range(11, 21)), second, *(step(n) for n in range(21, 26)))
    found = progress(tmp_path)
    assert (found.state, found.elapsed_s) == ("lost", 2.5)
    assert found.last_epoch is not None
    assert found.last_epoch["epoch"] == 2
    _told(tmp_path, {"event": "resumed", "step": 15, "after": "lost"})
    found = progress(tmp_path)
    assert found.elapsed_s == 1.5
    assert found.best is not None
    assert (found.last_epoch, found.best["best_step"]) == (found.best, 10)
    assert [line["epoch"] for line in epochs(tmp_path)] == [1]
    _told(tmp_path, step(16), {"event": "validation", "step": 16, "best_step": 16}, step(17), {"event": "done"})
    found = progress(tmp_path)
    assert (found.state, found.elapsed_s) == ("done", 1.7)
    assert found.best is not None
    assert found.best["best_step"] == 16
    assert epochs(tmp_path) == [found.last_epoch]
