"""What there is to give out, and what work needs of it."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

from vizsla.errors import InvalidInput
from vizsla.jobs.schedule import BESIDE, CPU, HOST, Need
from vizsla.machine import gpus
from vizsla.machine.devices import visible

DECLARED = "VIZSLA_DEVICES"
# All else uses the processor too, but is short by comparison: a long training should not hold it up.
HOST_PLACES = 2


def capacity() -> dict[str, float]:
    """The devices and how much of each there is: slots of the processor, GB of a GPU.

    What the driver says, or what the environment variable VIZSLA_DEVICES declares, as in `cpu=2,cuda:0=24`.

    Raises:
        InvalidInput: the declaration cannot be read.
    """
    declared = os.environ.get(DECLARED)
    found = {CPU: 1.0} | _of_driver() if declared is None else _parsed(declared)
    return {HOST: float(HOST_PLACES)} | found


@functools.cache  # cards do not come and go, and asking the driver takes milliseconds
def _of_driver() -> dict[str, float]:
    cards = visible(gpus.find().gpus, os.environ)
    # A card that does not tell its memory can be given out as a whole all the same.
    return {f"cuda:{number}": (gpu.memory_bytes or 1e9) / 1e9 for number, gpu in enumerate(cards)}


def _parsed(text: str) -> dict[str, float]:
    found = {}
    for part in text.split(","):
        name, _, amount = part.strip().partition("=")
        number = name.removeprefix("cuda:")
        if name != CPU and not (name.startswith("cuda:") and number.isdigit()):
            raise _unreadable(text)
        try:
            found[name] = float(amount or 1)
        except ValueError:
            raise _unreadable(text) from None
        if not 0 < found[name] < 1e6:
            raise _unreadable(text)
    return found


def _unreadable(text: str) -> InvalidInput:
    return InvalidInput(
        f"{text!r} does not say what devices there are.",
        where=DECLARED,
        remedy="Give slots of the processor and GB of each GPU, as in cpu=1,cuda:0=24,cuda:1=24.",
    )


def need_of(device: str, processes: int, there: dict[str, float], *, gpu_memory: float | None = None) -> Need:
    """What a training on `device` ("auto", "cpu", "cuda", "cuda:N" or "cuda:N,M") in so many processes needs.

    Args:
        there: see `capacity`.
        gpu_memory: GB of each GPU, or None for the whole card.
    """
    cards = tuple(name for name in there if name.startswith("cuda:"))
    if device == CPU or (device == "auto" and not cards):
        return Need((CPU,), 1, 1.0)
    _, _, named = device.partition(":")
    if not named:
        return Need(cards or ("cuda:0",), processes, gpu_memory)
    numbers = [int(number) for number in named.split(",")]
    if len(set(numbers)) < len(numbers):
        raise InvalidInput(f"{device} names a GPU twice.", where="device")
    if len(numbers) < processes:
        numbers = list(range(numbers[0], numbers[0] + processes))
    return Need(tuple(f"cuda:{number}" for number in numbers), len(numbers), gpu_memory)


def need_like(trained: Sequence[str], there: dict[str, float], *, gpu_memory: float | None = None) -> Need:
    """What work needs that computes, on one device, with what was trained on these.

    That is one of those GPUs, or any other where they are gone; without a GPU, a place beside the trainings, which on
    the processor take long.

    Args:
        trained: names of devices, such as cuda:0.
        there: see `capacity`.
        gpu_memory: GB of it, or None for the whole card.
    """
    cards = tuple(name for name in there if name.startswith("cuda:"))
    if not cards or not any(name.startswith("cuda:") for name in trained):
        return BESIDE
    return Need(tuple(name for name in cards if name in trained) or cards, 1, gpu_memory)


def as_option(held: tuple[str, ...]) -> str:
    """The cards that a job was given, as a worker is told them: "cuda:N,M"; "cpu" when it was given none."""
    numbers = [name.partition(":")[2] for name in held if name.startswith("cuda:")]
    return f"cuda:{','.join(numbers)}" if numbers else CPU
