"""Augmentation of whole batches, on the training device.

Everything random about a step is drawn on the CPU for its whole batch; a process or a micro-batch takes the rows that
it works on. So a run sees the same pictures on every device, in any number of processes and with any batch size that
fits, and nothing here depends on which other pictures are worked on at the same time.

What happens to a picture, in this order:

1. Geometry. Window, shift, mirroring and quarter turns are one gather of stored pixels; beyond its edge a picture's
   edge is repeated. A picture that is also turned, scaled or sheared is sampled once instead, bilinearly, by one affine
   map of everything together, out of the whole stored picture; beyond its edge it goes on as its mirror image.
2. The operations on colour of TrivialAugment or RandAugment, on 8 bits, as Pillow has them.
3. A rectangle that is erased.
4. Brightness, contrast, saturation and hue as one affine map of colour, and noise; only their result is cut to 0..1.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vizsla.networks.classifier import as_float
from vizsla.training import policies
from vizsla.training.policies import LUMA, Choice, on
from vizsla.training.spec import TrainingSpec

Size = tuple[int, int]

# RGB to YIQ (NTSC 1953), in which a hue is an angle about the axis of grey.
YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))

ERASED_SHARE, ERASED_ASPECT = (0.02, 1 / 3), 0.3


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Everything random about `num` pictures, on the CPU; what is off is None."""

    num: int
    window: Tensor | None = None
    """int64 (num, 2): first row and column of the window, which may leave the picture"""
    mirrored: Tensor | None = None
    """bool (num,)"""
    upside_down: Tensor | None = None
    """bool (num,)"""
    turns: Tensor | None = None
    """int64 (num,): counterclockwise quarter turns"""
    affine: Tensor | None = None
    """float64 (num, 3, 3): from px right of and below the centre of the result to those of the turned window"""
    operations: Tensor | None = None
    """int64 (num, k): see `policies.Choice`"""
    levels: Tensor | None = None
    """float64 (num, k)"""
    erased: Tensor | None = None
    """int64 (num, 4): top, left, bottom and right of a rectangle, empty where none is erased"""
    jitter: Tensor | None = None
    """float32 (num, 3): factors of brightness, contrast and saturation"""
    hue: Tensor | None = None
    """float32 (num,): turns of the colour circle"""
    noise: Tensor | None = None
    """int32 (num,): seeds"""
    weight: Tensor | None = None
    """float32 (num,): share of a picture in its mixture with its partner"""
    pasted: Tensor | None = None
    """int64 (num, 4): as `erased`: what comes from the partner whole; empty where the two are blended"""

    def rows(self, start: int, stop: int) -> Draws:
        """Those of some of the pictures.

        Pairs that are mixed must not be torn apart: `start` is even then. A single picture is not mixed.
        """
        assert 0 <= start <= stop <= self.num, "rows that were drawn"
        torn = start % 2 or (stop % 2 and stop < self.num)
        if torn and self.weight is not None:
            assert stop - start == 1, "pairs stay together"
            return replace(self, weight=None, pasted=None).rows(start, stop)
        cut: dict[str, Any] = {
            field.name: value[start:stop]
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, num=stop - start, **cut)


