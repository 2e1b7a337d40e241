import math
from typing import Any

import pytest
from pydantic import ValidationError

from vizsla.training.schedules import learning_rate
from vizsla.training.spec import GROUPS, POLICIES, RECIPES, TrainingSpec


@pytest.mark.parametrize("preset", ["modern", "digits"])
@pytest.mark.parametrize("tune", ["full", "head", "scratch"])
def test_every_default_is_filled_in(tune: str, preset: str) -> None:
    spec = TrainingSpec(tune=tune, preset=preset).resolved(has_weights=True)  # type: ignore[arg-type]
    missing = {name for name, value in spec.model_dump().items() if value is None}
    assert missing <= {"crop", "step_percent", "gamma", "power"}
    if preset == "modern":
        assert spec.learning_rate == RECIPES[spec.tune or "full"]["learning_rate"]


def test_the_preset_of_digits_is_its_form() -> None:
    spec = TrainingSpec(preset="digits", net="alexnet").resolved(has_weights=True)
    expected = {
        "tune": "scratch",
        "epochs": 30,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "schedule": "step",
        "step_percent": 33,
        "gamma": 0.1,
        "subtract_mean": "image",
        "flip": False,
        "jitter": 0,
        "val_every": 1,
        "checkpoint_every": 1,
        "accumulate": 1,
        "rms_decay": 0.99,
        "batch_size": 128,
    }
    assert {name: getattr(spec, name) for name in expected} == expected


def test_every_setting_is_in_one_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(TrainingSpec.model_fields)


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
        {"device": "cuda:0,"},
        {"device": "cuda:0,1", "processes": 3},
        {"milestones": "50;85"},
        {"milestones": "85,50"},
        {"milestones": "0,50"},
        {"milestones": "50,100"},
        {"schedule": "exp", "gamma": 1.05},
        {"tune": "head", "jitter": 0.2},
        {"tune": "head", "shift": 2},
        {"tune": "head", "mixup": 0.2},
        {"tune": "head", "auto_augment": "trivial"},
        {"tune": "head", "freeze_epochs": 2},
        {"tune": "scratch", "weights": "mine.safetensors"},
        {"preset": "digits", "weights": "mine.safetensors"},
        {"tune": "scratch", "freeze_epochs": 1},
        {"imbalance": "focal", "mixup": 0.2},
        {"processes": 2, "batch_size": 3},
        {"processes": 20},
        {"unknown": 1},
    ],
)
def test_settings_out_of_bounds_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainingSpec(**values)  # type: ignore[arg-type]


def test_as_many_processes_as_devices_are_named() -> None:
    assert TrainingSpec(device="cuda:0,2,5").num_processes == 3
    assert TrainingSpec(processes=2).num_processes == 2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, []),
        ({"momentum": 0.5}, ["--momentum"]),
        ({"momentum": 0.5, "optimizer": "nesterov"}, []),
        ({"gamma": 0.5, "schedule": "poly"}, ["--gamma"]),
        ({"power": 2.0, "schedule": "poly"}, []),
        ({"magnitude": 5.0}, ["--magnitude"]),
        ({"milestones": "30,60"}, ["--milestones"]),
        ({"rms_decay": 0.9}, ["--rms-decay"]),
        ({"tune": "full", "subtract_mean": "image"}, ["--subtract-mean"]),
        ({"hue": 0.1}, ["--hue"]),
    ],
)
def test_settings_without_effect_are_told(settings: dict[str, Any], named: list[str]) -> None:
    told = TrainingSpec(**settings).resolved(has_weights=True).unused(num_val=1, channels=1)
    assert [text.split()[0] for text in told] == named


def _rates(**settings: Any) -> list[float]:
    asked = {"learning_rate": 1.0, "warmup_percent": 0.0, "tune": "scratch"} | settings
    spec = TrainingSpec(**asked).resolved(has_weights=False)
    return [learning_rate(spec, percent / 100) for percent in range(100)]


def test_cosine_rises_then_falls_to_zero() -> None:
    rates = _rates(schedule="cosine", warmup_percent=10.0)
    assert rates[5] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001


def test_one_cycle_is_torchs() -> None:
    import torch

    layer = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=101)
    expected = []
    for _ in range(100):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert _rates(schedule="onecycle", warmup_percent=None) == pytest.approx(expected, abs=0.06)


I = range(100)  # noqa: E741 - DIGITS' formulas call the percent of the training i
FORMULAS = {
    "fixed": [1.0 for i in I],
    "step": [0.1 ** math.floor(i / 33) for i in I],
    "multistep": [0.5 ** ((i >= 50) + (i >= 85)) for i in I],
    "exp": [0.95**i for i in I],
    "inv": [(1 + 0.1 * i) ** -0.5 for i in I],
    "poly": [(1 - i / 100) ** 3 for i in I],
    "sigmoid": [1 / (1 + math.e ** (0.1 * (i - 50))) for i in I],
}


@pytest.mark.parametrize("policy", FORMULAS)
def test_the_policies_of_digits_are_its_formulas_with_its_defaults(policy: str) -> None:
    assert _rates(schedule=policy) == pytest.approx(FORMULAS[policy])
    assert set(POLICIES) < {*FORMULAS}
