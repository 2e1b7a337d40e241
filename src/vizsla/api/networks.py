"""Verbs on networks. They ask a worker process, since the catalogue needs torch."""

from __future__ import annotations

from typing import Any

from vizsla.jobs import launch

WORKER = "vizsla.networks.worker"


def list_all(pattern: str = "") -> list[str]:
    """The names of all networks that hold `pattern`: the classic ones first, then timm's."""
    names: list[str] = launch.ask(WORKER, {"list": pattern})
    return names


def get(
    name: str, *, width: int = 224, height: int = 224, channels: int = 3, num_classes: int = 1000
) -> dict[str, Any]:
    """What a network is: parameters, multiply-accumulates, pretrained weights and their licence, and its layers.

    Raises:
        NotFound: there is no such network.
        InvalidInput: it does not take pictures of this size.
    """
    question = {"show": name, "size": [height, width], "channels": channels, "num_classes": num_classes}
    found: dict[str, Any] = launch.ask(WORKER, question)
    return found