def draw(spec: TrainingSpec, num: int, *, stored: Size, size: Size, channels: int, random: torch.Generator) -> Draws:
    """Draw all that a resolved spec asks for.

    Args:
        num: pictures in the whole batch of a step.
        stored: height and width of the stored pictures.
        size: height and width of the result, not larger.
        channels: of the pictures; grey ones have no saturation and no hue.
        random: of the CPU.
    """
    found: dict[str, Tensor | None] = {}
    slack = (stored[0] - size[0], stored[1] - size[1])
    if any(slack) or spec.shift:
        found["window"] = torch.stack([_offsets(num, part, spec.shift, random) for part in slack], dim=1)
    if spec.flip:
        found["mirrored"] = torch.rand(num, generator=random) < 0.5
    if spec.flip_vertical:
        found["upside_down"] = torch.rand(num, generator=random) < 0.5
    if spec.quarter_turns:
        turns = torch.randint(4, (num,), generator=random)
        # A quarter turn of an oblong does not fit into it; half a turn does.
        found["turns"] = turns if size[0] == size[1] else turns // 2 * 2
    maps: list[Tensor] = []
    if spec.rotate or spec.zoom:
        maps.append(_draw_maps(spec, num, random))
    if spec.auto_augment != "none":
        choice = policies.draw(spec.auto_augment, spec.magnitude, num, random)
        found["operations"], found["levels"] = choice
        maps += policies.matrices(choice, size).unbind(1)
    if maps:
        found["affine"] = functools.reduce(torch.matmul, maps)
    if spec.erase:
        found["erased"] = _draw_erased(spec.erase, num, size, random)
    if spec.jitter:
        found["jitter"] = 1 + spec.jitter * _both_ways((num, 3), random)
    if spec.hue and channels == len(LUMA):
        found["hue"] = spec.hue * _both_ways((num,), random)
    if spec.noise:
        found["noise"] = torch.randint(-(2**31), 2**31, (num,), generator=random).to(torch.int32)
    if (spec.mixup or spec.cutmix) and num > 1:
        found["weight"], found["pasted"] = _draw_pairs(spec, num, size, random)
    return Draws(num=num, **found)


def pictures(pixels: Tensor, draws: Draws, spec: TrainingSpec, *, size: Size) -> Tensor:
    """The pictures that a step trains on.

    Args:
        pixels: uint8 (n, H, W, C), on any device.
        draws: of these n pictures.

    Returns:
        float32 (n, C, height, width) in 0..1; its memory is channels-last.
    """
    assert draws.num == len(pixels), "draws of these pictures"
    pixels = _geometry(pixels, draws, size)
    if draws.operations is not None and draws.levels is not None:
        pixels = policies.apply(pixels, Choice(draws.operations, draws.levels))
    if draws.erased is not None:
        pixels = _erase(pixels, draws.erased)
    tinted = draws.jitter is not None or draws.hue is not None
    if not tinted and draws.noise is None:
        return as_float(pixels)
    seen = _tint(pixels, draws) if tinted else pixels.to(torch.float32) / 255
    if draws.noise is not None:
        seen += spec.noise * _normal(on(draws.noise, pixels.device), seen[0].numel()).view_as(seen)
    return seen.clamp_(0, 1).permute(0, 3, 1, 2)


