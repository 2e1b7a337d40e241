"""Settings do what they say, in real trainings: the preset of DIGITS, averaged weights, retention, early stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.support import kill_process

import vizsla
from vizsla import events, files
from vizsla.api import evaluations, models, runs, trials
from vizsla.errors import InvalidInput, WorkerDied
from vizsla.jobs.spec import JobSpec
from vizsla.store.workspace import Workspace
from vizsla.training.run import RunStatus, checkpoints, find_checkpoint

pytestmark = pytest.mark.slow


def _train(ws: Workspace, name: str, **settings: Any) -> RunStatus:
    asked = {"net": "lenet", "epochs": 3, "batch_size": 8, "learning_rate": 0.002} | settings
    return runs.start(ws, "shapes", vizsla.TrainingSpec(**asked), name=name)


def _events(status: RunStatus, kind: str) -> list[events.Event]:
    lines, _ = events.read(status.folder / "events.jsonl")
    return [line for line in lines if line["event"] == kind]


def test_the_preset_of_digits_subtracts_the_mean_picture_everywhere(ws: Workspace) -> None:
    """Crops are taken, and what is evaluated and exported subtracts the middle of the same picture."""
    status = _train(ws, "digits", preset="digits", crop=28, learning_rate=None, batch_size=None)
    assert (status.run.spec.batch_size, status.run.spec.optimizer, status.run.spec.schedule) == (64, "sgd", "step")
    mean = np.load(status.folder / "mean.npy")
    dataset_mean = np.load(ws.folder("dataset", status.run.dataset.id) / "mean.npy")
    assert np.allclose(mean, dataset_mean[2:30, 2:30].transpose(2, 0, 1) / 255)
    evaluated = evaluations.create(ws, "digits", split="val")
    card = models.export(ws, "digits", name="digits-1")  # fails unless ONNX agrees on real pictures
    again = evaluations.create(ws, card.id, split="val")
    assert again.headline["accuracy"] == evaluated.headline["accuracy"]


SETTINGS = {
    "net": "test_resnet",
    "tune": "scratch",
    "ema": 0.95,
    "val_every": 0.5,
    "checkpoint_every": 0.5,
    "keep_best": 2,
    "keep_every": 1,
    "accumulate": 2,
    "clip_norm": 1.0,
    "optimizer": "lamb",
    "schedule": "onecycle",
    "imbalance": "sample",
    "auto_augment": "trivial",
    "cutmix": 1.0,
    "erase": 0.25,
    "checkpoint_every_s": 0.05,
}


def test_with_everything_on_killed_and_resumed_is_as_left_alone(ws: Workspace) -> None:
    whole = _train(ws, "whole", **SETTINGS)
    halfway = [event["epoch"] for event in _events(whole, "validation")]
    assert halfway == [0.5, 1.5, 2.5]
    per_epoch = whole.run.steps_per_epoch
    kept = {checkpoint.step for checkpoint in checkpoints(whole.folder)}
    best = {
        found["step"]
        for found in files.read_json(find_checkpoint(whole.folder, "last").folder / "checkpoint.json")["best"]
    }
    assert len(best) == 2
    assert kept == best | {per_epoch, 2 * per_epoch, 3 * per_epoch}

    def kill(event: events.Event) -> None:
        if event["event"] == "validation" and event["epoch"] == 1.5:
            kill_process(runs.get(ws, "cut").progress.worker)

    with pytest.raises(WorkerDied):
        runs.start(ws, "shapes", whole.run.asked, name="cut", job=JobSpec(retries=0), on_event=kill)
    resumed = runs.resume(ws, "cut")
    for name in ("weights.safetensors", "training.safetensors", "optimizer.safetensors"):
        mine, theirs = (find_checkpoint(status.folder, "last").folder / name for status in (whole, resumed))
        assert files.sha256(mine) == files.sha256(theirs), name


def test_the_average_is_the_model(ws: Workspace) -> None:
    status = _train(ws, "average", ema=0.9)
    last = find_checkpoint(status.folder, "last").folder
    averaged, trained = load_file(last / "weights.safetensors"), load_file(last / "training.safetensors")
    assert any(not np.array_equal(averaged[name], trained[name]) for name in averaged)
    card = models.export(ws, "average", name="average-1", checkpoint="last")
    exported = load_file(ws.folder("model", card.id) / "model.safetensors")
    assert all(np.array_equal(exported[name], averaged[name]) for name in averaged)


def test_it_stops_early_and_can_be_made_to_go_on(ws: Workspace) -> None:
    status = _train(ws, "early", epochs=100, learning_rate=0.02, early_stop=1)
    assert status.progress.state == "done"
    told = _events(status, "epoch")
    assert 2 <= len(told) < 50
    assert "Stopped early" in _events(status, "notice")[-1]["text"]
    assert find_checkpoint(status.folder, "last").step == told[-1]["step"]


def test_a_learning_rate_is_found(ws: Workspace, tmp_path: Path) -> None:
    found = trials.find_rate(ws, "shapes", vizsla.TrainingSpec(net="lenet", batch_size=8), out=tmp_path / "out")
    assert 1e-5 < found.suggested < 0.1
    assert [point.rate for point in found.points] == sorted(point.rate for point in found.points)
    assert (tmp_path / "out" / "rates.png").stat().st_size > 1000
    assert ws.store.jobs.newest(1)[0].kind == "rate"
    assert (ws.store.all("rate"), list((ws.root / "rates").iterdir())) == ([], []), "nothing is left behind"


def test_what_was_measured_is_kept_for_the_next_run(ws: Workspace) -> None:
    large: dict[str, Any] = {"net": "resnet10t", "tune": "scratch", "epochs": 1, "precision": "fp32"}
    first = _train(ws, "measured-1", **large).run.arithmetic
    cache = files.read_json(ws.root / "cache" / "arithmetic.json")
    assert first.model_dump() in cache.values()
    (ws.root / "cache" / "arithmetic.json").write_text("{damaged")
    second = _train(ws, "measured-2", **large).run.arithmetic
    assert second.measured
    assert _train(ws, "measured-3", **large).run.arithmetic == second


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"optimizer": "adamww"}, "no optimiser named 'adamww'"),
        ({"device": "cuda:7"}, "no GPU 7"),
        ({"crop": 40}, "does not fit"),
    ],
)
def test_what_cannot_be_done_is_refused(ws: Workspace, settings: dict[str, Any], match: str) -> None:
    before = len(runs.list_all(ws))
    with pytest.raises((InvalidInput, vizsla.VizslaError), match=match):
        _train(ws, "refused", **settings)
    assert len(runs.list_all(ws)) == before
