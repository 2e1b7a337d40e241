"""How much memory a training will take, before it begins: counted where it can be, measured where it cannot."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from vizsla.networks import catalogue

BATCHES = (2, 3)
"""Two passes tell what grows with the batch from what does not. With one picture, batch statistics fail."""


class Estimate(NamedTuple):
    """Bytes on the device. What kernels take for their own work, and the allocator's gaps, come on top."""

    parameters: int
    """with buffers, and with their running mean when there is one"""
    gradients: int
    optimizer: int
    activations: int
    """what a forward pass keeps for the backward pass, beside the pictures"""
    inputs: int
    """the pictures of a batch, as bytes and standardised"""
    total: int


def estimate(
    network: nn.Module,
    size: tuple[int, int],
    in_channels: int,
    batch_size: int,
    *,
    optimizer_states_per_parameter: float,
    bytes_per_activation: int,
    trained: Literal["full", "head"],
    ema: bool,
) -> Estimate:
    """What a step of training keeps at the same time, at its highest: between forward and backward pass.

    The network, on the CPU, takes two small batches in training mode; it is as before afterwards.

    Args:
        size: (height, width) of what it sees.
        optimizer_states_per_parameter: 2 for Adam, 1 for momentum, 0 for plain SGD.
        bytes_per_activation: 4, or 2 with 16-bit floats; then a copy of each weight in that format counts too.
        trained: "head" counts gradients, optimiser and activations of the last layer only.
        ema: whether a running mean of the weights is kept.
    """
    with _training(network, trained) as parameters:
        small, large = (_saved(network, size, in_channels, batch, bytes_per_activation) for batch in BATCHES)
        num_trained = sum(parameter.nbytes for parameter in parameters)
        states = sum(parameter.numel() for parameter in parameters) * 4 * optimizer_states_per_parameter
    each = (large - small) / (BATCHES[1] - BATCHES[0])
    held = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    parts = (
        held * (2 if ema else 1),
        num_trained,
        math.ceil(states),
        max(0, round(small + each * (batch_size - BATCHES[0]))),
        batch_size * in_channels * size[0] * size[1] * (1 + 4),
    )
    return Estimate(*parts, total=sum(parts))


@contextlib.contextmanager
def _training(network: nn.Module, trained: Literal["full", "head"]) -> Iterator[list[nn.Parameter]]:
    """Training mode with only the trained parameters asking for gradients, which are given; then all as before."""
    before = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    try:
        if trained == "head":
            head: nn.Module = network.get_classifier()  # type: ignore[operator]
            network.requires_grad_(False)
            head.requires_grad_(True)
        with catalogue.untouched(network):
            network.train()
            yield [parameter for parameter in network.parameters() if parameter.requires_grad]
    finally:
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)


def _saved(
    network: nn.Module, size: tuple[int, int], in_channels: int, batch_size: int, bytes_per_activation: int
) -> int:
    """Bytes that one forward pass keeps for the backward pass: each storage once, without the network and its input."""
    pictures = torch.zeros(batch_size, in_channels, *size)
    own = {_storage(tensor): tensor for tensor in network.parameters()}
    aside = {_storage(tensor) for tensor in (*network.buffers(), pictures)}
    found: dict[int, int] = {}
    alive: list[Any] = []  # or the address of one that is freed could be another's

    def pack(tensor: Tensor) -> Tensor:
        key = _storage(tensor)
        if key in own:
            # Autocast computes with a copy in its own format, which it keeps as long as the graph.
            if bytes_per_activation < tensor.element_size() and tensor.ndim > 1:
                found[key] = own[key].numel() * bytes_per_activation
        elif key not in aside:
            storage = tensor.untyped_storage()
            alive.append(storage)
            width = bytes_per_activation if tensor.is_floating_point() else tensor.element_size()
            found[key] = storage.nbytes() // tensor.element_size() * width
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = network(pictures)  # the graph lives until all is counted
    del kept
    return sum(found.values())


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