def mix(pictures: Tensor, targets: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Mix each picture with its neighbour, and their targets in the same proportion; the same ones when that is off.

    Pictures 2k and 2k + 1 are partners, and an odd last one stays alone. They are blended (mixup, Zhang et al. 2018),
    or a rectangle of each is pasted into the other (CutMix, Yun et al. 2019); if both are on, by chance.

    Args:
        pictures: float (n, C, h, w).
        targets: float (n, num_classes).
    """
    if draws.weight is None or draws.pasted is None:
        return pictures, targets
    device = pictures.device
    weight, partner = on(draws.weight, device), on(_partners(draws.num), device)
    share = weight[:, None, None]
    if bool((draws.pasted[:, 2] > draws.pasted[:, 0]).any()):
        pasted = on(draws.pasted, device)
        whole = (pasted[:, 2] > pasted[:, 0])[:, None, None]
        share = torch.where(whole, 1 - _inside(pasted, (pictures.shape[-2], pictures.shape[-1])).float(), share)
    share = share[:, None].to(pictures.dtype)
    mixed = pictures * share + pictures[partner] * (1 - share)
    part = weight[:, None].to(targets.dtype)
    return mixed, targets * part + targets[partner] * (1 - part)


def _offsets(num: int, slack: int, shift: int, random: torch.Generator) -> Tensor:
    return torch.randint(-shift, slack + shift + 1, (num,), generator=random)


def _both_ways(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    return 2 * torch.rand(shape, generator=random) - 1


def _draw_maps(spec: TrainingSpec, num: int, random: torch.Generator) -> Tensor:
    maps = torch.eye(3, dtype=torch.float64).repeat(num, 1, 1)
    if spec.rotate:
        maps = policies.rotation(math.radians(spec.rotate) * _both_ways((num,), random).double())
    if spec.zoom:
        maps[:, :2] /= (1 + spec.zoom * _both_ways((num,), random).double())[:, None, None]
    return maps


def _draw_erased(share: float, num: int, size: Size, random: torch.Generator) -> Tensor:
    """Rectangles as in Zhong et al. 2020, cut to the picture where theirs would be drawn again."""
    chosen = torch.rand(num, generator=random) < share
    low, high = ERASED_SHARE
    area = low + (high - low) * torch.rand(num, generator=random)
    aspect = torch.exp(math.log(ERASED_ASPECT) * _both_ways((num,), random))
    sides = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=1) * math.sqrt(size[0] * size[1])
    full = torch.tensor(size)
    sides = torch.minimum(sides.round().long().clamp(min=1), full)
    first = (torch.rand(num, 2, generator=random) * (full - sides + 1)).long()
    return torch.cat([first, first + sides], dim=1) * chosen[:, None]


def _draw_pairs(spec: TrainingSpec, num: int, size: Size, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """`Draws.weight` and `Draws.pasted`."""
    pairs = num // 2
    beta = np.random.default_rng(int(torch.randint(2**62, (1,), generator=random)))
    alpha = [spec.mixup or spec.cutmix, spec.cutmix or spec.mixup]
    drawn = torch.from_numpy(np.stack([beta.beta(a, a, pairs) for a in alpha])).float()
    cut = torch.rand(pairs, generator=random) < (0.5 if spec.mixup else 1.0)
    cut &= spec.cutmix > 0
    full = torch.tensor(size)
    sides = ((1 - drawn[1]).sqrt()[:, None] * full).long()
    centre = (torch.rand(pairs, 2, generator=random) * full).long()
    first = torch.minimum((centre - sides // 2).clamp(min=0), full)
    last = torch.minimum(centre - sides // 2 + sides, full)
    pasted = torch.cat([first, last], dim=1) * cut[:, None]
    outside = 1 - (last - first).prod(1) / (size[0] * size[1])
    weight = torch.where(cut, outside, drawn[0])
    pasted *= (pasted[:, 2:] > pasted[:, :2]).all(1, keepdim=True)
    alone = num - 2 * pairs
    return (
        torch.cat([weight.repeat_interleave(2), torch.ones(alone)]),
        torch.cat([pasted.repeat_interleave(2, dim=0), torch.zeros(alone, 4, dtype=torch.int64)]),
    )


def _partners(num: int) -> Tensor:
    return (torch.arange(num) ^ 1).clamp(max=num - 1)


def _geometry(pixels: Tensor, draws: Draws, size: Size) -> Tensor:
    if draws.affine is None:
        return _cut(pixels, draws, size)
    plain = torch.eye(3, dtype=torch.float64)
    warped = (draws.affine != plain).flatten(1).any(1).nonzero()[:, 0]
    if len(warped) == draws.num:
        return _warp(pixels, draws, size, warped)
    seen = _cut(pixels, draws, size)
    if len(warped):
        seen = seen.clone() if seen is pixels else seen
        seen[on(warped, pixels.device)] = _warp(pixels, draws, size, warped)
    return seen


def _cut(pixels: Tensor, draws: Draws, size: Size) -> Tensor:
    """Window, mirroring and quarter turns of uint8 (n, H, W, C), exactly."""
    num, full_height, full_width, channels = pixels.shape
    height, width = size
    if draws.window is None and draws.mirrored is None and draws.upside_down is None and draws.turns is None:
        return pixels
    top, left = draws.window.unbind(1) if draws.window is not None else torch.zeros(2, num, dtype=torch.int64)
    rows = (top[:, None] + torch.arange(height)).clamp_(0, full_height - 1)
    columns = (left[:, None] + torch.arange(width)).clamp_(0, full_width - 1)
    across, down = _reversals(draws)
    columns = torch.where(across[:, None], columns.flip(1), columns)
    rows = torch.where(down[:, None], rows.flip(1), rows)
    device = pixels.device
    rows, columns = on(rows, device), on(columns, device)
    row, column = rows[:, :, None], columns[:, None, :]
    if draws.turns is not None and height == width:
        lying = on(draws.turns % 2 == 1, device)[:, None, None]
        row, column = torch.where(lying, rows[:, None, :], row), torch.where(lying, columns[:, :, None], column)
    # By the number of each pixel in all pictures: on a CPU a quarter of the time of an index of three parts.
    picture = torch.arange(num, device=device)[:, None, None]
    wanted = ((picture * full_height + row) * full_width + column).flatten()
    return pixels.reshape(-1, channels).index_select(0, wanted).view(num, height, width, channels)


def _reversals(draws: Draws) -> tuple[Tensor, Tensor]:
    """Whether the columns and the rows of the window are reversed, before odd turns swap the two."""
    off = torch.zeros(draws.num, dtype=torch.bool)
    across = off if draws.mirrored is None else draws.mirrored
    down = off if draws.upside_down is None else draws.upside_down
    if draws.turns is None:
        return across, down
    return across ^ ((draws.turns == 1) | (draws.turns == 2)), down ^ (draws.turns >= 2)


def _warp(pixels: Tensor, draws: Draws, size: Size, rows: Tensor) -> Tensor:
    """uint8 (len(rows), height, width, C): these pictures, sampled by one map of all geometry."""
    assert draws.affine is not None, "there is a map"
    _, full_height, full_width, _ = pixels.shape
    height, width = size
    across, down = _reversals(draws)
    turned = torch.zeros(draws.num, 3, 3, dtype=torch.float64)
    lying = draws.turns % 2 == 1 if draws.turns is not None else torch.zeros(draws.num, dtype=torch.bool)
    signs = 1.0 - 2.0 * torch.stack([across, down], dim=1).double()
    for axis in (0, 1):
        turned[:, axis, axis] = torch.where(lying, 0.0, signs[:, axis])
        turned[:, axis, 1 - axis] = torch.where(lying, signs[:, axis], 0.0)
    turned[:, 2, 2] = 1
    if draws.window is not None:
        # From the centre of the window to the centre of the stored picture.
        first = draws.window.double()
        turned[:, 0, 2] = first[:, 1] + width / 2 - full_width / 2
        turned[:, 1, 2] = first[:, 0] + height / 2 - full_height / 2
    maps = (turned @ draws.affine)[rows]
    maps[:, 0] *= 2 / full_width
    maps[:, 1] *= 2 / full_height
    device = pixels.device
    x = torch.arange(width, device=device) - (width - 1) / 2
    y = torch.arange(height, device=device)[:, None] - (height - 1) / 2
    # Not a product of matrices: devices may do those with fewer bits.
    (ax, bx, cx), (ay, by, cy) = on(maps[:, :2].float(), device).permute(1, 2, 0)[..., None, None]
    grid = torch.stack([ax * x + bx * y + cx, ay * x + by * y + cy], dim=-1)
    source = pixels[on(rows, device)].permute(0, 3, 1, 2).to(torch.float32)
    seen = F.grid_sample(source, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return seen.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _inside(boxes: Tensor, size: Size) -> Tensor:
    """bool (n, height, width) of boxes (n, 4)."""
    top, left, bottom, right = boxes[:, :, None].unbind(1)
    row, column = (torch.arange(side, device=boxes.device) for side in size)
    return ((row >= top) & (row < bottom))[:, :, None] & ((column >= left) & (column < right))[:, None, :]


def _erase(pixels: Tensor, boxes: Tensor) -> Tensor:
    rows = (boxes[:, 2] > boxes[:, 0]).nonzero()[:, 0]
    if not len(rows):
        return pixels
    there = on(rows, pixels.device)
    chosen = pixels[there]
    _, height, width, _ = chosen.shape
    mean = (chosen.sum((1, 2), keepdim=True, dtype=torch.int64) / (height * width)).round().to(torch.uint8)
    inside = _inside(on(boxes[rows], pixels.device), (height, width))
    return pixels.index_copy(0, there, torch.where(inside[..., None], mean, chosen))


def _tint(pixels: Tensor, draws: Draws) -> Tensor:
    """Brightness, contrast about the mean grey, saturation and hue: float (n, h, w, C), not yet cut to 0..1.

    One affine map of colour, the product of the four, and not four passes over the pictures.
    """
    num, height, width, channels = pixels.shape
    device = pixels.device
    # A plane for each channel, since devices read memory best in order.
    planes = [pixels[..., channel].to(torch.float32) for channel in range(channels)]
    luma = LUMA if channels == len(LUMA) else (1 / channels,) * channels
    factors = draws.jitter if draws.jitter is not None else torch.ones(num, 3)
    brightness, contrast, saturation = on(factors, device).T[..., None, None]
    # Sums of whole numbers below 2**24 are exact in any order, so a picture's mean is the same in every batch.
    sums = torch.stack([plane.sum(2).sum(1, dtype=torch.float64) for plane in planes])
    weights = torch.tensor(luma, dtype=torch.float64, device=device)
    level = (weights[:, None] * sums).sum(0)[:, None, None].float() / (height * width)
    offset = brightness * (1 - contrast) * level / 255
    gain = brightness * contrast / 255
    seen = torch.empty(pixels.shape, device=device)
    if channels != len(LUMA):
        for channel, plane in enumerate(planes):
            torch.addcmul(offset, plane, gain, out=seen[..., channel])
        return seen
    grey = (planes[0] * luma[0]).add_(planes[1], alpha=luma[1]).add_(planes[2], alpha=luma[2])
    rest = torch.addcmul(offset, grey, gain * (1 - saturation))
    gain = gain * saturation
    if draws.hue is None:
        for channel, plane in enumerate(planes):
            torch.addcmul(rest, plane, gain, out=seen[..., channel])
        return seen
    turn = on(_hue_turns(draws.hue), device)[..., None, None]
    for channel in range(channels):
        found = rest
        for source, plane in enumerate(planes):
            found = torch.addcmul(found, plane, gain * turn[:, channel, source])
        seen[..., channel] = found
    return seen


def _hue_turns(hue: Tensor) -> Tensor:
    """Maps of RGB (n, 3, 3) that turn the hue by parts of the circle, red towards green; grey stays as it is."""
    to_yiq = torch.tensor(YIQ, dtype=torch.float64)
    # In the plane of I and Q, red towards green is clockwise.
    turn = torch.zeros(len(hue), 3, 3, dtype=torch.float64)
    turn[:, 0, 0] = 1
    turn[:, 1:, 1:] = policies.rotation(-2 * math.pi * hue.double())[:, :2, :2]
    return (torch.linalg.inv(to_yiq) @ turn @ to_yiq).float()


def _normal(seeds: Tensor, count: int) -> Tensor:
    """float32 (n, count) of standard normal numbers, each a function of its picture's int32 seed and its own place.

    Whole numbers are hashed and looked up, so every device and every part of a batch finds exactly the same ones.
    """
    place = _hash(torch.arange(count, dtype=torch.int32, device=seeds.device))
    return _quantiles(seeds.device)[(_hash(seeds[:, None] ^ place) & 0xFFFF)]


def _hash(values: Tensor) -> Tensor:
    """int32 to int32: the finaliser of a 32-bit hash (Wellons 2018, "lowbias32")."""
    values = values ^ ((values >> 16) & 0xFFFF)
    values = values * 0x7FEB352D
    values ^= (values >> 15) & 0x1FFFF
    values *= 0x846CA68B - 2**32
    values ^= (values >> 16) & 0xFFFF
    return values


@functools.lru_cache
def _quantiles(device: torch.device) -> Tensor:
    return torch.special.ndtri((torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16).float().to(device)
