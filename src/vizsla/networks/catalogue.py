"""The networks there are: their names, how to build them, where they part into body and head, what they cost."""

from __future__ import annotations

import contextlib
import fnmatch
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import timm
import torch
from timm.models import get_arch_pretrained_cfgs, is_model, model_entrypoint
from torch import Tensor, nn

from vizsla.errors import InvalidInput, NotFound, VizslaError, did_you_mean
from vizsla.networks import sources
from vizsla.networks.classic import CLASSICS, TableConvolution

CLASSIC_SIZES = {"lenet": (32, 32), "alexnet": (224, 224), "googlenet": (224, 224)}


class Layer(NamedTuple):
    """One layer of a network: `shape` is its output's, without the batch; the work is for one picture."""

    name: str
    kind: str
    shape: tuple[int, ...]
    num_parameters: int
    multiply_accumulates: int


class Summary(NamedTuple):
    """What a network costs. Multiply-accumulates are those of convolutions and linear layers, for one picture."""

    num_parameters: int
    multiply_accumulates: int
    layers: tuple[Layer, ...]


def names(pattern: str = "") -> list[str]:
    """The names that hold `pattern`, or match it when it has `*` or `?`; classics first, then timm's architectures."""
    every = [*CLASSICS, *timm.list_models()]
    if any(sign in pattern for sign in "*?["):
        return [name for name in every if fnmatch.fnmatch(name, pattern)]
    return [name for name in every if pattern in name]


def check(name: str) -> None:
    """Raise `NotFound` unless `name` is a network: a classic, an architecture of timm, or one with timm's `.tag`."""
    if name in CLASSICS:
        return
    architecture, _, tag = name.partition(".")
    tags = list(get_arch_pretrained_cfgs(name)) if is_model(architecture) else []
    if is_model(architecture) and (not tag or name in tags):
        return
    near = did_you_mean(name, tags or names())
    raise NotFound(
        f"There is no network named {name!r}.",
        where="net",
        remedy=f"{near} `vizsla network list` shows every name.".strip(),
    )


def build(name: str, *, num_classes: int, in_channels: int, size: tuple[int, int]) -> nn.Module:
    """A network with random weights, tried once on a black batch in eval mode.

    Args:
        size: (height, width) of what it will see.

    Raises:
        NotFound: there is no such network.
        InvalidInput: the network cannot be built for this size, or is not a classifier.
    """
    check(name)
    try:
        if name in CLASSICS:
            network: nn.Module = CLASSICS[name](num_classes, in_channels, size)
        else:
            network = timm.create_model(
                name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **_size_argument(name, size)
            )
        _require_whole_patches(network, size)
        with evaluating(network):
            logits = network(torch.zeros(2, in_channels, *size))
    except VizslaError:
        raise
    # A thousand architectures refuse a size in as many ways: assertions, shapes, indices, divisions by zero.
    except Exception as error:
        raise _refused(name, size, _first_line(error)) from error
    if not isinstance(logits, Tensor) or logits.shape != (2, num_classes):
        raise InvalidInput(f"{name} is not a classifier of pictures.", where="net", remedy="Use another network.")
    return network


