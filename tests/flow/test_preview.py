"""What a training would be, as the command line tells it; then a training, which is just that."""

import json
from pathlib import Path

import pytest
from PIL import Image
from tests.support import Cli, draw_shapes


@pytest.fixture(scope="module")
def vizsla(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    root = tmp_path_factory.mktemp("preview")
    cli = Cli(root / "ws")
    cli("dataset", "create", "shapes", draw_shapes(root / "shapes", num=20), "--size", 32, "--val-percent", 20)
    return cli


def test_a_preview_tells_what_the_training_then_is(vizsla: Cli, tmp_path: Path) -> None:
    options = ("--net", "lenet", "--epochs", 2, "--batch-size", 16, "--crop", 28, "--shift", 1, "--mixup", 0.2)
    found = vizsla("run", "preview", "shapes", *options, "--out", tmp_path / "a" / "b", "--json").json
    assert found["pictures"] == {"train": 48, "val": 12, "test": 0}
    assert (found["steps_per_epoch"], found["total_steps"], found["pictures_per_step"]) == (3, 6, 16)
    assert found["input"] == {"height": 28, "width": 28, "channels": 3}
    assert set(found["changed"]) == {"net", "epochs", "batch_size", "crop", "shift", "mixup"}
    assert found["changed"]["epochs"] == {"value": 2, "default": 30}
    memory = found["memory"]
    assert memory["parameters_bytes"] >= 4 * found["num_parameters"]
    assert memory["optimizer_bytes"] == 2 * memory["gradients_bytes"]  # AdamW keeps two numbers for each
    rates = json.loads((tmp_path / "a" / "b" / "schedule.json").read_text())["rates"]
    assert [epoch for epoch, _ in rates] == pytest.approx([0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3])
    assert 0 < rates[0][1] < 0.002
    assert max(rate for _, rate in rates) == pytest.approx(0.001, rel=0.1)
    for name in ("schedule.png", "augmented.png"):
        with Image.open(found["files"][name]) as image:
            assert min(image.size) > 800
    assert vizsla("run", "list", "--json").json == []

    run = vizsla("train", "shapes", *options, "--json").json["run"]
    assert run["spec"] == found["settings"]
    assert run["num_parameters"] == found["num_parameters"]
    assert run["steps_per_epoch"] == found["steps_per_epoch"]


def test_the_same_preview_is_the_same_to_the_bit(vizsla: Cli, tmp_path: Path) -> None:
    options = ("--net", "lenet", "--jitter", 0.3, "--noise", 0.1, "--auto-augment", "trivial")
    for name in ("one", "two"):
        vizsla("run", "preview", "shapes", *options, "--out", tmp_path / name)
    for file in ("schedule.png", "schedule.json", "augmented.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_it_says_what_has_no_effect_and_refuses_what_cannot_be(vizsla: Cli, tmp_path: Path) -> None:
    said = vizsla("run", "preview", "shapes", "--net", "lenet", "--gamma", 0.5, "--out", tmp_path).out
    assert "--gamma has no effect" in said
    assert "gamma 0.5" in said
    assert said.rstrip().endswith("vizsla train shapes --net lenet --gamma 0.5")
    refused = vizsla("run", "preview", "shapes", "--net", "lenet", "--crop", 64, "--out", tmp_path / "no", status=1)
    assert "does not fit" in refused.err
    refused = vizsla("run", "preview", "shapes", "--net", "lenett", "--out", tmp_path / "no", status=1)
    assert "lenet" in refused.err
    assert not (tmp_path / "no").exists()


def test_the_last_layer_alone_is_shown_as_it_is_trained(vizsla: Cli, tmp_path: Path) -> None:
    options = ("--net", "resnet10t", "--tune", "head", "--crop", 24)
    found = vizsla("run", "preview", "shapes", *options, "--out", tmp_path, "--json").json
    assert found["memory"]["gradients_bytes"] < 4 * found["num_parameters"] / 100
