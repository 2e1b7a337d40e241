"""A user's own network from its file to a prediction, by the copy that its run keeps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.support import Cli

NETWORK = """
from torch import nn


def network(num_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, num_classes),
    )
"""
TRAIN = ("--epochs", 2, "--batch-size", 8)


class Trained(NamedTuple):
    """A workspace with a run of an own network, whose original was edited afterwards."""

    cli: Cli
    original: Path
    run: Any


@pytest.fixture(scope="module")
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    cli = Cli(tmp_path_factory.mktemp("own") / "workspace")
    cli("dataset", "create", "shapes", shapes, "--size", 32, "--val-percent", 20, "--test-percent", 20)
    original = cli.workspace / "networks" / "small.py"
    original.parent.mkdir()
    original.write_text(NETWORK)
    run = cli("train", "shapes", "--net", original, *TRAIN, "--json").json
    original.write_text("raise RuntimeError('the original was run again')")
    return Trained(cli, original, run)


@pytest.fixture
def copied(trained: Trained, tmp_path: Path) -> Cli:
    """The command line on a copy of that workspace, to be changed."""
    shutil.copytree(trained.cli.workspace, tmp_path / "workspace")
    return Cli(tmp_path / "workspace")


def test_the_run_keeps_a_copy(trained: Trained) -> None:
    assert trained.run["run"]["name"] == "shapes-small-1"
    assert trained.run["run"]["spec"]["tune"] == "scratch"
    folder = Path(trained.run["folder"])
    assert (folder / "network.py").read_text() == NETWORK
    assert len(json.loads((folder / "run.json").read_text())["network_sha256"]) == 64
    assert "small.py" in trained.cli("run", "show", "shapes-small-1").out


def test_the_copy_is_evaluated_exported_and_used(trained: Trained, shapes: Path) -> None:
    report = trained.cli("evaluate", "shapes-small-1", "--split", "test", "--json").json
    assert report["subject"]["network"] == "small.py"
    card = trained.cli("model", "export", "shapes-small-1", "--json").json
    assert card["network"] == "small.py"
    assert card["parity"]["largest_difference"] < 1e-4
    (prediction,) = trained.cli("predict", card["name"], shapes / "disc" / "000.png", "--json").json
    assert sum(score["probability"] for score in prediction["scores"]) == pytest.approx(1, abs=1e-5)


def test_a_copy_that_was_changed_is_not_run(copied: Cli, trained: Trained, tmp_path: Path) -> None:
    copy = copied.workspace / "runs" / trained.run["run"]["id"] / "network.py"
    copy.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{NETWORK}")
    for command in (("evaluate", "shapes-small-1", "--split", "test"), ("model", "export", "shapes-small-1")):
        assert "was changed since the run began" in " ".join(copied(*command, status=1).err.split())
    assert not (tmp_path / "ran").exists()


def test_a_file_elsewhere_is_refused_and_not_run(trained: Trained, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other.py"
    elsewhere.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{NETWORK}")
    link = trained.original.with_name("link.py")
    link.symlink_to(elsewhere)
    before = trained.cli("run", "list", "--json").json
    for command in (("train", "shapes", "--net"), ("network", "show"), ("network", "draw")):
        for path in (elsewhere, link):
            refused = trained.cli(*command, path, "--json", status=1).json["error"]
            assert refused["kind"] == "invalid-input"
            assert str(trained.original.parent) in refused["what"]
            assert "VIZSLA_NETWORK_PATHS" in refused["remedy"]
    assert not (tmp_path / "ran").exists()
    assert trained.cli("run", "list", "--json").json == before


def test_further_folders_are_allowed_by_the_environment(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(NETWORK)
    monkeypatch.setenv("VIZSLA_NETWORK_PATHS", f":{tmp_path}")
    size = ("--size", 32, "--channels", 1, "--classes", 4)
    shown = trained.cli("network", "show", "mine.py", *size, "--json").json
    assert shown["layers"][-1]["shape"] == [4]
    trained.cli("network", "draw", tmp_path / "mine.py", *size, "--out", tmp_path / "net.svg")
    assert "mine.py" in (tmp_path / "net.svg").read_text()


def test_a_wrong_file_leaves_no_run(trained: Trained) -> None:
    before = trained.cli("run", "list", "--json").json
    refused = trained.cli("train", "shapes", "--net", trained.original, "--json", status=1).json["error"]
    assert "RuntimeError: the original was run again" in refused["what"]
    assert refused["where"].endswith("network.py:1")
    assert trained.cli("run", "list", "--json").json == before


def test_a_catalogue_network_is_drawn(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "net.svg"
    cli("network", "draw", "lenet", "--out", out, "--channels", 1, "--classes", 10)
    assert "Table conv" in out.read_text()
    assert "no such folder" in cli("network", "draw", "lenet", "--out", tmp_path / "none" / "x.svg", status=1).err
