"""The promise of the README: one command, real digits, above 97 % on pictures that were not seen."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest
from tests.support import Cli, command, draw_shapes, environment

import vizsla
from vizsla.api import datasets, quickstart, runs

pytestmark = pytest.mark.slow


def test_quickstart(cli: Cli) -> None:
    found = cli("quickstart", "--json").json
    accuracy = found["evaluation"]["headline"]["accuracy"]
    assert accuracy["num_pictures"] == 1000
    assert accuracy["value"] > 0.97
    shown = found["predictions"]
    assert [p["scores"][0]["label"] for p in shown] == [p["picture"].split("/")[-2] for p in shown]
    assert set(found["seconds"]) == {"dataset", "train", "evaluate", "export", "predict"}
    with vizsla.open(cli.workspace) as ws:
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
