"""`/api/v1/devices` and `/api/v1/networks`: what can train, and what can be trained."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from vizsla.api import machine, networks
from vizsla.web.schema import Answer, Ws

router = APIRouter()
MAX_SIDE = 4096


class DeviceAnswer(Answer):
    """A device: what is not told is null."""

    name: str
    title: str
    memory_bytes: int | None
    used_bytes: int | None
    use: float | None
    temperature_c: int | None
    power_w: float | None


class HolderAnswer(Answer):
    """A run that is at work on a device."""

    id: str
    name: str
    worker: int


class HeldAnswer(Answer):
    """A device and who is at work on it."""

    device: DeviceAnswer
    runs: list[HolderAnswer]
    others: list[int]


@router.get("/devices", tags=["devices"])
def list_devices(ws: Ws) -> list[HeldAnswer]:
    """The processor and the GPUs, how busy they are, and who is at work on them."""
    return [HeldAnswer.model_validate(held) for held in machine.held(ws)]


@router.get("/networks", tags=["networks"])
def list_networks(pattern: Annotated[str, Query(max_length=100, description="What the name holds.")] = "") -> list[str]:
    """The names of all networks that can be trained."""
    return networks.list_all(pattern)


@router.get("/networks/{name}", tags=["networks"])
def get_network(
    ws: Ws,
    name: str,
    size: Annotated[int | None, Query(ge=1, le=MAX_SIDE, description="Side of the pictures in px.")] = None,
    channels: Annotated[int, Query(ge=1, le=4)] = 3,
    num_classes: Annotated[int, Query(ge=1, le=100_000)] = 1000,
) -> dict[str, Any]:
    """What a network is: parameters, multiply-accumulates, pretrained weights, and its layers."""
    return networks.get(name, width=size, height=size, channels=channels, num_classes=num_classes, ws=ws)
