"""`/api/v1/devices`: what can train, and who is at work on it."""

from __future__ import annotations

from fastapi import APIRouter

from vizsla.api import machine
from vizsla.web.schema import Answer, Ws

router = APIRouter()


class DeviceAnswer(Answer):
    """A device: what is not told is null."""

    name: str
    title: str
    memory_bytes: int | None
    used_bytes: int | None
    use: float | None
    temperature_c: int | None
    power_w: float | None
    processes: tuple[int, ...]


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
