"""The networks there are: their names, how to build them, where they part into body and head, what they cost."""

from __future__ import annotations

import contextlib
import fnmatch
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.models import _registry, get_arch_pretrained_cfgs, is_model, model_entrypoint
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vizsla.errors import InvalidInput, NotFound, VizslaError
from vizsla.networks import known, own, sources
from vizsla.networks.classic import CLASSICS, TableConvolution

LAZY = (nn.UninitializedBuffer, nn.UninitializedParameter)
CLASSIC_SIZES = {"lenet": (32, 32), "alexnet": (224, 224), "googlenet": (224, 224)}


class Layer(NamedTuple):
    """One layer of a network: `shape` is its output's, without the batch; the work is for one picture."""

    name: str
    kind: str
    shape: tuple[int, ...]
    num_parameters: int
    multiply_accumulates: int


class Summary(NamedTuple):
    """What a network costs. Multiply-accumulates are those of convolutions and matrix products, for one picture.

    A module that has layers below it has a line of its own when it multiplies or holds parameters itself: attention,
    position embeddings.
    """

    num_parameters: int
    multiply_accumulates: int
    layers: tuple[Layer, ...]


def names(pattern: str = "") -> list[str]:
    """The names that hold `pattern`, or match it when it has `*` or `?`; classics first, then timm's architectures."""
    every = [*CLASSICS, *timm.list_models()]
    if any(sign in pattern for sign in "*?["):
        return [name for name in every if fnmatch.fnmatch(name, pattern)]
    return [name for name in every if pattern in name]


def families() -> list[tuple[str, str, str]]:
    """Each name, its family ("classic", or the module of timm that defines it), and where its weights are published."""
    return [(name, _family(name), sources.published_in_words(name)) for name in names()]


def _family(name: str) -> str:
    return "classic" if name in CLASSICS else str(model_entrypoint(name).__module__).rsplit(".", 1)[-1]


def accepted() -> list[str]:
    """All names that `check` accepts, those among them that timm calls outdated and does not list."""
    return [*names(), *getattr(_registry, "_deprecated_models", ())]


def check(name: str) -> None:
    """Raise `NotFound` unless `name` is a network: a classic, an architecture of timm, or one with timm's `.tag`.

    A path that ends in `.py` is a user's own; that it may be run was looked at where it was asked for.
    """
    if own.is_own(name):
        if not Path(name).is_file():
            raise NotFound("There is no such file.", where=name, remedy="Check --net.")
        return
    if name in CLASSICS:
        return
    architecture, _, tag = name.partition(".")
    tags = list(get_arch_pretrained_cfgs(name)) if is_model(architecture) else []
    if is_model(architecture) and (not tag or name in tags):
        return
    raise known.unknown(name, tags or names())


def build(name: str, *, num_classes: int, in_channels: int, size: tuple[int, int]) -> nn.Module:
    """A network with random weights, tried once on a black batch in eval mode.

    Args:
        size: (height, width) of what it will see.

    Raises:
        NotFound: there is no such network.
        InvalidInput: the network cannot be built for this size, or is not a classifier.
    """
    check(name)
    if own.is_own(name):
        return _build_own(Path(name), num_classes, in_channels, size)
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


def _build_own(path: Path, num_classes: int, in_channels: int, size: tuple[int, int]) -> nn.Module:
    """Run a user's file, and try what it gives in both modes, rather than fail in the middle of a run."""
    function = own.load(path)
    try:
        network = function(num_classes=num_classes, in_channels=in_channels)
    except (Exception, SystemExit) as error:
        raise own.refused(path, error, f"Its function network({num_classes=}, {in_channels=}) fails") from error
    if not isinstance(network, nn.Module):
        raise _wrong(path, f"Its function `network` returns no torch.nn.Module but {type(network).__name__}")
    pictures = torch.zeros(2, in_channels, *size)
    for mode in ("eval", "train"):
        try:
            with untouched(network):
                network.train(mode == "train")
                logits = network(pictures)
        except (Exception, SystemExit) as error:
            what = f"The network fails on 2 pictures of {size[1]} x {size[0]} px in {mode} mode"
            raise own.refused(path, error, what) from error
        _require_logits(path, logits, num_classes, mode)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise _wrong(path, "The network has no parameters that could be trained")
    if not all(isinstance(value, Tensor) for value in network.state_dict().values()):
        raise _wrong(path, "The network's state_dict holds more than tensors")
    return network


