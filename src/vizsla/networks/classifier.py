"""A network with its input attached: stored pixels in, logits out. Trained, evaluated and exported as one thing."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """Cuts the centre out of uint8 pictures, standardises them and runs the network."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, *, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        """`size` (height, width) is what the network sees; `mean` and `std` are per channel, of pixels in 0..1."""
        super().__init__()
        self.network = network
        self.size = size
        # Not part of the state: run.json and the model's card hold them.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def centre(self, pixels: Tensor) -> Tensor:
        """uint8 (n, H, W, C) -> uint8 (n, height, width, C): the middle of each picture."""
        height, width = self.size
        top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
        return pixels[:, top : top + height, left : left + width]

    def standardise(self, pictures: Tensor) -> Tensor:
        """float (n, C, h, w) in 0..1 -> the same with zero mean and unit deviation."""
        return (pictures - self.mean) / self.std

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (n, H, W, C) -> logits float (n, classes)."""
        logits: Tensor = self.network(self.standardise(as_float(self.centre(pixels))))
        return logits


def as_float(pixels: Tensor) -> Tensor:
    """uint8 (n, h, w, C) -> float32 (n, C, h, w) in 0..1; its memory stays channels-last, which devices like."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
