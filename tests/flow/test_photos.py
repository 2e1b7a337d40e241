"""Real photos and pretrained weights, by command line, at the figures that the README states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support import Cli

import vizsla
from vizsla import files
from vizsla.api import datasets, runs
from vizsla.events import Event
from vizsla.training.run import find_checkpoint

LITE0 = ("--net", "tf_efficientnet_lite0")


@pytest.mark.slow
def test_dog_breeds_by_their_last_layer(cli: Cli, shared_data: Callable[[str], Path]) -> None:
    dogs = shared_data("dogs10")
    options = ("--size", 160, "--resize", "crop", "--val-percent", 10, "--test-folder", dogs / "val")
    dataset = cli("dataset", "create", "dogs", dogs / "train", *options, "--json").json
    assert dataset["used"] == 1500
    run = cli("train", "dogs", *LITE0, "--tune", "head", "--name", "dogs-head", "--json").json
    assert run["run"]["weights"]["licence"] == "apache-2.0"
    report = cli("evaluate", "dogs-head", "--split", "test", "--json").json
    accuracy = report["headline"]["accuracy"]
    assert accuracy["num_pictures"] == 500
    assert accuracy["value"] >= 0.88
    card = cli("model", "export", "dogs-head", "--name", "dogs-1", "--json").json
    assert card["weights"]["licence"] == "apache-2.0"
    photos = sorted((dogs / "val" / "Samoyed").iterdir())[:8]
    found = cli("predict", "dogs-1", *photos, "--json").json
    assert sum(p["scores"][0]["label"] == "Samoyed" for p in found) >= 6


@pytest.mark.slow
def test_skin_lesions_by_the_whole_network(cli: Cli, shared_data: Callable[[str], Path]) -> None:
    pictures = shared_data("isic_thumbs")
    options = ("--size", 64, "--max-per-class", 60, "--val-percent", 20, "--test-percent", 20)
    cli("dataset", "create", "skin", pictures, *options)
    run = cli("train", "skin", *LITE0, "--tune", "full", "--epochs", 2, "--jitter", 0.3, "--json").json
    epochs = cli("run", "show", run["run"]["name"], "--json").json["epochs"]
    assert epochs[1]["train_loss"] < epochs[0]["train_loss"]
    report = cli("evaluate", run["run"]["name"], "--json").json
    assert set(report["headline"]) >= {"accuracy", "balanced_accuracy", "auc"}


@pytest.mark.slow
def test_stopped_between_two_passes_for_features_and_resumed(
    workspace: Path, shared_data: Callable[[str], Path]
) -> None:
    """Before its second epoch a run computes the mirrored half; what it has learned by then is not lost."""
    shape = {"width": 160, "height": 160, "resize": "crop", "max_per_class": 16}
    spec = vizsla.TrainingSpec(net=LITE0[1], tune="head", epochs=4, precision="fp32")
    with vizsla.open(workspace) as ws:
        datasets.create(ws, "dogs", vizsla.DatasetSpec(source=shared_data("dogs10") / "train", **shape))  # type: ignore[arg-type]
        whole = runs.start(ws, "dogs", spec, name="whole")

        def stop(event: Event) -> None:
            if event["event"] == "epoch" and event["epoch"] == 1:
                runs.stop(ws, "cut")

        cut = runs.start(ws, "dogs", spec, name="cut", on_event=stop)
        assert cut.progress.state == "stopped"
        assert find_checkpoint(cut.folder, "last").step == cut.run.steps_per_epoch
        resumed = runs.resume(ws, "cut")
        weights = [find_checkpoint(status.folder, "last").folder / "weights.safetensors" for status in (whole, resumed)]
        assert files.sha256(weights[0]) == files.sha256(weights[1])