def _require_logits(path: Path, logits: object, num_classes: int, mode: str) -> None:
    if not isinstance(logits, Tensor):
        raise _wrong(path, f"In {mode} mode the network returns no tensor but {type(logits).__name__}")
    shape = " x ".join(map(str, logits.shape))
    if logits.ndim != 2 or len(logits) != 2:
        raise _wrong(path, f"In {mode} mode the network makes {shape} of 2 pictures, not 2 x {num_classes} logits")
    if logits.shape[1] != num_classes:
        raise _wrong(path, f"The network answers with {logits.shape[1]} classes, and {num_classes} were asked for")
    if not logits.is_floating_point():
        raise _wrong(path, f"The network's logits are {logits.dtype}, not floats")


def _wrong(path: Path, what: str) -> InvalidInput:
    remedy = f"{own.FUNCTION} has to return a module that turns (n, in_channels, height, width) into (n, num_classes)."
    return InvalidInput(f"{what}.", where=str(path), remedy=remedy)


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


@contextlib.contextmanager
def untouched(network: nn.Module) -> Iterator[None]:
    """Without gradients, in whatever mode is set; afterwards modes, buffers and the random generator are as before."""
    modes = [(module, module.training) for module in network.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers() if not isinstance(buffer, LAZY)]
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for buffer, value in buffers:
            with torch.no_grad():
                buffer.copy_(value)


_SEPARABLE: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""Networks that `features` has tried, so that it tries each once."""

SEPARABLE_BY = ("forward_features", "forward_head", "get_classifier")


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
    lacking = [part for part in SEPARABLE_BY if not hasattr(network, part)]
    if lacking:
        raise _inseparable(network, f"it lacks {' and '.join(lacking)}, by which timm's networks part body and head")
    return head(network)


def head(network: Any) -> nn.Module:
    """The classifier, as the one part that can be trained before or without the others.

    Raises:
        InvalidInput: there are several, or none.
    """
    found = network.get_classifier() if hasattr(network, "get_classifier") else None
    if not isinstance(found, nn.Module):
        raise _inseparable(network, "it has not one classifier but several, or none")
    return found


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
        remedy="Train the whole network, with --tune full and without --freeze-epochs, or use another one.",
    )


def input_size(name: str) -> tuple[int, int]:
    """(height, width) of the pictures that the network was made for."""
    if name in CLASSICS:
        return CLASSIC_SIZES[name]
    if own.is_own(name):
        return 224, 224
    config = timm.get_pretrained_cfg(name)
    _, height, width = config.input_size if config is not None else (3, 224, 224)
    return height, width


def describe(name: str, *, count: bool = False) -> dict[str, str | int | None]:
    """One line of a listing: name, family, parameters, licence of the weights, and where those are.

    Parameters are counted, without memory for them, when `count` asks for it; else None.
    """
    check(name)
    if own.is_own(name):
        return {"name": own.title(name), "family": "own", "parameters": None, "licence": None, "weights": "none"}
    config = sources.published(name)
    return {
        "name": name,
        "family": _family(name),
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
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor):
            shapes.pop(name, None)  # a layer that is used again stands where it was used last
            shapes[name] = tuple(output.shape[1:])

    modules = dict(network.named_modules())
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: note(name, output))
        for name, module in modules.items()
    ]
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    # The kernel that is plain matrix products: others are not counted by every version of torch.
    counter = FlopCounterMode(display=False)
    try:
        with evaluating(network), _frozen(network), sdpa_kernel(SDPBackend.MATH), counter:
            network(torch.zeros(1, in_channels, *size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    work = _own_work(network, counter)
    layers = []
    for name, shape in shapes.items():
        leaf = not any(modules[name].children())
        num_parameters = sum(parameter.numel() for parameter in modules[name].parameters(recurse=leaf))
        if leaf or num_parameters or work.get(name):
            kind = type(modules[name]).__name__
            layers.append(Layer(name or "(itself)", kind, shape, num_parameters, work.get(name, 0)))
    total = sum(parameter.numel() for parameter in network.parameters())
    return Summary(total, sum(layer.multiply_accumulates for layer in layers), tuple(layers))


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Parameters that ask for no gradient: the counter stumbles over those that are handed to a module."""
    wanted = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    network.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, want in wanted:
            parameter.requires_grad_(want)


def _own_work(network: nn.Module, counter: FlopCounterMode) -> dict[str, int]:
    """Multiply-accumulates of each module by name, without those of the modules below it. Biases are not counted."""
    root = type(network).__name__
    # A multiply-accumulate is two operations.
    found = {name: sum(counts.values()) // 2 for name, counts in counter.get_flop_counts().items()}
    work = {}
    for name, module in network.named_modules():
        path = f"{root}.{name}" if name else root
        below = (found.get(f"{path}.{child}", 0) for child, _ in module.named_children())
        work[name] = found.get(path, 0) - sum(below)
        if isinstance(module, TableConvolution):
            work[name] = work[name] * module.kernels.numel() // module.dense().numel()
    return work
