"""The number format and memory layout a device is fast with. A fixed rule: the same device gives the same run."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import torch
from torch import nn

from vizsla.errors import Unavailable

# Below this many parameters the conversions of autocast cost more than the faster products gain.
SMALL_NETWORK = 1_000_000


class Precision(NamedTuple):
    """How the heavy arithmetic is done."""

    name: str
    reason: str

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """The context in which forward passes run."""
        if self.name == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)


def choose(wanted: str, device: torch.device, network: nn.Module) -> Precision:
    """The precision for a network on a device; `wanted` is "auto", "fp32" or "bf16"."""
    if wanted != "auto":
        return Precision(wanted, "as asked")
    if sum(p.numel() for p in network.parameters()) < SMALL_NETWORK:
        return Precision("fp32", "the network is small")
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= (8, 0):  # Ampere; emulation on older ones is slow
            return Precision("bf16", "the GPU has bf16 units")
        return Precision("fp32", "the GPU has no bf16 units")
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return Precision("bf16", "the CPU has bf16 instructions")
    return Precision("fp32", "the CPU has no bf16 instructions")


def choose_threads(device: torch.device, network: nn.Module) -> None:
    """Let a small network train on one thread of a CPU: several would wait for each other longer than they compute.

    On a machine that is busy otherwise they would wait very long.
    """
    if device.type == "cpu" and sum(p.numel() for p in network.parameters()) < SMALL_NETWORK:
        torch.set_num_threads(1)


def choose_device(wanted: str) -> torch.device:
    """The device for "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        Unavailable: there is no such GPU.
    """
    if wanted == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise Unavailable(
            f"There is no device {wanted!r}: {torch.cuda.device_count()} GPUs were found.",
            remedy="Use --device cpu or --device auto.",
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device
