"""From a folder of pictures to a prediction, by command line and by Python, on the same verbs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.support import Cli

import vizsla
from vizsla import files
from vizsla.api import datasets, evaluations, models, runs
from vizsla.training.run import find_checkpoint

TRAIN = ("--net", "lenet", "--epochs", 12, "--batch-size", 8, "--learning-rate", 0.003)


@pytest.fixture
def trained(cli: Cli, shapes: Path) -> str:
    """The name of a finished run on the shapes."""
    cli("dataset", "create", "shapes", shapes, "--size", 32, "--val-percent", 20, "--test-percent", 20)
    cli("train", "shapes", *TRAIN, "--name", "first")
    return "first"


def test_pictures_to_predictions(cli: Cli, workspace: Path, shapes: Path, trained: str) -> None:
    dataset = cli("dataset", "show", "shapes", "--json").json
    assert (dataset["found"], dataset["used"], dataset["rejected"]) == (120, 120, 0)
    assert {split: sum(counts.values()) for split, counts in dataset["counts"].items()} == {
        "train": 72,
        "val": 24,
        "test": 24,
    }
    run = cli("run", "show", trained, "--json").json
    assert run["progress"]["state"] == "done"
    assert [epoch["epoch"] for epoch in run["epochs"]] == list(range(1, 13))
    assert run["epochs"][-1]["train_loss"] < 0.5 * run["epochs"][0]["train_loss"]

    report = cli("evaluate", trained, "--split", "test", "--json").json
    accuracy = report["headline"]["accuracy"]
    assert accuracy["num_pictures"] == 24
    assert accuracy["low"] < accuracy["value"] <= accuracy["high"]
    assert accuracy["value"] > 0.6, "three easy shapes are told apart better than by chance"

    card = cli("model", "export", trained, "--name", "shapes-1", "--json").json
    folder = workspace / "models" / card["id"]
    assert sorted(p.name for p in folder.iterdir()) == ["labels.txt", "model.json", "model.onnx", "model.safetensors"]
    assert card["parity"]["largest_difference"] < 1e-4
    assert {figure["split"] for figure in card["figures"]} == {"val", "test"}

    # The same picture, from its file through the exported model and from the store through torch, is seen the same.
    rows = pq.read_table(workspace / "evaluations" / report["id"] / "predictions.parquet").to_pylist()
    pictures = [shapes / row["path"] for row in rows]
    predictions = cli("predict", "shapes-1", *pictures, "--json", "--top", 3).json
    for row, prediction in zip(rows, predictions, strict=True):
        assert prediction["scores"][0]["probability"] == pytest.approx(row["probability"], abs=1e-4)
        assert sum(score["probability"] for score in prediction["scores"]) == pytest.approx(1, abs=1e-5)

    again = cli("evaluate", "shapes-1", "--split", "test", "--json").json
    assert again["headline"] == report["headline"]
    assert again["confusion"] == report["confusion"]


def test_python_does_what_the_command_line_does(
    cli: Cli, workspace: Path, shapes: Path, trained: str, tmp_path: Path
) -> None:
    by_cli = cli("run", "show", trained, "--json").json
    with vizsla.open(tmp_path / "other") as ws:
        spec = vizsla.DatasetSpec(source=shapes, width=32, height=32, val_percent=20, test_percent=20)
        dataset = datasets.create(ws, "shapes", spec)
        training = vizsla.TrainingSpec(net="lenet", epochs=12, batch_size=8, learning_rate=0.003)
        status = runs.start(ws, "shapes", training)
        assert status.progress.state == "done"
        report = evaluations.create(ws, status.run.name)
        card = models.export(ws, status.run.id)
        first = next(models.predict(ws, card.name, [shapes / "disc" / "000.png"]))
        assert [entry.name for entry in ws.store.list("run")] == ["shapes-lenet-1"]

    assert dataset.fingerprint == by_cli["run"]["dataset"]["fingerprint"]
    assert report.num_pictures == 24
    assert len(first.scores) == 3
    mine = find_checkpoint(status.folder, "last").folder / "weights.safetensors"
    theirs = find_checkpoint(Path(by_cli["folder"]), "last").folder / "weights.safetensors"
    assert files.sha256(mine) == files.sha256(theirs), "the same seed gives the same weights"


def test_a_model_folder_works_elsewhere(cli: Cli, workspace: Path, shapes: Path, trained: str, tmp_path: Path) -> None:
    card = cli("model", "export", trained, "--json").json
    elsewhere = tmp_path / "elsewhere"
    (workspace / "models" / card["id"]).rename(elsewhere)
    picture = shapes / "ring" / "001.png"
    (prediction,) = cli("predict", f"{elsewhere}/", picture, "--json").json
    assert len(prediction["scores"]) == 3
    with (elsewhere / "model.onnx").open("ab") as graph:
        graph.write(b"x")
    assert "damaged" in cli("predict", f"{elsewhere}/", picture, status=1).err


def test_one_bad_picture_fails_alone(cli: Cli, shapes: Path, trained: str, tmp_path: Path) -> None:
    cli("model", "export", trained, "--name", "m")
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not a picture")
    found = cli("predict", "m", shapes / "disc" / "001.png", bad, tmp_path / "none.png", "--json", status=1).json
    assert [bool(p["error"]) for p in found] == [False, True, True]
    assert found[0]["scores"]


def test_what_others_depend_on_is_not_deleted(cli: Cli, workspace: Path, trained: str) -> None:
    cli("model", "export", trained, "--name", "m")
    assert "in use by run first" in cli("dataset", "delete", "shapes", status=1).err
    assert "in use by model m" in cli("run", "delete", trained, status=1).err
    for kind, name in (("model", "m"), ("run", trained), ("dataset", "shapes")):
        cli(kind, "delete", name)
    for kind in ("model", "run", "dataset"):
        assert cli(kind, "list", "--json").json == []
        assert list((workspace / f"{kind}s").iterdir()) == []


def test_a_lost_database_is_rebuilt_from_the_folders(cli: Cli, workspace: Path, trained: str) -> None:
    cli("evaluate", trained)
    cli("model", "export", trained, "--name", "m")
    for path in workspace.glob("vizsla.db*"):
        path.unlink()
    assert cli("run", "show", trained, "--json").json["progress"]["state"] == "done"
    assert cli("model", "show", "m", "--json").json["run"]["name"] == trained
    assert "in use by run" in cli("dataset", "delete", "shapes", status=1).err


def test_grey_pictures_and_a_crop(cli: Cli, shapes: Path) -> None:
    cli("dataset", "create", "grey", shapes, "--size", "40x36", "--colour", "grey", "--val-percent", 20)
    run = cli("train", "grey", "--net", "lenet", "--epochs", 1, "--crop", 28, "--flip", "--jitter", 0.3, "--json").json
    assert run["run"]["input"]["width"] == run["run"]["input"]["height"] == 28
    card = cli("model", "export", run["run"]["name"], "--json").json
    (prediction,) = cli("predict", card["name"], shapes / "disc" / "000.png", "--json").json
    assert np.isclose(sum(s["probability"] for s in prediction["scores"]), 1, atol=1e-5)
