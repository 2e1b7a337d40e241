from __future__ import annotations

import os
import time

import pytest

from vizsla.machine.devices import devices, visible
from vizsla.machine.gpus import Driver, Found, Gpu

GPUS = tuple(Gpu(number, f"GPU-{letter}{number}", "H100", use=0.5) for number, letter in enumerate("abc"))


@pytest.mark.parametrize(
    ("named", "numbers"),
    [
        (None, [0, 1, 2]),
        ("2,0", [2, 0]),
        ("GPU-b", [1]),
        ("GPU-", []),
        ("1,7,0", [1]),
        ("", []),
        ("-1", []),
    ],
)
def test_a_worker_sees_the_gpus_that_are_named(named: str | None, numbers: list[int]) -> None:
    environment = {} if named is None else {"CUDA_VISIBLE_DEVICES": named}
    assert [gpu.number for gpu in visible(GPUS, environment)] == numbers


def test_devices_have_the_names_that_runs_ask_for() -> None:
    found = devices(Found(Driver("550", (12, 4)), GPUS), {"CUDA_VISIBLE_DEVICES": "2,1"})
    assert [(device.name, device.title) for device in found[1:]] == [("cuda:0", "H100"), ("cuda:1", "H100")]
    assert found[0].name == "cpu"
    assert 0 < (found[0].used_bytes or 0) < (found[0].memory_bytes or 0)
    assert 0 <= (found[0].use or 0) <= 1


def test_a_busy_processor_is_seen_as_one() -> None:
    devices(Found(None))
    ended = time.monotonic() + 0.6
    while time.monotonic() < ended:
        sum(range(10_000))
    busy = devices(Found(None))[0].use
    assert busy is not None
    assert 0.5 / (os.cpu_count() or 1) < busy <= 1