def _size_argument(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """`img_size`, for the architectures that are built for one size and asked for another."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.fixed_input_size or tuple(config.input_size[1:]) == size:
        return {}
    return {"img_size": size}


def _require_whole_patches(network: nn.Module, size: tuple[int, int]) -> None:
    """timm's transformers of fixed size would leave out the pixels beyond the last whole patch without a word."""
    embedding = getattr(network, "patch_embed", None)
    patch = getattr(embedding, "patch_size", None)
    if not getattr(embedding, "strict_img_size", False) or not isinstance(patch, tuple):
        return
    if any(side % step for side, step in zip(size, patch, strict=True)):
        raise ValueError(f"sides must be multiples of its patches of {patch[1]} x {patch[0]} px")


def _refused(name: str, size: tuple[int, int], reason: str) -> InvalidInput:
    height, width = input_size(name)
    return InvalidInput(
        f"{name} cannot be built for pictures of {size[1]} x {size[0]} px: {reason.rstrip('.')}.",
        where="size",
        remedy=f"It was made for {width} x {height} px; use that size, or a network that takes any "
        "(resnet18, tf_efficientnet_lite0).",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [f"it raises {type(error).__name__} without a reason"])[0]


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards each module is in the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


_SEPARABLE: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""Networks that `features` has tried, so that it tries each once."""


def features(network: nn.Module, x: Tensor) -> Tensor:
    """What the classifier sees: (n, channels, height, width) -> (n, features).

    Raises:
        InvalidInput: the network does not part there: its classifier applied to this is not its output.
    """
    if network not in _SEPARABLE:
        _require_separable(network, x[:2])
        _SEPARABLE.add(network)
    return _features(network, x)


def _features(network: Any, x: Tensor) -> Tensor:
    return network.forward_head(network.forward_features(x), pre_logits=True)


def _classifier(network: Any) -> nn.Module:
    classifier = network.get_classifier() if hasattr(network, "get_classifier") else None
    if not isinstance(classifier, nn.Module):
        raise _inseparable(network, "it has not one classifier but several, or none")
    return classifier


def _require_separable(network: nn.Module, x: Tensor) -> None:
    """Watch the classifier at work. To compare logits alone would say nothing of a classifier that begins as zero."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = _classifier(network).register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    try:
        with evaluating(network):
            logits = network(x)
            watched = seen[-1] if seen else None
            found = _features(network, x)
    # Some networks cannot do the parts one by one at all; why is theirs to know.
    except Exception as error:
        raise _inseparable(network, _first_line(error)) from error
    finally:
        hook.remove()
    if watched is None or not (_same(found, watched[0]) and _same(logits, watched[1])):
        raise _inseparable(network, "its classifier is not its last step")


def _same(a: object, b: object) -> bool:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or a.shape != b.shape:
        return False
    a, b = a.float(), b.float()
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def _inseparable(network: nn.Module, reason: str) -> InvalidInput:
    name = getattr(network, "pretrained_cfg", {}).get("architecture", type(network).__name__)
    return InvalidInput(
        f"The classifier of {name} cannot be trained alone: {reason}.",
        where="tune",
        remedy="Train the whole network with --tune full, or use another one.",
    )


def input_size(name: str) -> tuple[int, int]:
    """(height, width) of the pictures that the network was made for."""
    if name in CLASSICS:
        return CLASSIC_SIZES[name]
    config = timm.get_pretrained_cfg(name)
    _, height, width = config.input_size if config is not None else (3, 224, 224)
    return height, width


def describe(name: str, *, count: bool = False) -> dict[str, str | int | None]:
    """One line of a listing: name, family, parameters, licence of the weights, and where those are.

    Parameters are counted, without memory for them, when `count` asks for it; else None.
    """
    check(name)
    config = sources.published(name)
    return {
        "name": name,
        "family": "classic" if name in CLASSICS else model_entrypoint(name).__module__.rsplit(".", 1)[-1],
        "parameters": _count(name) if count else None,
        "licence": None if config is None else str(config.license or sources.UNSTATED),
        "weights": sources.in_words(name),
    }


def _count(name: str) -> int | None:
    """Parameters with 1,000 classes and RGB; None for the few networks that compute while they are built."""
    try:
        with torch.device("meta"):
            if name in CLASSICS:
                network: nn.Module = CLASSICS[name](1000, 3, CLASSIC_SIZES[name])
            else:
                network = timm.create_model(name, pretrained=False, num_classes=1000)
    # Which ones fail on tensors without content, and how, changes with timm's version.
    except Exception:
        return None
    return sum(parameter.numel() for parameter in network.parameters())


def summary(network: nn.Module, size: tuple[int, int], in_channels: int) -> Summary:
    """Parameters, output shapes and work of each layer, found by one pass in eval mode."""
    layers: dict[str, Layer] = {}

    def note(name: str, module: nn.Module, output: object) -> None:
        if isinstance(output, Tensor):
            earlier = layers[name].multiply_accumulates if name in layers else 0
            count = sum(parameter.numel() for parameter in module.parameters())
            work = earlier + _multiply_accumulates(module, output)
            layers[name] = Layer(name, type(module).__name__, tuple(output.shape[1:]), count, work)

    hooks = [
        module.register_forward_hook(lambda module, _, output, name=name: note(name, module, output))
        for name, module in network.named_modules()
        if name and not any(module.children())
    ]
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    try:
        with evaluating(network):
            network(torch.zeros(1, in_channels, *size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    total = sum(parameter.numel() for parameter in network.parameters())
    return Summary(total, sum(layer.multiply_accumulates for layer in layers.values()), tuple(layers.values()))


def _multiply_accumulates(module: nn.Module, output: Tensor) -> int:
    """For a batch of one picture. The bias is not counted, as is the custom."""
    if isinstance(module, nn.Conv2d):
        return output.numel() * module.weight[0].numel()
    if isinstance(module, TableConvolution):
        return output[0, 0].numel() * module.kernels.numel()
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    return 0
