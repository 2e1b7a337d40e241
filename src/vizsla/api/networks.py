"""Verbs on networks. They ask a worker process, since the catalogue needs torch."""

from __future__ import annotations

from typing import Any

from vizsla.errors import InvalidInput
from vizsla.jobs import launch
from vizsla.networks import own
from vizsla.store.workspace import Workspace

WORKER = "vizsla.networks.worker"


def list_all(pattern: str = "") -> list[str]:
    """The names of all networks that hold `pattern`: the classic ones first, then timm's."""
    names: list[str] = launch.ask(WORKER, {"list": pattern})
    return names


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
        ws: says where files of networks may lie; needed for those only.

    Raises:
        NotFound: there is no such network.
        InvalidInput: it does not take pictures of this size, or is a file that is not allowed or does not work.
    """
    found: dict[str, Any] = launch.ask(
        WORKER, {"show": _place(name, ws), **_asked(width, height, channels, num_classes)}
    )
    return found


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
    svg: str = launch.ask(WORKER, {"draw": _place(name, ws), **_asked(width, height, channels, num_classes)})["svg"]
    return svg


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
