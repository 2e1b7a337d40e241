"""Several processes train as one: the same curve, and nothing is lost when one of them, or the watcher, is killed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support import kill_process

import vizsla
from vizsla import events, files
from vizsla.api import runs
from vizsla.errors import InvalidInput, VizslaError, WorkerDied
from vizsla.jobs.spec import JobSpec
from vizsla.store.workspace import Workspace
from vizsla.training.run import find_checkpoint

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {
    "net": "lenet",
    "epochs": 6,
    "batch_size": 8,
    "learning_rate": 0.002,
    "shift": 2,
    "jitter": 0.2,
    "mixup": 0.2,
    "checkpoint_every_s": 0.01,
}


@pytest.fixture(scope="module")
def two(ws: Workspace) -> Path:
    """The folder of a run of two processes that were left alone."""
    return runs.start(ws, "shapes", vizsla.TrainingSpec(**SETTINGS, processes=2), name="two").folder


def _curve(folder: Path) -> list[events.Event]:
    lines, _ = events.read(folder / "events.jsonl")
    return [event for event in events.surviving(lines) if event["event"] in ("step", "epoch")]


def _same(folder: Path, other: Path) -> None:
    for name in ("weights.safetensors", "optimizer.safetensors"):
        mine, theirs = (find_checkpoint(path, "last").folder / name for path in (folder, other))
        assert files.sha256(mine) == files.sha256(theirs), name
    keys = ("event", "step", "epoch", "loss", "train_loss", "val_loss")
    mine, theirs = ([[event.get(key) for key in keys] for event in _curve(path)] for path in (folder, other))
    assert mine == theirs


def test_two_processes_draw_the_curve_of_one(ws: Workspace, two: Path) -> None:
    one = runs.start(ws, "shapes", vizsla.TrainingSpec(**SETTINGS), name="one").folder
    mine, theirs = _curve(one), _curve(two)
    assert [event["step"] for event in mine] == [event["step"] for event in theirs]
    for a, b in zip(mine, theirs, strict=True):
        for key in ("loss", "train_loss", "val_loss"):
            assert (a.get(key) or 0) == pytest.approx(b.get(key) or 0, rel=2e-4), (key, a["step"])
        assert a.get("val_accuracy") == b.get("val_accuracy"), "each picture is validated once"
    assert runs.get(ws, "two").run.devices == ("cpu", "cpu")


def _ranks(ws: Workspace, name: str) -> list[psutil.Process]:
    watcher = runs.get(ws, name).progress.worker
    return psutil.Process(watcher).children() if watcher else []


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _kill_at(ws: Workspace, name: str, steps: dict[int, int | None]) -> Any:
    """Kill a rank, or the watcher (None), when the run is first at a step."""

    def kill(event: events.Event) -> None:
        due = [step for step in steps if event["event"] == "step" and event["step"] >= step]
        for step in due:
            rank = steps.pop(step)
            found = runs.get(ws, name).progress.worker if rank is None else _ranks(ws, name)[rank].pid
            kill_process(found)

    return kill


def test_killed_ranks_begin_again_from_the_checkpoint(ws: Workspace, two: Path) -> None:
    spec = vizsla.TrainingSpec(**SETTINGS, processes=2)
    steps: dict[int, int | None] = {10: 1, 40: 0}
    status = runs.start(ws, "shapes", spec, name="ranks", on_event=_kill_at(ws, "ranks", steps))
    assert steps == {}
    _same(status.folder, two)
    lines, _ = events.read(status.folder / "events.jsonl")
    told = [line["text"] for line in lines if line["event"] == "notice"]
    assert sum("killed by SIGKILL" in text for text in told) == 2
    assert not list(status.folder.glob("rank-*.json"))


def test_the_watchers_death_ends_the_ranks_and_the_run_goes_on(ws: Workspace, two: Path) -> None:
    spec = vizsla.TrainingSpec(**SETTINGS, processes=2)
    ranks: list[psutil.Process] = []

    def kill(event: events.Event) -> None:
        if event["event"] == "step" and event["step"] >= 20 and not ranks:
            ranks.extend(_ranks(ws, "watcher"))
            kill_process(runs.get(ws, "watcher").progress.worker)

    with pytest.raises(WorkerDied, match="SIGKILL"):
        runs.start(ws, "shapes", spec, name="watcher", job=JobSpec(retries=0), on_event=kill)
    assert len(ranks) == 2
    deadline = time.monotonic() + 10
    # A rank holds the lock too: the run is not lost before its last thread is gone.
    while any(map(_lives, ranks)) or runs.get(ws, "watcher").progress.state != "lost":
        assert time.monotonic() < deadline, "an orphan would hold its device"
        time.sleep(0.02)
    _same(runs.resume(ws, "watcher").folder, two)


def test_stopped_together_and_resumed(ws: Workspace, two: Path) -> None:
    asked: list[int] = []

    def stop(event: events.Event) -> None:
        if event["event"] == "step" and event["step"] >= 30 and not asked:
            asked.append(event["step"])
            runs.stop(ws, "stopped")

    spec = vizsla.TrainingSpec(**SETTINGS, processes=2)
    status = runs.start(ws, "shapes", spec, name="stopped", on_event=stop)
    assert status.progress.state == "stopped"
    assert find_checkpoint(status.folder, "last").step >= asked[0]
    _same(runs.resume(ws, "stopped").folder, two)


def test_batch_statistics_and_a_frozen_beginning_survive_kills(ws: Workspace) -> None:
    settings: dict[str, Any] = {"net": "test_resnet", "batch_size": 8, "checkpoint_every_s": 0.01}
    spec = vizsla.TrainingSpec(**settings, tune="scratch", epochs=1)
    first = runs.start(ws, "shapes", spec, name="norms").folder
    weights = find_checkpoint(first, "last").folder / "weights.safetensors"
    spec = vizsla.TrainingSpec(
        **settings, tune="full", weights=str(weights), epochs=4, freeze_epochs=2, learning_rate=0.002, processes=2
    )
    whole = runs.start(ws, "shapes", spec, name="norms-whole").folder
    steps: dict[int, int | None] = {16: 1, 34: 0}
    status = runs.start(ws, "shapes", spec, name="norms-killed", on_event=_kill_at(ws, "norms-killed", steps))
    assert steps == {}
    _same(status.folder, whole)


def test_an_error_of_a_rank_fails_at_once_with_its_traceback(ws: Workspace) -> None:
    own = ws.root / "networks" / "breaks.py"
    own.parent.mkdir(exist_ok=True)
    own.write_text(
        "import torch\n\n"
        "class Breaks(torch.nn.Module):\n"
        "    def __init__(self, classes, channels):\n"
        "        super().__init__()\n"
        "        self.line = torch.nn.Linear(channels, classes)\n\n"
        "    def forward(self, x):\n"
        "        if self.training and x.any():\n"
        "            raise ValueError('broken on purpose')\n"
        "        return self.line(x.mean((2, 3)))\n\n"
        "def network(num_classes, in_channels):\n    return Breaks(num_classes, in_channels)\n"
    )
    spec = vizsla.TrainingSpec(**SETTINGS | {"net": str(own)}, processes=2, precision="fp32")
    with pytest.raises(VizslaError, match="broken on purpose"):
        runs.start(ws, "shapes", spec, name="broken")
    last = events.last(runs.get(ws, "broken").folder / "events.jsonl")
    assert last is not None
    assert last["event"] == "failed"
    assert "Traceback" in last["traceback"]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"net": "test_resnet", "tune": "scratch", "sync_batch_norm": True}, "only to be had on GPUs"),
    ],
)
def test_what_cannot_be_shared_is_refused(ws: Workspace, settings: dict[str, Any], match: str) -> None:
    before = len(runs.list_all(ws))
    with pytest.raises(InvalidInput, match=match):
        runs.start(ws, "shapes", vizsla.TrainingSpec(**SETTINGS | settings, processes=2))
    assert len(runs.list_all(ws)) == before
