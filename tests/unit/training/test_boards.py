"""The curves that TensorBoard and MLflow read, read by them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support import fake_run

from vizsla import events, files
from vizsla.training.boards import Boards


def _step(step: int, loss: float = 1.5) -> events.Event:
    at = "2026-01-02T03:04:05.678Z"
    return {"event": "step", "at": at, "step": step, "loss": loss, "learning_rate": 0.1, "pictures_per_s": 99.0}


def _epoch(step: int) -> events.Event:
    figures = {"train_accuracy": 0.7, "val_loss": 0.6, "val_accuracy": {"value": 0.75}, "val_balanced_accuracy": None}
    return {"event": "epoch", "at": events.now(), "step": step, "epoch": 1, **figures}


def _read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard makes of a folder. In a process of its own: importing it warns of its own libraries."""
    code = (
        "import sys, json; from tensorboard.backend.event_processing.event_accumulator import EventAccumulator as E\n"
        "e = E(sys.argv[1], size_guidance={'scalars': 0}).Reload()\n"
        "print(json.dumps({t: [(s.step, s.value, s.wall_time) for s in e.Scalars(t)] for t in e.Tags()['scalars']}))"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    return {tag: [tuple(row) for row in rows] for tag, rows in json.loads(done.stdout).items()}


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    boards = Boards(tmp_path, fake_run(), notice=pytest.fail)
    for event in ({"event": "started"}, _step(10), _step(300_000, 0.25), _epoch(300_000), {"event": "done"}):
        boards.event(event)
    boards.close("done")
    found = _read(tmp_path / "tensorboard")
    assert [row[:2] for row in found["train/loss"]] == [(10, 1.5), (300_000, 0.25)]
    assert found["train/loss"][0][2] == pytest.approx(1767323045.678)
    assert [row[0] for row in found["val/accuracy"]] == [300_000]
    assert found["val/accuracy"][0][1] == pytest.approx(0.75)
    assert set(found) == {
        *("train/loss", "train/learning_rate", "train/accuracy", "val/loss", "val/accuracy", "speed/pictures_per_s")
    }


def test_a_killed_and_resumed_run_has_no_gap_and_no_repeat(tmp_path: Path) -> None:
    killed = Boards(tmp_path, fake_run(), notice=pytest.fail)
    for step in (10, 20, 30, 40):
        killed.event(_step(step, step))  # and it is never closed
    resumed = Boards(tmp_path, fake_run(), notice=pytest.fail, resumed_at=20)
    for step in (30, 40, 50):
        resumed.event(_step(step, -step))
    resumed.close("done")
    killed.close()
    found = _read(tmp_path / "tensorboard")["train/loss"]
    assert [row[:2] for row in found] == [(10, 10), (20, 20), (30, -30), (40, -40), (50, -50)]
    begun_again = Boards(tmp_path, fake_run(), notice=pytest.fail, resumed_at=None)
    begun_again.event(_step(10, 7))
    begun_again.close("done")
    assert [row[:2] for row in _read(tmp_path / "tensorboard")["train/loss"]] == [(10, 7)]


def test_a_thousand_events_cost_little(tmp_path: Path) -> None:
    boards = Boards(tmp_path, fake_run(), notice=pytest.fail)
    began = time.perf_counter()
    for step in range(1000):
        boards.event(_step(step))
    assert time.perf_counter() - began < 0.5
    boards.close("done")


def test_a_file_that_cannot_be_written_is_said_once_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    said: list[str] = []
    boards = Boards(tmp_path, fake_run(), notice=said.append)
    boards.event(_step(10))
    boards.event(_step(20))
    boards.close("done")
    assert len(said) == 1
    assert "TensorBoard's file cannot be written" in said[0]


def _mlflow(code: str, uri: str, folder: Path, *, close_s: float = 120, **env: str) -> str:
    """Run `code` in a process of its own: MLflow configures logging, warnings and the environment as it likes."""
    prelude = (
        "import sys, time; from pathlib import Path; from tests.support import fake_run\n"
        "from tests.unit.training.test_boards import _step, _epoch\n"
        "from vizsla.training.boards import Boards\nuri, folder = sys.argv[1], Path(sys.argv[2])\n"
        # A machine that is busy with other tests takes its time to write to a database.
        "from vizsla.training import mlflow_log; mlflow_log.CLOSE_S = float(sys.argv[3])\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", prelude + code, uri, folder, str(close_s)],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}", **env},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_mlflow_has_the_run_and_goes_on_with_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    train = (
        "boards = Boards(folder, fake_run(), notice=print, mlflow_uri=uri, resumed_at={})\n"
        "for step in {}: boards.event(_step(step))\n"
        "boards.event(_epoch(20))\n"
        "deadline = time.monotonic() + 60\n"
        "while not (folder / 'mlflow.json').exists() and time.monotonic() < deadline: time.sleep(0.1)\n"
        "boards.close('{}')\n"
    )
    assert _mlflow(train.format(None, "(10, 20)", "stopped"), uri, tmp_path) == ""
    first = files.read_json(tmp_path / "mlflow.json")
    assert _mlflow(train.format(20, "(30, 40)", "done"), uri, tmp_path) == ""
    assert files.read_json(tmp_path / "mlflow.json") == first
    look = (
        "from mlflow import MlflowClient; import json; c = MlflowClient(tracking_uri=uri)\n"
        f"r = c.get_run({first['run_id']!r})\n"
        "steps = [m.step for m in c.get_metric_history(r.info.run_id, 'train/loss')]\n"
        "print(json.dumps([r.info.status, r.info.run_name, r.data.params, r.data.tags, steps, r.data.metrics]))"
    )
    status, name, params, tags, steps, metrics = json.loads(_mlflow(look, uri, tmp_path))
    assert (status, name) == ("FINISHED", "dogs-1")
    assert (params["epochs"], params["learning_rate"]) == ("3", "0.1")
    assert (tags["vizsla.run_id"], tags["vizsla.dataset_fingerprint"]) == ("1rsrmwp0", "f00d")
    assert sorted(steps) == [10, 20, 30, 40]
    assert metrics["val/accuracy"] == 0.75


@pytest.mark.slow
def test_a_server_that_is_not_there_is_said_and_costs_seconds(tmp_path: Path) -> None:
    code = (
        "boards = Boards(folder, fake_run(), notice=print, mlflow_uri=uri)\n"
        "began = time.monotonic()\n"
        "for step in range(20_000): boards.event(_step(step))\n"
        "print('SECONDS', time.monotonic() - began)\n"
        "deadline = time.monotonic() + 60\n"
        "while not boards._mlflow.notices and time.monotonic() < deadline: time.sleep(0.1)\n"
        "boards.close('done')\n"
    )
    said = _mlflow(code, "http://127.0.0.1:9", tmp_path, close_s=10).splitlines()
    assert float(said[0].split()[1]) < 10, "the training does not wait"
    assert len(said) == 2
    assert "MLflow cannot be reached" in said[1]


def test_a_missing_library_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    said: list[str] = []
    boards: Any = Boards(tmp_path, fake_run(), notice=said.append, mlflow_uri="http://127.0.0.1:9")
    boards.event(_step(10))
    boards.close("done")
    assert said == ["MLFLOW_TRACKING_URI is set, but MLflow is not there: pip install 'vizsla[mlflow]'."]
