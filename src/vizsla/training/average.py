"""A running mean of the weights while they are trained (Polyak and Juditsky 1992), which often is the better model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of everything in a module that is a floating-point number, buffers too."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._live = _floats(module)
        self.mean = {name: tensor.detach().clone() for name, tensor in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps. The first ones are forgotten faster: they are the worst."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.mean.values()), list(self._live.values()), 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The module with the averaged weights; afterwards it has its own again."""
        kept = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        self._put(self.mean)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def restart(self) -> None:
        """Go on from the weights that the module has now."""
        for name, tensor in self._live.items():
            self.mean[name].copy_(tensor)

    def buffers(self, module: nn.Module) -> list[Tensor]:
        """The averages of the module's buffers."""
        names = {name for name, _ in module.named_buffers()}
        return [tensor for name, tensor in self.mean.items() if name in names]

    @torch.no_grad()
    def _put(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self._live.items():
            tensor.copy_(tensors[name])


def _floats(module: nn.Module) -> dict[str, Tensor]:
    # keep_vars: the tensors themselves, so that in-place changes are seen on both sides.
    return {name: t for name, t in module.state_dict(keep_vars=True).items() if t.is_floating_point()}
