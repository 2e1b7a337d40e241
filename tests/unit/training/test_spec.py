import math

import pytest
from pydantic import ValidationError

from vizsla.training.schedules import learning_rate
from vizsla.training.spec import RECIPES, TrainingSpec


@pytest.mark.parametrize("tune", ["full", "head", "scratch"])
def test_every_default_is_filled_in(tune: str) -> None:
    spec = TrainingSpec(tune=tune).resolved(has_weights=True)  # type: ignore[arg-type]
    missing = {name for name, value in spec.model_dump().items() if value is None}
    assert missing == {"crop"}
    assert spec.learning_rate == RECIPES[spec.tune or "full"]["learning_rate"]


def test_tune_follows_from_the_weights_there_are() -> None:
    assert TrainingSpec().resolved(has_weights=True).tune == "full"
    assert TrainingSpec().resolved(has_weights=False).tune == "scratch"
    assert TrainingSpec(weights="mine.safetensors").resolved(has_weights=False).tune == "full"


def test_what_was_asked_is_kept() -> None:
    spec = TrainingSpec(tune="full", learning_rate=0.5, flip=False, jitter=0.0).resolved(has_weights=True)
    assert (spec.learning_rate, spec.flip, spec.jitter) == (0.5, False, 0.0)


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"jitter": 1.5},
        {"device": "gpu"},
        {"tune": "head", "jitter": 0.2},
        {"tune": "head", "shift": 2},
        {"tune": "scratch", "weights": "mine.safetensors"},
        {"unknown": 1},
    ],
)
def test_settings_out_of_bounds_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainingSpec(**values)  # type: ignore[arg-type]


def test_cosine_rises_then_falls_to_zero() -> None:
    spec = TrainingSpec(schedule="cosine", warmup_percent=10, learning_rate=1.0)
    assert learning_rate(spec, 0.05) == pytest.approx(0.5)
    assert learning_rate(spec, 0.1) == pytest.approx(1.0)
    assert learning_rate(spec, 0.55) == pytest.approx(0.5)
    assert learning_rate(spec, 1.0) == pytest.approx(0.0)


def test_step_is_the_policy_of_digits() -> None:
    spec = TrainingSpec(schedule="step", warmup_percent=0, learning_rate=1.0, step_percent=33, gamma=0.1)
    expected = [0.1 ** math.floor(percent / 33) for percent in range(100)]
    assert [learning_rate(spec, percent / 100) for percent in range(100)] == pytest.approx(expected)


def test_fixed_stays() -> None:
    spec = TrainingSpec(schedule="fixed", warmup_percent=0, learning_rate=0.3)
    assert {learning_rate(spec, p / 10) for p in range(10)} == {0.3}
