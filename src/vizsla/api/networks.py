"""Verbs on networks. They ask a worker process, since the catalogue needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from vizsla.errors import InvalidInput
from vizsla.jobs import launch
from vizsla.networks import here, known, own
from vizsla.store.workspace import Workspace

WORKER = "vizsla.networks.worker"
# Building and trying the largest networks takes a minute on two cores.
ANSWER_S = 180.0


def list_all(pattern: str = "") -> list[str]:
    """The names of all networks that hold `pattern`: the classic ones first, then timm's."""
    names: list[str] = launch.ask(WORKER, {"list": pattern})
    return names


class Network(NamedTuple):
    """A network by name."""

    name: str
    family: str
    """own, classic, or as timm calls it, such as resnet"""
    num_parameters: int | None
    """for 1,000 classes in colour; None: nobody has asked for it yet"""
    weights_here: bool | None
    """whether its pretrained weights are on this disk; None: nobody published any"""


class Some(NamedTuple):
    """A part of the networks that there are."""

    networks: list[Network]
    more: bool


def catalogue(
    ws: Workspace, pattern: str = "", *, family: str | None = None, after: str | None = None, limit: int = 200
) -> Some:
    """Some of the networks whose name holds `pattern`: that of this name first, then those that begin with it.

    Among equals come the user's own first, then the classic ones, then timm's. The first time takes seconds.

    Args:
        after: the last name that was told before.

    Raises:
        InvalidInput: there is no network `after`.
    """
    listed = known.families(_cache(ws), lambda: launch.ask(WORKER, {"families": None}, timeout_s=ANSWER_S))
    every = [*((name, "own", here.NOWHERE) for name in own.find(ws.network_folders)), *listed]
    fits = [one for one in every if pattern in one[0] and family in (None, one[1])]
    fits.sort(key=lambda one: (one[0] != pattern, not one[0].startswith(pattern)))
    if after is not None:
        names = [name for name, _, _ in fits]
        if after not in names:
            raise InvalidInput("This is no place to go on from.", where="after", remedy="Begin without it.")
        fits = fits[names.index(after) + 1 :]
    found = [
        Network(name, kind, _num_parameters(ws, name), here.is_here(name, published))
        for name, kind, published in fits[:limit]
    ]
    return Some(found, len(fits) > limit)


def _num_parameters(ws: Workspace, name: str) -> int | None:
    answer = None if own.is_own(name) else known.kept_answer(_cache(ws), name)
    return answer["num_parameters"] if answer else None


def get(
    name: str,
    *,
    width: int | None = None,
    height: int | None = None,
    channels: int = 3,
    num_classes: int = 1000,
    ws: Workspace | None = None,
) -> dict[str, Any]:
    """What a network is: parameters, multiply-accumulates, pretrained weights and their licence, and its layers.

    Args:
        name: of the catalogue, or a Python file in a folder that the workspace allows.
        width, height: of the pictures in px; by default those that the network was made for.
        ws: says where files of networks may lie, and keeps answers about the others.

    Raises:
        NotFound: there is no such network.
        InvalidInput: it does not take pictures of this size, or is a file that is not allowed or does not work.
    """
    asked = _asked(width, height, channels, num_classes)
    usual = asked == _asked(None, None, 3, 1000) and not own.is_own(name) and ws is not None
    kept: dict[str, Any] | None = None
    if usual and ws is not None and "/" not in name:
        kept = known.kept_answer(_cache(ws), name)
    if kept is None:
        _refuse_unknown(ws, name)
        kept = launch.ask(WORKER, {"show": _place(name, ws), **asked}, timeout_s=ANSWER_S)
        if usual and ws is not None:
            known.keep_answer(_cache(ws), name, kept)
    return kept | {"weights_here": here.is_here(name, kept["weights"])}


def draw(
    name: str,
    *,
    width: int | None = None,
    height: int | None = None,
    channels: int = 3,
    num_classes: int = 1000,
    ws: Workspace | None = None,
) -> str:
    """The graph of a network as an SVG page; arguments and errors are those of `get`."""
    _refuse_unknown(ws, name)
    svg: str = launch.ask(
        WORKER, {"draw": _place(name, ws), **_asked(width, height, channels, num_classes)}, timeout_s=ANSWER_S
    )["svg"]
    return svg


def _refuse_unknown(ws: Workspace | None, name: str) -> None:
    if ws is not None and not own.is_own(name):
        known.refuse_unknown(_cache(ws), name)


def _cache(ws: Workspace) -> Path:
    return ws.root / "cache"


def _place(name: str, ws: Workspace | None) -> str:
    if not own.is_own(name):
        return name
    if ws is None:
        raise InvalidInput("A file of a network needs a workspace, which says where it may lie.", where=name)
    return str(own.locate(name, ws.network_folders))


def _asked(width: int | None, height: int | None, channels: int, num_classes: int) -> dict[str, Any]:
    for name, value in (("classes", num_classes), ("channels", channels)):
        if value < 1:
            raise InvalidInput(f"--{name} must be 1 or more (given: {value}).", where=name)
    if (width is None) != (height is None):
        raise InvalidInput("Give both width and height, or neither.", where="size")
    return {"size": [height, width] if width else None, "channels": channels, "num_classes": num_classes}
