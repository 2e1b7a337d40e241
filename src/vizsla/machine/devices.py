"""The devices that can train, by the names that a run asks for: what each has, and how busy it is at this moment."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import psutil

from vizsla.machine import system
from vizsla.machine.gpus import Found, Gpu

LOOK_S = 0.2
# What was seen longer ago says nothing of now.
RECENT_S = 10.0


class Device(NamedTuple):
    """A device. What is not told is None."""

    name: str
    """as in --device: cpu or cuda:N"""
    title: str
    memory_bytes: int | None
    used_bytes: int | None
    use: float | None
    """0 to 1: share of the last moments in which it computed"""
    temperature_c: int | None = None
    power_w: float | None = None
    processes: tuple[int, ...] = ()
    """ids of the processes that the driver knows on it"""


class Holder(NamedTuple):
    """A run, or other work such as an evaluation of one, that is on a device."""

    id: str
    name: str
    worker: int
    """id of its process, and of its group of processes"""


class Held(NamedTuple):
    """A device, who of this workspace is at work on it, and the ids of other processes there, as the driver knows."""

    device: Device
    runs: list[Holder]
    others: list[int]


def devices(found: Found, environment: Mapping[str, str] = os.environ) -> list[Device]:
    """The processor, and the GPUs that a worker would see."""
    return [_cpu(), *(_device(number, gpu) for number, gpu in enumerate(visible(found.gpus, environment)))]


def visible(gpus: Sequence[Gpu], environment: Mapping[str, str]) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES names, in its order, by number or identifier; all when it is not set.

    As CUDA does, what stands behind a name that fits none is left out. Workers count as the driver does, since
    `launch` sets CUDA_DEVICE_ORDER.
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return list(gpus)
    found: list[Gpu] = []
    for word in named.split(","):
        name = word.strip()
        fits = [
            gpu for gpu in gpus if (str(gpu.number) == name) or (name.startswith("GPU-") and gpu.uuid.startswith(name))
        ]
        if len(fits) != 1:
            break
        found += fits
    return found


class _Meter:
    """How busy the processor is. Who looks again soon is told without waiting: how it was since the last time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at = -math.inf
        self._busy = self._all = self._use = 0.0

    def look(self) -> float:
        """The share of all cores in use."""
        with self._lock:
            if time.monotonic() - self._at > RECENT_S:
                self._take()
                time.sleep(LOOK_S)
            if time.monotonic() - self._at >= LOOK_S:
                self._take()
            return self._use

    def _take(self) -> None:
        times = psutil.cpu_times()
        # Of guests the kernel counts the time twice.
        whole = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        busy = whole - times.idle - getattr(times, "iowait", 0.0)
        if whole > self._all:
            self._use = min(1.0, max(0.0, (busy - self._busy) / (whole - self._all)))
        self._at, self._busy, self._all = time.monotonic(), busy, whole


_processor = _Meter()


def _cpu() -> Device:
    about = system.system()
    use = _processor.look()
    used = about.memory_bytes - about.free_memory_bytes
    return Device("cpu", f"{about.cpu}, {about.cores:g} cores", about.memory_bytes, used, use)


def _device(number: int, gpu: Gpu) -> Device:
    return Device(
        f"cuda:{number}",
        gpu.name,
        gpu.memory_bytes,
        gpu.used_bytes,
        gpu.use,
        gpu.temperature_c,
        gpu.power_w,
        gpu.processes,
    )
