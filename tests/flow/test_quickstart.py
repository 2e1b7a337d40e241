"""The quickstart: what it tells, what it leaves alone, and how it is stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.support import Cli, command, draw_shapes, environment

import vizsla
from vizsla.api import datasets, quickstart, runs
from vizsla.cli import quickstart as command_line
from vizsla.cli.options import Common

pytestmark = pytest.mark.slow


def test_what_it_made_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one epoch: how well it does with all of them is measured where the tutorial is run."""
    monkeypatch.setattr(quickstart, "TRAINING", quickstart.TRAINING.model_copy(update={"epochs": 1}))
    command_line.quickstart(common=Common(workspace=tmp_path, json=True))
    found = json.loads(capsys.readouterr().out)
    accuracy = found["evaluation"]["headline"]["accuracy"]
    assert accuracy["num_pictures"] == 1000
    assert found["model"]["run"]["id"] == found["run"]["run"]["id"]
    shown = found["predictions"]
    assert len({p["picture"].split("/")[-2] for p in shown}) == 3, "of three classes"
    assert all(len(p["scores"]) == 3 for p in shown)
    assert set(found["seconds"]) == {"dataset", "train", "evaluate", "export", "predict"}
    with vizsla.open(tmp_path) as ws:
        again = quickstart.digits(ws)
    assert again.id == found["dataset"]["id"], "run again, it uses the dataset that is there"


def test_a_dataset_of_the_users_that_has_the_name_is_left_alone(cli: Cli) -> None:
    pictures = draw_shapes(cli.workspace.parent / "pictures", num=4)
    with vizsla.open(cli.workspace) as ws:
        theirs = datasets.create(ws, "digits", vizsla.DatasetSpec(source=pictures, width=28, height=28))
        ours = quickstart.digits(ws)
    assert theirs.name == "digits"
    assert ours.name == "digits-1"
    assert ours.used == 5000


def test_ctrl_c_ends_all_of_it(cli: Cli) -> None:
    process = subprocess.Popen(
        command("quickstart"), env=environment(cli.workspace), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not any('"step"' in log.read_text() for log in cli.workspace.glob("runs/*/events.jsonl")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    with vizsla.open(cli.workspace) as ws:
        assert [status.progress.state for status in runs.list_all(ws)] == ["stopped"]
        assert ws.store.all("evaluation") == []
