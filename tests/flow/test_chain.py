"""From a folder of pictures to a prediction, by command line and by Python, on the same verbs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from tests.support import Cli

import vizsla
from vizsla import files
from vizsla.api import datasets, evaluations, models, runs
from vizsla.training.run import find_checkpoint

TRAIN = ("--net", "lenet", "--epochs", 12, "--batch-size", 8, "--learning-rate", 0.003)


class Chain(NamedTuple):
    """A workspace in which the whole chain ran by command line, and what the commands said."""

    cli: Cli
    dataset: Any
    run: Any
    report: Any
    card: Any


@pytest.fixture(scope="module")
def chain(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    cli = Cli(tmp_path_factory.mktemp("chain") / "workspace")
    split = ("--val-percent", 20, "--test-percent", 20)
    dataset = cli("dataset", "create", "shapes", shapes, "--size", 32, *split, "--json").json
    cli("train", "shapes", *TRAIN, "--name", "first", "--json")
    run = cli("run", "show", "first", "--json").json
    report = cli("evaluate", "first", "--split", "test", "--json").json
    card = cli("model", "export", "first", "--name", "shapes-1", "--json").json
    return Chain(cli, dataset, run, report, card)


@pytest.fixture
def copied(chain: Chain, tmp_path: Path) -> Cli:
    """The command line on a copy of that workspace, to be changed."""
    shutil.copytree(chain.cli.workspace, tmp_path / "workspace")
    return Cli(tmp_path / "workspace")


def test_the_counts_reconcile(chain: Chain) -> None:
    dataset = chain.dataset
    assert (dataset["found"], dataset["used"], dataset["rejected"]) == (120, 120, 0)
    sizes = {split: sum(counts.values()) for split, counts in dataset["counts"].items()}
    assert sizes == {"train": 72, "val": 24, "test": 24}


def test_the_run_learned(chain: Chain) -> None:
    epochs = chain.run["epochs"]
    assert chain.run["progress"]["state"] == "done"
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, 13))
    assert epochs[-1]["train_loss"] < 0.5 * epochs[0]["train_loss"]
    assert epochs[-1]["val_accuracy"]["num_pictures"] == 24


def test_the_report_says_how_sure_it_is(chain: Chain) -> None:
    accuracy = chain.report["headline"]["accuracy"]
    assert accuracy["num_pictures"] == 24
    assert accuracy["low"] < accuracy["value"] <= accuracy["high"]
    assert accuracy["value"] > 0.6, "three easy shapes are told apart better than by chance"
    assert chain.report["split_role"] == "held out"


def test_a_model_is_a_folder_with_its_card(chain: Chain) -> None:
    folder = chain.cli.workspace / "models" / chain.card["id"]
    parts = ["labels.txt", "model.json", "model.onnx", "model.safetensors", "usage.jsonl"]
    assert sorted(path.name for path in folder.iterdir()) == parts
    assert chain.card["parity"]["largest_difference"] < 1e-4
    assert {(figure["split"], figure["role"]) for figure in chain.card["figures"]} == {
        ("val", "chose the checkpoint"),
        ("test", "held out"),
    }


def test_a_picture_is_seen_the_same_everywhere(chain: Chain, shapes: Path) -> None:
    """From its file through the exported model, and from the store through torch."""
    folder = chain.cli.workspace / "evaluations" / chain.report["id"]
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    pictures = [shapes / row["path"] for row in rows]
    predictions = chain.cli("predict", "shapes-1", *pictures, "--json", "--top", 3).json
    for row, prediction in zip(rows, predictions, strict=True):
        assert prediction["scores"][0]["probability"] == pytest.approx(row["probability"], abs=1e-4)
        assert sum(score["probability"] for score in prediction["scores"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_a_model_is_evaluated_as_its_run_was(copied: Cli, chain: Chain) -> None:
    again = copied("evaluate", "shapes-1", "--split", "test", "--json").json
    assert again["subject"]["kind"] == "model"
    assert again["headline"] == chain.report["headline"]
    assert again["confusion"] == chain.report["confusion"]


@pytest.mark.slow
def test_python_does_what_the_command_line_does(chain: Chain, shapes: Path, tmp_path: Path) -> None:
    with vizsla.open(tmp_path / "other") as ws:
        spec = vizsla.DatasetSpec(source=shapes, width=32, height=32, val_percent=20, test_percent=20)
        dataset = datasets.create(ws, "shapes", spec)
        training = vizsla.TrainingSpec(net="lenet", epochs=12, batch_size=8, learning_rate=0.003)
        status = runs.start(ws, "shapes", training)
        report = evaluations.create(ws, status.run.name)
        card = models.export(ws, status.run.id)
        first = next(models.predict(ws, card.name, [shapes / "disc" / "000.png"]))
    assert status.progress.state == "done"
    assert status.run.name == "shapes-lenet-1"
    assert dataset.fingerprint == chain.dataset["fingerprint"]
    assert report.headline["accuracy"].model_dump() == chain.report["headline"]["accuracy"]
    assert len(first.scores) == 3
    mine = find_checkpoint(status.folder, "last").folder / "weights.safetensors"
    theirs = find_checkpoint(Path(chain.run["folder"]), "last").folder / "weights.safetensors"
    assert files.sha256(mine) == files.sha256(theirs), "the same seed gives the same weights"


def test_a_model_folder_works_elsewhere(copied: Cli, chain: Chain, shapes: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (copied.workspace / "models" / chain.card["id"]).rename(elsewhere)
    picture = shapes / "ring" / "001.png"
    (prediction,) = copied("predict", f"{elsewhere}/", picture, "--json").json
    assert len(prediction["scores"]) == 3
    with (elsewhere / "model.onnx").open("ab") as graph:
        graph.write(b"x")
    assert "damaged" in copied("predict", f"{elsewhere}/", picture, status=1).err


def test_one_bad_picture_fails_alone(chain: Chain, shapes: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not a picture")
    pictures = (shapes / "disc" / "001.png", bad, tmp_path / "none.png")
    found = chain.cli("predict", "shapes-1", *pictures, "--json", status=1).json
    assert [bool(p["error"]) for p in found] == [False, True, True]
    assert found[0]["scores"]


def test_what_others_depend_on_is_not_deleted(copied: Cli) -> None:
    assert "in use by run first" in copied("dataset", "delete", "shapes", status=1).err
    refused = copied("run", "delete", "first", status=1).err
    assert "model shapes-1" in refused
    (report,) = copied("evaluation", "list", "--json").json
    for kind, name in (("model", "shapes-1"), ("evaluation", report["name"]), ("run", "first"), ("dataset", "shapes")):
        copied(kind, "delete", name)
        assert copied(kind, "list", "--json").json == []
        assert list((copied.workspace / f"{kind}s").iterdir()) == []


def test_a_lost_database_is_rebuilt_from_the_folders(copied: Cli) -> None:
    for path in copied.workspace.glob("vizsla.db*"):
        path.unlink()
    assert copied("run", "show", "first", "--json").json["progress"]["state"] == "done"
    assert copied("model", "show", "shapes-1", "--json").json["run"]["name"] == "first"
    assert "in use by" in copied("dataset", "delete", "shapes", status=1).err


def test_things_are_shown_to_people(chain: Chain) -> None:
    for args, words in {
        ("dataset", "list"): "shapes",
        ("dataset", "show", "shapes"): "120 found = 120 used + 0 rejected",
        ("run", "list"): chain.run["run"]["id"],
        ("run", "show", "first"): "72 train + 24 val pictures",
        ("model", "list"): chain.card["id"],
        ("model", "show", "shapes-1"): "(held out)",
    }.items():
        assert words in chain.cli(*args).out
    assert chain.report["id"] in chain.cli("evaluation", "list").out
    report = chain.cli("evaluation", "show", chain.report["name"]).out
    assert "24 pictures of the test split (held out)" in report


@pytest.mark.slow
def test_grey_pictures_and_a_crop(cli: Cli, shapes: Path) -> None:
    cli("dataset", "create", "grey", shapes, "--size", "40x36", "--colour", "grey", "--val-percent", 20)
    run = cli("train", "grey", "--net", "lenet", "--epochs", 1, "--crop", 28, "--flip", "--jitter", 0.3, "--json").json
    assert run["run"]["input"]["width"] == run["run"]["input"]["height"] == 28
    card = cli("model", "export", run["run"]["name"], "--json").json
    (prediction,) = cli("predict", card["name"], shapes / "disc" / "000.png", "--json").json
    assert sum(score["probability"] for score in prediction["scores"]) == pytest.approx(1, abs=1e-5)
