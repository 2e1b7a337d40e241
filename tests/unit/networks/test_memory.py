"""The estimate of memory is what torch really keeps."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vizsla.networks import catalogue, memory

COMMON: dict[str, Any] = {
    "optimizer_states_per_parameter": 2,
    "bytes_per_activation": 4,
    "trained": "full",
    "ema": False,
}


def really_kept(network: nn.Module, pictures: Tensor) -> int:
    """Bytes of what hangs on the graph after a forward pass, found by the hooks' packed objects."""
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    network.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = network(pictures)
    own = {t.untyped_storage()._cdata for t in (*network.parameters(), *network.buffers(), pictures)}
    size = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)
    del logits
    return size


@pytest.mark.parametrize(("name", "side"), [("lenet", 28), ("resnet18", 64), ("vit_tiny_patch16_224", 64)])
def test_activations_are_those_of_a_larger_batch(name: str, side: int) -> None:
    network = catalogue.build(name, num_classes=10, in_channels=3, size=(side, side))
    found = memory.estimate(network, (side, side), 3, 8, **COMMON)
    truth = really_kept(network, torch.rand(8, 3, side, side))
    assert found.activations == pytest.approx(truth, rel=0.02)
    parameters = sum(p.numel() for p in network.parameters()) * 4
    assert found.gradients == parameters
    assert found.optimizer == 2 * parameters
    assert found.parameters == parameters + sum(b.nbytes for b in network.buffers())
    assert found.inputs == 8 * 3 * side * side * 5
    assert found.total == sum(found[:-1])


def test_gradients_and_optimiser_are_what_torch_makes() -> None:
    network = catalogue.build("lenet", num_classes=10, in_channels=1, size=(28, 28))
    found = memory.estimate(network, (28, 28), 1, 4, **COMMON)
    optimizer = torch.optim.AdamW(network.parameters())
    network.train()(torch.rand(4, 1, 28, 28)).sum().backward()
    optimizer.step()
    assert found.gradients == sum(p.grad.nbytes for p in network.parameters() if p.grad is not None)
    states = sum(v.nbytes for fields in optimizer.state.values() for k, v in fields.items() if k != "step")
    assert found.optimizer == states


def test_a_head_alone_takes_little() -> None:
    network = catalogue.build("resnet18", num_classes=10, in_channels=3, size=(64, 64))
    full = memory.estimate(network, (64, 64), 3, 8, **COMMON)
    head = memory.estimate(network, (64, 64), 3, 8, **COMMON | {"trained": "head"})
    assert head.gradients == (512 + 1) * 10 * 4
    assert head.activations < full.activations / 100
    assert head.parameters == full.parameters
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_short_floats_halve_activations_but_bring_copies_of_the_weights() -> None:
    network = catalogue.build("lenet", num_classes=10, in_channels=1, size=(28, 28))
    long = memory.estimate(network, (28, 28), 1, 512, **COMMON)
    short = memory.estimate(network, (28, 28), 1, 512, **COMMON | {"bytes_per_activation": 2})
    assert long.activations / 2 < short.activations < 0.51 * long.activations


def test_a_running_mean_doubles_the_parameters() -> None:
    network = catalogue.build("lenet", num_classes=10, in_channels=1, size=(28, 28))
    plain = memory.estimate(network, (28, 28), 1, 8, **COMMON)
    ema = memory.estimate(network, (28, 28), 1, 8, **COMMON | {"ema": True})
    assert ema.parameters == 2 * plain.parameters


def test_the_network_is_as_before() -> None:
    network = catalogue.build("resnet18", num_classes=3, in_channels=3, size=(32, 32)).eval()
    network.get_submodule("conv1").requires_grad_(False)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    torch.manual_seed(5)
    memory.estimate(network, (32, 32), 3, 8, **COMMON)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)
    assert not network.training
    assert not network.get_parameter("conv1.weight").requires_grad
    assert network.get_parameter("fc.weight").requires_grad
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
