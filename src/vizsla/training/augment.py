"""Augmentation of whole batches, on the training device: one gather for the geometry, a few products for colour."""

from __future__ import annotations

import torch
from torch import Tensor

# Luma weights of ITU-R BT.601, as Pillow uses them for its greyscale.
LUMA = (0.299, 0.587, 0.114)


def geometry(pixels: Tensor, *, size: tuple[int, int], shift: int, flip: bool, random: torch.Generator) -> Tensor:
    """Cut a window of `size` (height, width) at a random place out of each picture, and mirror half of them.

    Args:
        pixels: uint8 (n, H, W, C).
        size: of the result; not larger than the pictures.
        shift: px by which the window may leave the picture on each side; the edge is repeated there.
        flip: mirror each picture left to right with probability one half.
        random: of the CPU, so that a run draws the same numbers on every device.

    Returns:
        uint8 (n, height, width, C).
    """
    num, full_height, full_width, _ = pixels.shape
    height, width = size
    if (height, width) == (full_height, full_width) and not shift and not flip:
        return pixels
    top = _offsets(num, full_height - height, shift, random)
    left = _offsets(num, full_width - width, shift, random)
    rows = (top[:, None] + torch.arange(height)).clamp_(0, full_height - 1)
    columns = (left[:, None] + torch.arange(width)).clamp_(0, full_width - 1)
    if flip:
        mirrored = torch.rand(num, generator=random) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    device = pixels.device
    picture = torch.arange(num, device=device)[:, None, None]
    return pixels[picture, rows.to(device)[:, :, None], columns.to(device)[:, None, :]]


def _offsets(num: int, slack: int, shift: int, random: torch.Generator) -> Tensor:
    return torch.randint(-shift, slack + shift + 1, (num,), generator=random)


def colour(pictures: Tensor, *, strength: float, random: torch.Generator) -> Tensor:
    """Scale brightness, contrast and (of colour pictures) saturation, each by a random factor in 1 ± `strength`.

    Args:
        pictures: float (n, C, h, w) in 0..1.
        strength: 0 to 1; 0 returns the pictures as they are.
        random: of the CPU.

    Returns:
        float (n, C, h, w) in 0..1.
    """
    if not strength:
        return pictures
    factors = 1 + strength * (2 * torch.rand(3, len(pictures), 1, 1, 1, generator=random) - 1)
    brightness, contrast, saturation = factors.to(pictures.device, pictures.dtype)
    pictures = pictures * brightness
    level = pictures.mean(dim=(1, 2, 3), keepdim=True)
    pictures = level + (pictures - level) * contrast
    if pictures.shape[1] == 3:
        luma = torch.tensor(LUMA, device=pictures.device, dtype=pictures.dtype).view(1, 3, 1, 1)
        grey = (pictures * luma).sum(dim=1, keepdim=True)
        pictures = grey + (pictures - grey) * saturation
    return pictures.clamp(0, 1)
