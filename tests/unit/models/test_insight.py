"""The heat map says where a network looked, and the layers are told whole."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from vizsla.errors import InvalidInput
from vizsla.models import insight
from vizsla.networks import catalogue
from vizsla.networks.classifier import Classifier


def classifier(network: nn.Module, side: int, channels: int = 3) -> Classifier:
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return Classifier(network, size=(side, side), mean=zeros, std=ones).eval().requires_grad_(False)


def bright(side: int, top: int, left: int) -> np.ndarray:
    pixels = np.zeros((side, side, 1), dtype=np.uint8)
    pixels[top : top + 6, left : left + 6] = 255
    return pixels


def looking_for_light() -> nn.Module:
    """The first map is light and speaks for class 1, the second is a constant and speaks for class 0."""
    convolution = nn.Conv2d(1, 2, 1)
    head = nn.Linear(2, 2)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([1.0, 0.0]).view(2, 1, 1, 1))
        convolution.bias.copy_(torch.tensor([0.0, 1.0]))
        head.weight.copy_(torch.tensor([[-1.0, 0.01], [20.0, 0.0]]))
        head.bias.zero_()
    return nn.Sequential(convolution, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


@pytest.mark.parametrize(("top", "left"), [(2, 3), (22, 20)])
def test_the_heat_lies_where_the_light_is(top: int, left: int) -> None:
    found = insight.heat(classifier(looking_for_light(), 32, 1), bright(32, top, left))
    assert found.position == 1
    assert found.layer == "1"  # behind the activation
    assert found.shape == (2, 32, 32)
    assert not found.is_flat
    lit = found.map[top : top + 6, left : left + 6]
    assert lit.min() == 1
    assert found.map.sum() == pytest.approx(lit.sum())
    assert found.probabilities.sum() == pytest.approx(1)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(found.picture))))
    assert image.shape == (224, 224, 3)
    assert len(np.unique(image[top * 7 + 20, left * 7 + 20])) > 1  # coloured, where the picture is white


def test_what_speaks_against_a_class_has_no_heat_for_it() -> None:
    found = insight.heat(classifier(looking_for_light(), 32, 1), bright(32, 2, 3), 0)
    assert found.position == 0
    assert found.map[3:7, 4:8].max() == 0
    assert found.map[20:, 20:].min() == 1


def test_only_the_centre_is_seen() -> None:
    found = insight.heat(classifier(looking_for_light(), 16, 1), bright(32, 12, 12))
    assert found.map[12:18, 12:18].min() == 1
    assert found.map[:8].max() == found.map[24:].max() == 0


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet", "lenet", "googlenet"])
def test_networks_are_looked_into(name: str) -> None:
    side = 64
    network = catalogue.build(name, num_classes=3, in_channels=3, size=(side, side))
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    found = insight.heat(classifier(network, side), pixels)
    assert min(found.shape[1:]) > 1
    assert found.map.shape == (side, side)
    layers = insight.layers(classifier(network, side), pixels)
    idle = {"aux1", "aux2"}
    used = sum(one.numel() for key, one in network.named_parameters() if key.split(".")[0] not in idle)
    if name != "googlenet":  # which has parts that have no part in an answer
        assert sum(one["num_parameters"] for one in layers) == used
    for one in layers[:6]:
        drawn = insight.layer(classifier(network, side), pixels, one["name"])
        assert drawn["activation"]["shape"] == one["shape"]
        assert drawn["activation"]["mean"] == pytest.approx(one["activation"]["mean"])
        assert sum(drawn["activation"]["counts"]) == np.prod(one["shape"])
        for weights in drawn["weights"]:
            if len(weights["shape"]) == 4:
                assert Image.open(io.BytesIO(base64.b64decode(weights["picture"]))).width <= 600


def test_networks_without_maps_say_so() -> None:
    network = timm.create_model("test_vit", num_classes=3)
    pixels = np.zeros((160, 160, 3), dtype=np.uint8)
    with pytest.raises(InvalidInput, match="no convolutional maps"):
        insight.heat(classifier(network, 160), pixels)
    assert insight.layers(classifier(network, 160), pixels)
    with pytest.raises(InvalidInput, match="no layer"):
        insight.layer(classifier(network, 160), pixels, "nothing")
