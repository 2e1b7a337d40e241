"""Where pretrained weights can be had: an installed package, the hub's cache on this disk, the hub, an address."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import huggingface_hub
import timm
import torch
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError

from vizsla.networks import here, own
from vizsla.networks.classic import CLASSICS

PROBE_S = 3.0
"""How long the hub has to answer the door. Its client would go on trying for 45 s."""

UNSTATED = "not stated by its source"


class Located(NamedTuple):
    """A file of weights on this disk, and where it came from, in words."""

    path: Path
    source: str


class Unreachable(Exception):
    """A way to the weights is closed; the text says why, to follow a colon."""


def published(name: str) -> Any | None:
    """What timm knows about the pretrained weights of `name` (a `PretrainedCfg`), or None when nobody published any."""
    if name in CLASSICS or own.is_own(name):
        return None
    config = timm.get_pretrained_cfg(name)
    return config if config is not None and (config.hf_hub_id or config.url) else None


def in_words(name: str) -> str:
    """Where the pretrained weights of `name` are, for a listing; "none" when nobody published any."""
    if here.is_installed(name):
        return f"installed ({here.PACKAGES[name.partition('.')[0]].distribution})"
    return published_in_words(name)


def published_in_words(name: str) -> str:
    """Where the pretrained weights of `name` were published; "none" when nobody did."""
    config = published(name)
    if config is None:
        return here.NOWHERE
    return f"{here.HUB}{config.hf_hub_id}" if config.hf_hub_id else str(config.url)


def at_hand() -> list[str]:
    """The networks whose pretrained weights are on this disk: in packages first, then in the caches of downloads."""
    packaged = [name for name in here.PACKAGES if in_package(name)]
    configs = ((name, published(name)) for name in timm.list_models() if name not in packaged)
    return packaged + [name for name, config in configs if config is not None and in_cache(config)]


def origin(config: Any) -> str:
    """The address that has to be reachable for a download: the hub's, or the file's own."""
    return constants.ENDPOINT if config.hf_hub_id else str(config.url)


def in_package(name: str) -> Located | None:
    """The file of weights inside an installed package, or None. The package is not imported."""
    package = here.offered_by(name)
    spec = importlib.util.find_spec(package.module) if package else None
    if package is None or spec is None or not spec.submodule_search_locations:
        return None
    files = sorted(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))
    if not files:
        return None
    return Located(files[0], f"PyPI package {package.distribution} {version(package.distribution)}")


def in_cache(config: Any) -> Located | None:
    """The file as an earlier download left it on this disk, or None."""
    if not config.hf_hub_id:
        path = _address_cache(str(config.url))
        return Located(path, str(config.url)) if path.is_file() else None
    repository, revision = _hub_id(config)
    for filename in _filenames(config):
        found = huggingface_hub.try_to_load_from_cache(repository, filename, revision=revision)
        if isinstance(found, str):
            return Located(Path(found), f"{here.HUB}{config.hf_hub_id}")
    return None


def fetch(config: Any, announce: Callable[[str], None]) -> Located:
    """Download the file from the hub, or from the address of networks that the hub has not.

    Raises:
        Unreachable: there is no way there, or the download failed; known within `PROBE_S` when nothing answers.
    """
    endpoint = origin(config)
    if constants.HF_HUB_OFFLINE:
        raise Unreachable("HF_HUB_OFFLINE is set")
    _probe(endpoint)
    if config.hf_hub_id:
        return _fetch_from_hub(config, announce)
    path = _address_cache(endpoint)
    announce(f"Fetching pretrained weights from {endpoint}, once; they are kept in {path.parent}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    digits = re.search(r"-([0-9a-f]{8,})\.", path.name)
    with _failures(endpoint):
        torch.hub.download_url_to_file(endpoint, str(path), digits and digits.group(1), progress=False)
    return Located(path, endpoint)


def _fetch_from_hub(config: Any, announce: Callable[[str], None]) -> Located:
    repository, revision = _hub_id(config)
    with _failures(constants.ENDPOINT):
        for filename in _filenames(config):
            url = huggingface_hub.hf_hub_url(repository, filename, revision=revision, endpoint=constants.ENDPOINT)
            try:
                metadata = huggingface_hub.get_hf_file_metadata(url, endpoint=constants.ENDPOINT)
            except EntryNotFoundError:
                continue
            size = f"{metadata.size / 1e6:,.0f} MB" if metadata.size else "unknown size"
            announce(f"Fetching pretrained weights {repository}/{filename} ({size}) from {constants.ENDPOINT}, once.")
            path = huggingface_hub.hf_hub_download(
                repository, filename, revision=revision, endpoint=constants.ENDPOINT, library_name="timm"
            )
            return Located(Path(path), f"{here.HUB}{config.hf_hub_id}")
    raise Unreachable(f"the hub's {repository} holds no file of weights that is known here")


@contextlib.contextmanager
def _failures(endpoint: str) -> Iterator[None]:
    """Turn what a client raises into `Unreachable`, with its reason."""
    try:
        yield
    # The hub's client passes on the errors of its HTTP library, which is another one from version to version.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise Unreachable(f"{endpoint} answered, but the download failed: {reason[0]}") from error


def _hub_id(config: Any) -> tuple[str, str | None]:
    repository, _, revision = str(config.hf_hub_id).partition("@")
    return repository, revision or None


def _filenames(config: Any) -> list[str]:
    """The names that the file may have on the hub, safetensors before pickles."""
    name = config.hf_hub_filename or "pytorch_model.bin"
    if not name.endswith(".bin"):
        return [name]
    safe = "model.safetensors" if name == "pytorch_model.bin" else name.removesuffix(".bin") + ".safetensors"
    return [safe, name]


def _address_cache(url: str) -> Path:
    """Where torch, and so timm, keeps what it fetched from `url`."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def _probe(url: str) -> None:
    """Open one TCP connection to the host of `url`, or to the proxy that leads there, and close it again."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.netloc):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    answers: list[str] = []

    def knock() -> None:
        try:
            socket.create_connection((host, port), timeout=PROBE_S).close()
            answers.append("")
        except OSError as error:
            answers.append(error.strerror or str(error))

    # In a thread, because looking up a name has no time-out of its own.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(PROBE_S)
    answer = answers[0] if answers else f"no answer within {PROBE_S:.0f} s"
    if answer:
        raise Unreachable(f"{host}:{port} cannot be reached from here ({answer})")
