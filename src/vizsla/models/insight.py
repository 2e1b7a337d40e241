"""What a network sees in a picture: where it looked for a class, and what each layer makes of it.

The heat map is Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) at the last maps of the convolutional part.
"""

from __future__ import annotations

import base64
import contextlib
import io
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from vizsla.errors import InvalidInput, did_you_mean
from vizsla.networks.classic import TableConvolution
from vizsla.networks.classifier import Classifier

Pixels = npt.NDArray[np.uint8]

TOP = 5
NUM_BINS = 30
MAX_TILES = 64
TILE_PX = 72
MAX_SIDE_PX = 512
LEAST_PICTURE_PX = 224
# Nothing, some, most: transparent, the second ink, and pale yellow.
HEAT = np.array([[157, 64, 27, 0], [204, 84, 28, 90], [246, 160, 50, 165], [255, 236, 160, 215]], dtype=np.float64)


class Heat(NamedTuple):
    """Where a network looked for a class; `picture` is a PNG of what it saw, with the heat on it."""

    layer: str
    shape: tuple[int, int, int]
    """of the maps: how many, height, width"""
    position: int
    """of the class in the labels"""
    probabilities: npt.NDArray[np.float32]
    is_flat: bool
    """nothing in the maps speaks for the class"""
    map: npt.NDArray[np.float32]
    """(H, W) of the stored picture, 0 to 1; 0 where the network did not look"""
    picture: str


