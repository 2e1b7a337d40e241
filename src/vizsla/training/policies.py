"""TrivialAugment and RandAugment over whole batches: each operation is done once, on the pictures that drew it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

# Luma weights of ITU-R BT.601, as Pillow uses them for its greyscale.
LUMA = (0.299, 0.587, 0.114)
BINS = 30
TRANSLATE_TRIVIAL, TRANSLATE_RAND = 32 / 224, 150 / 331  # of the side

OPERATIONS = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    *("brightness", "colour", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize"),
)
GEOMETRIC = 6  # operations before this one are done by an affine map


class Choice(NamedTuple):
    """What the pictures drew: operations (n, k) as numbers of `OPERATIONS`, and the parameter of each, float64."""

    operations: Tensor
    levels: Tensor


def on(tensor: Tensor, device: torch.device) -> Tensor:
    """A few numbers of the CPU's on a device, without waiting until it has done all that was asked of it before."""
    return tensor.to(device, non_blocking=True)


def draw(policy: Literal["trivial", "rand"], magnitude: float, num: int, random: torch.Generator) -> Choice:
    """Draw the operations of `num` pictures.

    "trivial" is TrivialAugment in its wide space (Müller and Hutter 2021): one operation, its strength by chance.
    "rand" is RandAugment (Cubuk et al. 2020): two operations of the strength `magnitude`, of 30.
    """
    count = 1 if policy == "trivial" else 2
    operations = torch.randint(len(OPERATIONS), (num, count), generator=random)
    strength = torch.randint(BINS + 1, (num, count), generator=random).double() / BINS
    sign = torch.randint(2, (num, count), generator=random).double() * 2 - 1
    if policy == "rand":
        strength = torch.full_like(strength, magnitude / BINS)
    wide = policy == "trivial"
    enhance = 1 + sign * strength * (0.99 if wide else 0.9)
    levels = {
        "identity": torch.zeros_like(strength),
        "shear": sign * strength * (0.99 if wide else 0.3),
        "translate": sign * strength * (TRANSLATE_TRIVIAL if wide else TRANSLATE_RAND),
        "rotate": sign * strength * math.radians(135 if wide else 30),
        "posterize": 8 - torch.round(strength * (6 if wide else 4)),
        "solarize": 255 * (1 - strength),
    }
    table = torch.stack([levels.get(name.split("_")[0], enhance) for name in OPERATIONS])
    return Choice(operations, table.gather(0, operations[None])[0])


def matrices(choice: Choice, size: tuple[int, int]) -> Tensor:
    """The affine maps of the geometric operations, identity for all others.

    Returns:
        float64 (n, k, 3, 3): from px right of and below the centre of the result to those of the picture.
    """
    operations, levels = choice
    height, width = size
    found = torch.eye(3, dtype=torch.float64).repeat(*operations.shape, 1, 1)
    for name, row, column, scale in (
        ("shear_x", 0, 1, 1.0),
        ("shear_y", 1, 0, 1.0),
        ("translate_x", 0, 2, float(width)),
        ("translate_y", 1, 2, float(height)),
    ):
        drawn = operations == OPERATIONS.index(name)
        found[..., row, column] = torch.where(drawn, levels * scale, found[..., row, column])
    drawn = operations == OPERATIONS.index("rotate")
    return torch.where(drawn[..., None, None], rotation(levels), found)


def rotation(angle: Tensor) -> Tensor:
    """Maps (..., 3, 3) that turn a picture counterclockwise by `angle` (...) in radians."""
    cos, sin = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


def apply(pixels: Tensor, choice: Choice) -> Tensor:
    """Do the operations on colour, in their order; `choice` is on the CPU.

    Args:
        pixels: uint8 (n, h, w, C).

    Returns:
        uint8 (n, h, w, C), a new tensor unless nothing was to do.
    """
    if not bool((choice.operations >= GEOMETRIC).any()):
        return pixels
    pixels = pixels.clone()
    for turn in range(choice.operations.shape[1]):
        drawn, levels = choice.operations[:, turn], choice.levels[:, turn]
        for number in drawn.unique().tolist():
            if number >= GEOMETRIC:
                rows = (drawn == number).nonzero()[:, 0]
                there = on(rows, pixels.device)
                level = on(levels[rows].float(), pixels.device).view(-1, 1, 1, 1)
                pixels[there] = COLOUR[OPERATIONS[number]](pixels[there], level)
    return pixels


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Scale towards black."""
    return _bytes(pixels * factor)


def colour(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey of each pixel; grey pictures have no colour to change."""
    if pixels.shape[-1] != len(LUMA):
        return pixels
    return _blend(_grey(pixels), pixels, factor)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean grey of each picture."""
    return _blend(_rounded_mean(_grey(pixels)), pixels, factor)


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the picture smoothed over 3 x 3 px, as Pillow does; the outermost px stay."""
    if min(pixels.shape[1:3]) < 3:
        return pixels
    wide = pixels.to(torch.int32)
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * wide[:, 1:-1, 1:-1]
    smooth = pixels.to(torch.float32)
    smooth[:, 1:-1, 1:-1] = torch.div(2 * box + 13, 26, rounding_mode="floor").float()
    return _blend(smooth, pixels, factor)


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` bits."""
    return pixels & (256 - 2 ** (8 - bits)).to(torch.uint8)


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Invert pixels from `threshold` on."""
    return torch.where(pixels >= threshold, 255 - pixels, pixels)


def autocontrast(pixels: Tensor, level: Tensor) -> Tensor:
    """Stretch each channel over the whole range; `level` has no meaning."""
    low, high = pixels.amin((1, 2), keepdim=True).float(), pixels.amax((1, 2), keepdim=True).float()
    spread = high - low
    return torch.where(spread > 0, _bytes((pixels - low) * (255 / spread.clamp(min=1))), pixels)


def equalize(pixels: Tensor, level: Tensor) -> Tensor:
    """Spread each channel evenly over the range, with Pillow's integers; `level` has no meaning."""
    num, height, width, channels = pixels.shape
    planes = pixels.permute(0, 3, 1, 2).reshape(num * channels, height * width).long()
    first = 256 * torch.arange(num * channels, device=pixels.device)[:, None]
    counts = torch.bincount((planes + first).flatten(), minlength=256 * num * channels).view(-1, 256)
    brightest = 255 - (counts.flip(1) > 0).int().argmax(1, keepdim=True)
    step = (counts.sum(1, keepdim=True) - counts.gather(1, brightest)) // 255
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=pixels.device))
    return table.to(torch.uint8).gather(1, planes).view(num, channels, height, width).permute(0, 2, 3, 1)


COLOUR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": brightness,
    "colour": colour,
    "contrast": contrast,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "autocontrast": autocontrast,
    "equalize": equalize,
}


def _blend(start: Tensor, end: Tensor, factor: Tensor) -> Tensor:
    return _bytes(start + (end - start) * factor)


def _bytes(values: Tensor) -> Tensor:
    return values.clamp(0, 255).to(torch.uint8)


def _grey(pixels: Tensor) -> Tensor:
    """Float whole numbers (n, h, w, 1)."""
    if pixels.shape[-1] != len(LUMA):
        return pixels.float()
    red, green, blue = pixels.to(torch.int32).unbind(-1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).float()[..., None]


def _rounded_mean(grey: Tensor) -> Tensor:
    """Of whole numbers; the sums are exact in any order, so a picture's mean is the same in every batch."""
    _, height, width, _ = grey.shape
    sums = grey.sum(2, keepdim=True).sum(1, keepdim=True, dtype=torch.float64)
    return (sums / (height * width) + 0.5).floor().float()
