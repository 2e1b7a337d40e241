from __future__ import annotations

import pytest
from tests.support import Cli

from vizsla.cli.options import given
from vizsla.training.spec import TrainingSpec


@pytest.mark.parametrize(
    ("options", "said", "status"),
    [
        (("--epochs", "1.5"), "'1.5' is not a whole number", 2),
        (("--batch-size", "32.7"), "'32.7' is not a whole number", 2),
        (("--schedule", "exp", "--gamma", 2), "the learning rate of exp would grow", 1),
        (("--device", "gpu"), "--device: this is not a value that it takes", 1),
        (("--processes", 20), "cannot be shared by 20 processes", 1),
    ],
)
def test_values_that_cannot_be_are_refused_by_their_option(
    cli: Cli, options: tuple[object, ...], said: str, status: int
) -> None:
    assert said in cli("train", "nothing", *options, status=status).err


def test_the_options_that_make_a_spec_are_told() -> None:
    spec = TrainingSpec(net="lenet", epochs=3, learning_rate=0.00012345678, flip=False, quarter_turns=True, jitter=0.5)
    options = ["--net", "lenet", "--epochs", "3", "--learning-rate", "0.00012345678", "--no-flip", "--quarter-turns"]
    assert given(spec) == [*options, "--jitter", "0.5"]
    assert given(TrainingSpec()) == []


@pytest.mark.parametrize(("option", "value"), [("--classes", 0), ("--channels", -1)])
def test_a_network_of_nothing_is_refused(cli: Cli, option: str, value: int) -> None:
    assert f"{option} must be 1 or more" in cli("network", "show", "lenet", option, value, status=1).err


@pytest.mark.parametrize(
    "words",
    [
        ("run", "extend", "x", "--epochs", "none"),
        ("network", "show", "lenet", "--classes", 2.5),
        ("predict", "m", "--top", 1.5),
        ("run", "list", "--limit", 0),
    ],
)
def test_counts_are_whole_numbers(cli: Cli, words: tuple[object, ...]) -> None:
    assert "number" in cli(*words, status=2).err
