"""The drawing of a network: what it holds, what is folded, and that it is one safe page."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from vizsla.networks import catalogue, drawing, graph
from vizsla.networks.drawing import Block, Item, Parallel, Row, Series


def read(name: str, size: tuple[int, int] = (64, 64), in_channels: int = 3) -> tuple[nn.Module, Series]:
    network = catalogue.build(name, num_classes=10, in_channels=in_channels, size=size)
    return network, graph.read(network, size, in_channels)


def inside(item: Item) -> Iterator[Item]:
    yield item
    match item:
        case Series():
            parts = item.items
        case Parallel():
            parts = item.branches
        case Block():
            parts = [item.body]
        case _:
            parts = []
    for part in parts:
        yield from inside(part)


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "vit_tiny_patch16_224", "efficientnet_b0", "densenet121"])
def test_every_parameter_is_drawn(name: str) -> None:
    network, found = read(name)
    assert found.num_parameters == sum(p.numel() for p in network.parameters())


def test_lenet_is_a_row_a_layer() -> None:
    _, found = read("lenet", (28, 28), 1)
    rows = [item for item in found.items if isinstance(item, Row)]
    assert len(rows) == len(found.items)
    assert [row.label for row in rows] == [
        "Input", "Conv 5 × 5, 6", "Subsampling 2 × 2", "Table conv 5 × 5, 16", "Subsampling 2 × 2", "Conv 5 × 5, 120",
        "Linear 84", "Linear 10",
    ]  # fmt: skip
    assert rows[1].shape == (6, 28, 28)
    assert rows[3].num_parameters == 1516
    assert rows[6].details == ("tanh",)


def test_a_residual_block_has_a_way_past_it() -> None:
    _, found = read("resnet18")
    blocks = [item for item in found.items if isinstance(item, Block)]
    assert [block.count for block in blocks] == [2, 1, 1, 1, 1, 1, 1]
    assert (blocks[0].label, blocks[0].path) == ("BasicBlock", "layer1.0 – layer1.1")
    around, plus = blocks[0].body.items
    assert isinstance(around, Parallel)
    assert around.skip
    assert [row.details for row in around.branches[0].items if isinstance(row, Row)] == [
        ("BatchNorm", "ReLU"), ("BatchNorm",)
    ]  # fmt: skip
    assert isinstance(plus, Row)
    assert (plus.label, plus.details) == ("+", ("ReLU",))
    first = blocks[1].body.items[0]
    assert isinstance(first, Parallel)
    assert not first.skip
    assert [len(branch.items) for branch in first.branches] == [2, 1], "the shortcut has a convolution of its own"


def test_inception_has_four_branches() -> None:
    _, found = read("googlenet")
    blocks = [item for item in found.items if isinstance(item, Block)]
    assert sum(block.count for block in blocks) == 9
    assert any(block.count > 1 and not block.alike for block in blocks)
    assert all(isinstance(b.body.items[0], Parallel) and len(b.body.items[0].branches) == 4 for b in blocks)


def test_a_transformer_is_one_block_many_times() -> None:
    _, found = read("vit_tiny_patch16_224")
    (block,) = [item for item in found.items if isinstance(item, Block)]
    assert block.count == 12
    labels = [item.label for item in inside(block) if isinstance(item, Row)]
    assert labels == [
        "LayerNorm",
        "Linear 576",
        "Attention",
        "Linear 192",
        "+",
        "LayerNorm",
        "Linear 768",
        "Linear 192",
        "+",
    ]
    assert [row.label for row in found.items if isinstance(row, Row)][2:4] == ["concat cls token", "+ pos embed"]


def test_what_hangs_together_in_no_order_is_marked() -> None:
    _, found = read("densenet121")
    assert any(isinstance(item, Series) and item.knotted for item in inside(found))


def test_a_network_of_any_code_is_drawn() -> None:
    class Odd(nn.Module):
        """Decides by the content of its input, which no tracer follows, and works in place."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = x.mean((2, 3))
            y = self.a(x) if float(x.sum()) > 1 else self.b(x)
            y += x
            return self.out(y)

    found = graph.read(Odd(), (4, 4), 3)
    rows = [item.label for item in inside(found) if isinstance(item, Row)]
    assert rows == ["Input", "Mean", "Linear 3", "+", "Linear 2"]
    assert any(isinstance(item, Parallel) and item.skip for item in inside(found))


@pytest.mark.parametrize("name", ["lenet", "googlenet", "resnet18", "vit_tiny_patch16_224"])
def test_the_page_is_whole(name: str) -> None:
    network = catalogue.build(name, num_classes=10, in_channels=3, size=(64, 64))
    svg = graph.draw(network, "<b>&", (64, 64), 3)
    root = ET.fromstring(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert root[0].text == "<b>&"
    assert "prefers-color-scheme: dark" in svg
    assert "<script" not in svg
    boxes = [element.attrib for element in root if element.tag.endswith("rect")][1:]
    assert len(boxes) > 6
    for box in boxes:
        x, y, w, h = (float(box[key]) for key in ("x", "y", "width", "height"))
        assert 0 <= x < x + w <= width
        assert 0 <= y < y + h <= height
    shown = [element.text or "" for element in root if element.tag.endswith("text")]
    total = sum(p.numel() for p in network.parameters())
    assert f"{total:,} parameters" in shown[1]


def test_boxes_do_not_overlap() -> None:
    _, found = read("googlenet")
    root = ET.fromstring(drawing.svg("googlenet", "", found))
    boxes = [
        tuple(float(element.attrib[key]) for key in ("x", "y", "width", "height"))
        for element in root
        if element.attrib.get("class") == "box"
    ]
    for number, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[number + 1 :]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


def test_watching_leaves_the_network_as_it_was() -> None:
    network = catalogue.build("resnet18", num_classes=2, in_channels=1, size=(32, 32))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    graph.read(network, (32, 32), 1)
    assert network.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