def heat(classifier: Classifier, pixels: Pixels, position: int | None = None) -> Heat:
    """Where the network looked for a class, by default for the one that it names.

    Args:
        classifier: in evaluation mode, on the CPU.
        pixels: uint8 (H, W, C), preprocessed.

    Raises:
        InvalidInput: the network has no maps of which each place belongs to a place in the picture.
    """
    batch = torch.from_numpy(pixels)[None]
    target = _target(classifier, batch)
    held: list[Tensor] = []

    def hold(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        held[:] = [output.detach().requires_grad_()]
        return held[0].clone()  # what follows may change it in place

    with _hooked(target.module, hold), torch.enable_grad():
        logits = classifier(batch)[0]
        chosen = int(logits.argmax()) if position is None else position
        (gradient,) = torch.autograd.grad(logits[chosen], held)
    maps = held[0].detach()[0].float()
    weights = gradient[0].float().mean(dim=(1, 2))
    found = torch.relu((weights[:, None, None] * maps).sum(0))
    largest = float(found.max())
    is_flat = not largest > 0
    scaled = (found if is_flat else found / largest)[None, None]
    height, width = classifier.size
    seen = nn.functional.interpolate(scaled, size=(height, width), mode="bilinear", align_corners=False)[0, 0].numpy()
    whole = np.zeros(pixels.shape[:2], dtype=np.float32)
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    whole[top : top + height, left : left + width] = seen
    count, rows, columns = maps.shape
    probabilities = logits.detach().softmax(0).numpy()
    return Heat(target.name, (count, rows, columns), chosen, probabilities, is_flat, whole, _overlaid(pixels, whole))


class _Layer(NamedTuple):
    name: str
    module: nn.Module


def _target(classifier: Classifier, batch: Tensor) -> _Layer:
    """The last layer whose output is maps: the last that convolves, or what only changes the values of its maps."""
    found: tuple[_Layer, tuple[int, ...]] | None = None
    tokens = False
    for layer, output in _outputs(classifier, batch):
        if _is_maps(output) and _convolves(layer.module):
            found, tokens = (layer, tuple(output.shape)), False
        elif found and tuple(output.shape) == found[1]:
            found = (layer, found[1])
        elif output.dim() >= 3 and isinstance(layer.module, nn.Linear):
            tokens = True
    if found is None or tokens:
        raise InvalidInput(
            "This network has no convolutional maps at its end, so a heat map of this kind would say nothing.",
            where=type(classifier.network).__name__,
            remedy="Look at its layers, or train a convolutional network.",
        )
    return found[0]


def _is_maps(output: Tensor) -> bool:
    return output.dim() == 4 and output.shape[1] > 1 and output.shape[2] > 1 and output.shape[3] > 1


def _convolves(module: nn.Module) -> bool:
    return any(isinstance(one, nn.Conv2d | TableConvolution) for one in module.modules())


def _outputs(classifier: Classifier, batch: Tensor) -> list[tuple[_Layer, Tensor]]:
    """What each layer makes of a picture, in the order in which they are done; of one used twice the last."""
    found: dict[str, tuple[_Layer, Tensor]] = {}
    with contextlib.ExitStack() as hooks:
        for name, module in classifier.network.named_modules():
            if name:
                hooks.enter_context(_hooked(module, _noting(_Layer(name, module), found)))
        with torch.inference_mode():
            classifier(batch)
    return list(found.values())


def _noting(layer: _Layer, found: dict[str, tuple[_Layer, Tensor]]) -> Any:
    def note(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            found.pop(layer.name, None)
            found[layer.name] = (layer, output.clone())  # what follows may change it in place

    return note


@contextlib.contextmanager
def _hooked(module: nn.Module, hook: Any) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def layers(classifier: Classifier, pixels: Pixels) -> list[dict[str, Any]]:
    """Each layer that computes, in order: name, kind, shape of its output, parameters, and what its values are like.

    Args:
        pixels: uint8 (H, W, C), preprocessed.
    """
    return [
        {
            "name": layer.name,
            "kind": type(layer.module).__name__,
            "shape": list(output.shape[1:]),
            "num_parameters": sum(one.numel() for one in layer.module.parameters(recurse=False)),
            "activation": _values(output[0]),
        }
        for layer, output in _outputs(classifier, torch.from_numpy(pixels)[None])
        if _is_leaf(layer.module)
    ]


def layer(classifier: Classifier, pixels: Pixels, name: str) -> dict[str, Any]:
    """One layer: pictures of what it makes of a picture, and of its weights, as PNG in base64, with their values.

    Raises:
        InvalidInput: there is no such layer.
    """
    known = {one.name: output for one, output in _outputs(classifier, torch.from_numpy(pixels)[None])}
    if name not in known:
        raise InvalidInput(f"There is no layer {name[:100]!r}.", where="layer", remedy=did_you_mean(name, known))
    module, output = classifier.network.get_submodule(name), known[name][0].float()
    return {
        "name": name,
        "activation": {"shape": list(output.shape), **_values(output), **_drawn(output)},
        "weights": [
            {"name": key, "shape": list(value.shape), **_values(value.detach()), **_drawn(value.detach().float(), True)}
            for key, value in module.named_parameters(recurse=False)
        ],
    }


def _is_leaf(module: nn.Module) -> bool:
    return not any(module.children()) or next(module.parameters(recurse=False), None) is not None


def _values(tensor: Tensor) -> dict[str, Any]:
    """Mean, deviation, and how many values there are between the edges; values that are no numbers are told apart."""
    flat = tensor.float().flatten()
    finite = flat[torch.isfinite(flat)].numpy()
    if not len(finite):
        return {"mean": None, "deviation": None, "counts": [], "edges": [], "num_not_finite": len(flat)}
    counts, edges = np.histogram(finite.astype(np.float64), bins=NUM_BINS)
    return {
        "mean": float(finite.mean(dtype=np.float64)),
        "deviation": float(finite.std(dtype=np.float64)),
        "counts": counts.tolist(),
        "edges": [float(edges[0]), float(edges[-1])],
        "num_not_finite": len(flat) - len(finite),
    }


def _drawn(tensor: Tensor, are_weights: bool = False) -> dict[str, Any]:
    """A picture of values, and how many of the tiles it shows; None where there is nothing to see in one."""
    values = np.nan_to_num(tensor.numpy().astype(np.float32))
    if values.ndim < 2 and (are_weights or values.size < 2):
        return {"picture": None, "shown": 0, "tiles": 0}
    if values.ndim == 4:  # the kernels of a convolution; those on colours are shown in colour
        if values.shape[1] == 3:
            return _tiles(_levels(values).transpose(0, 2, 3, 1))
        values = values.reshape(-1, *values.shape[2:])
    if (values.ndim == 3 and values.shape[0] > 1 and min(values.shape[1:]) > 1) or (values.ndim == 3 and are_weights):
        return _tiles(_levels(values))
    flat = values.reshape(values.shape[0], -1) if values.ndim > 1 else _square(values)
    whole = _levels(flat)[:MAX_SIDE_PX, :MAX_SIDE_PX]
    scale = max(1, min(8, MAX_SIDE_PX // max(whole.shape)))
    size = (whole.shape[1] * scale, whole.shape[0] * scale)
    return {"picture": _png(Image.fromarray(whole).resize(size, Image.Resampling.NEAREST)), "shown": 1, "tiles": 1}


def _square(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    side = math.ceil(math.sqrt(values.size))
    rows = math.ceil(values.size / side)
    padded = np.full(rows * side, values.min(), dtype=np.float32)
    padded[: values.size] = values
    return padded.reshape(rows, side)


def _levels(values: npt.NDArray[np.float32]) -> Pixels:
    """Values as 0 to 255, from the least to the largest of the layer, without the most extreme hundredths."""
    low, high = np.percentile(values, (0.5, 99.5))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    span = high - low if high > low else 1.0
    levels: Pixels = (np.clip((values - low) / span, 0, 1) * 255).round().astype(np.uint8)
    return levels


def _tiles(values: Pixels) -> dict[str, Any]:
    """(n, h, w) or (n, h, w, 3) as a sheet of the first tiles."""
    shown = values[:MAX_TILES]
    height, width = shown.shape[1:3]
    columns = math.ceil(math.sqrt(len(shown)))
    factor = min(TILE_PX, MAX_SIDE_PX / columns) / max(height, width)
    factor = math.floor(factor) if factor >= 1 else factor  # kernels stay even
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    rows = math.ceil(len(shown) / columns)
    whole = (columns * (size[0] + 2) - 2, rows * (size[1] + 2) - 2)
    sheet = Image.new("RGB", whole, (128, 128, 128)) if values.ndim == 4 else Image.new("L", whole, 128)
    how = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
    for number, tile in enumerate(shown):
        place = (number % columns * (size[0] + 2), number // columns * (size[1] + 2))
        sheet.paste(Image.fromarray(np.ascontiguousarray(tile)).resize(size, how), place)
    return {"picture": _png(sheet), "shown": len(shown), "tiles": len(values)}


def _overlaid(pixels: Pixels, heat: npt.NDArray[np.float32]) -> str:
    """What the network saw, with the heat on it."""
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGBA")
    scale = max(1, math.ceil(LEAST_PICTURE_PX / max(picture.size)))
    size = (picture.width * scale, picture.height * scale)
    smooth = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR)).clip(0, 1)
    stops = np.linspace(0, 1, len(HEAT))
    coloured = np.stack([np.interp(smooth, stops, HEAT[:, i]) for i in range(4)], axis=-1).astype(np.uint8)
    base = picture.resize(size, Image.Resampling.NEAREST)
    return _png(Image.alpha_composite(base, Image.fromarray(coloured, "RGBA")).convert("RGB"))


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
