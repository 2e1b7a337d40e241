from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vizsla.errors import InvalidInput
from vizsla.networks.classic import (
    AUXILIARY_WEIGHT,
    CLASSICS,
    LENET_TABLE,
    AlexNet,
    Classic,
    GoogLeNet,
    LeNet,
    ResponseNorm,
    TableConvolution,
    WithAuxiliary,
)

SMALL = {"lenet": (1, (16, 20)), "alexnet": (3, (64, 64)), "googlenet": (3, (32, 32))}


def small(name: str, num_classes: int = 4) -> tuple[Classic, Tensor]:
    """A classic at a small size and eight pictures of noise for it."""
    torch.manual_seed(0)
    channels, size = SMALL[name]
    return CLASSICS[name](num_classes, channels, size), torch.randn(8, channels, *size)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def test_lenet_has_the_papers_parameters() -> None:
    network = LeNet(10, 1, (28, 28))
    assert count(network) - count(network.get_classifier()) == 60_000
    layers = (network.c1, network.s2, network.c3, network.s4, network.c5, network.f6)
    assert [count(layer) for layer in layers] == [156, 12, 1_516, 32, 48_120, 10_164]
    assert count(LeNet(10, 3, (28, 28)).c1) == 156 + 2 * 6 * 25


def test_lenet_pads_28_px_to_32() -> None:
    assert LeNet(10, 1, (28, 28)).c5.weight.shape == LeNet(10, 1, (32, 32)).c5.weight.shape == (120, 16, 5, 5)


@pytest.mark.parametrize("size", [(224, 224), (227, 227)])
def test_alexnet_has_the_papers_parameters(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = AlexNet(1000, 3, size)
        assert count(network) == 60_965_224
        assert network.conv1(torch.zeros(1, 3, *size)).shape == (1, 96, 55, 55)


def test_googlenet_has_the_papers_parameters() -> None:
    with torch.device("meta"):
        network = GoogLeNet(1000, 3, (224, 224))
    assert count(network) == 13_378_280
    assert count(network) - count(network.auxiliary) == 6_998_552


def test_lenets_table_is_the_papers() -> None:
    sizes = [len(sources) for sources in LENET_TABLE]
    assert sizes == [3] * 6 + [4] * 9 + [6]
    assert len(set(LENET_TABLE)) == 16
    assert all(sum(source in sources for sources in LENET_TABLE) == 10 for source in range(6))


def test_lenets_c3_connects_as_the_table_says() -> None:
    layer = TableConvolution(LENET_TABLE)
    connected = layer.dense().abs().sum(dim=(2, 3)) > 0
    for target, sources in enumerate(LENET_TABLE):
        assert connected[target].nonzero().flatten().tolist() == list(sources)
    first = layer.kernels[:3].detach()
    x = torch.randn(1, 6, 5, 5)
    expected = sum((x[0, source] * first[i]).sum() for i, source in enumerate(LENET_TABLE[0])) + layer.bias[0]
    torch.testing.assert_close(layer(x)[0, 0, 0, 0], expected)


def test_response_normalisation_is_the_papers() -> None:
    a = torch.randn(2, 7, 3, 3) * 50
    expected = torch.empty_like(a)
    for i in range(7):
        around = a[:, max(0, i - 2) : min(6, i + 2) + 1]
        expected[:, i] = a[:, i] / (2 + 1e-4 * around.square().sum(dim=1)) ** 0.75
    torch.testing.assert_close(ResponseNorm()(a), expected)


def test_alexnet_can_start_as_published() -> None:
    network = AlexNet(4, 3, (64, 64))
    network.start_as_published()
    assert network.fc7.weight.std().item() == pytest.approx(0.01, rel=0.01)
    ones = {name for name, p in network.named_parameters() if name.endswith("bias") and bool((p == 1).all())}
    assert ones == {f"{layer}.bias" for layer in ("conv2", "conv4", "conv5", "fc6", "fc7")}


@pytest.mark.parametrize("name", CLASSICS)
def test_has_the_interface_of_timm(name: str) -> None:
    network, x = small(name)
    network.eval()
    features = network.forward_features(x)
    hidden = network.forward_head(features, pre_logits=True)
    assert features.shape[1] == network.num_features
    assert hidden.shape == (8, network.head_hidden_size)
    torch.testing.assert_close(network.get_classifier()(hidden), network(x))
    network.reset_classifier(7)
    assert network(x).shape == (8, network.num_classes) == (8, 7)
    network.reset_classifier(0)
    torch.testing.assert_close(network(x), hidden)


def test_googlenet_has_auxiliaries_in_training_only() -> None:
    network, x = small("googlenet")
    output = network(x)
    assert isinstance(output, WithAuxiliary)
    assert [logits.shape for logits in (output.logits, *output.auxiliary)] == [(8, 4)] * 3
    assert isinstance(network.eval()(x), Tensor)


@pytest.mark.parametrize("name", CLASSICS)
def test_too_small_says_the_smallest_and_the_smallest_works(name: str) -> None:
    smallest = CLASSICS[name].smallest
    with pytest.raises(InvalidInput, match=f"at least {smallest} x {smallest} px"):
        CLASSICS[name](4, 3, (smallest, smallest - 1))
    for side in (smallest, smallest + 1, smallest + 3):
        network = CLASSICS[name](4, 3, (side, smallest)).eval()
        assert network(torch.zeros(1, 3, side, smallest)).shape == (1, 4)


@pytest.mark.parametrize(
    ("name", "rate", "steps"),
    [
        ("lenet", 3e-3, 30),
        pytest.param("alexnet", 1e-4, 12, marks=pytest.mark.slow),
        pytest.param("googlenet", 3e-4, 20, marks=pytest.mark.slow),
    ],
)
def test_overfits_eight_pictures(name: str, rate: float, steps: int) -> None:
    network, x = small(name)
    labels = torch.arange(8) % 4
    optimiser = torch.optim.Adam(network.parameters(), rate)
    losses = []
    for _ in range(steps):
        output = network(x)
        parts = (output.logits, *output.auxiliary) if isinstance(output, WithAuxiliary) else (output,)
        loss = sum(F.cross_entropy(p, labels) * (AUXILIARY_WEIGHT if i else 1) for i, p in enumerate(parts))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSICS)
def test_exports_to_onnx_with_any_batch(name: str, tmp_path: Path) -> None:
    network, x = small(name)
    network.eval()
    path = tmp_path / "network.onnx"
    shapes = {"x": {0: torch.export.Dim("batch", min=1, max=1024)}}
    torch.onnx.export(network, (x[:2],), str(path), dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert isinstance(session.get_inputs()[0].shape[0], str)
    for batch in (1, 2, 7):
        (found,) = session.run(None, {session.get_inputs()[0].name: x[:batch].numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, network(x[:batch]).numpy(), atol=1e-4, rtol=1e-4)
