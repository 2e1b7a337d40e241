from __future__ import annotations

import pytest
import torch
from torch import nn

from vizsla.errors import InvalidInput
from vizsla.networks import catalogue
from vizsla.training import optimizers
from vizsla.training.optimizers import make_optimizer
from vizsla.training.spec import TrainingSpec


def _spec(**settings: object) -> TrainingSpec:
    return TrainingSpec(**{"tune": "scratch", **settings}).resolved(has_weights=False)  # type: ignore[arg-type]


def test_biases_and_norms_are_not_decayed() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    groups = make_optimizer(_spec(weight_decay=0.5), network).param_groups
    assert {(group["weight_decay"], len(group["params"])) for group in groups} == {(0.5, 1), (0.0, 3)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sgd", {"momentum": 0.8, "nesterov": False}),
        ("nesterov", {"momentum": 0.8, "nesterov": True}),
        ("rmsprop", {"momentum": 0.8, "alpha": 0.95}),
        ("AdamW", {"betas": (0.9, 0.999)}),
    ],
)
def test_settings_reach_the_optimiser(name: str, expected: dict[str, object]) -> None:
    optimizer = make_optimizer(_spec(optimizer=name, momentum=0.8, rms_decay=0.95), nn.Linear(2, 2))
    assert {key: optimizer.param_groups[0][key] for key in expected} == expected


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam", "adamw", "rmsprop", "adagrad", "adadelta", "lamb", "lion"])
def test_it_minimises(name: str) -> None:
    torch.manual_seed(0)
    layer, inputs = nn.Linear(4, 1), torch.randn(32, 4)
    optimizer = make_optimizer(_spec(optimizer=name, learning_rate=1.0 if name == "adadelta" else 0.01), layer)
    losses = []
    for _ in range(30):
        loss = (layer(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["adamww", "bnbadam8bit", "adahessian", "fusedlamb"])
def test_what_cannot_be_used_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        optimizers.check(_spec(optimizer=name))


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(InvalidInput, match="Did you mean 'adamw'"):
        optimizers.check(_spec(optimizer="adamww"))


def test_earlier_layers_learn_more_slowly() -> None:
    network = catalogue.build("test_resnet", num_classes=2, in_channels=3, size=(32, 32))
    groups = make_optimizer(_spec(layer_decay=0.5), network).param_groups
    scale = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    head, stem = network.get_classifier().weight, network.get_parameter("conv1.0.weight")  # type: ignore[operator]
    assert scale[id(head)] == 1
    assert scale[id(stem)] < 0.2
