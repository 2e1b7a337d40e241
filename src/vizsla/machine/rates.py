"""How fast the devices of this machine compute and copy, measured with torch, and what torch can do with them.

Started as `python -m vizsla.machine.rates`; see `vizsla.jobs.launch.ask`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

MEASURE_S = 0.4
# Large enough that a GPU is busy, small enough that a CPU answers at once.
CPU_SIDE, GPU_SIDE = 1536, 8192
CHECKED_SIDE = 256
COPIED_BYTES = 2**28
FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def measure() -> dict[str, Any]:
    """Everything, as plain JSON: versions, and of each device its rates; takes a few seconds a device."""
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": _cudnn(),
        "nccl": _nccl(),
        "cpu_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cpu": _cpu(),
        "cuda_error": "",
        "gpus": [],
        "peers": [],
    }
    if not torch.version.cuda:
        return found
    try:
        torch.cuda.init()
    # A driver that is too old, a missing device file, no card: torch has many ways to say so.
    except Exception as error:
        return found | {"cuda_error": _first_line(error)}
    gpus = [_gpu(number) for number in range(torch.cuda.device_count())]
    good = [gpu["number"] for gpu in gpus if "error" not in gpu]
    peers = [[a, b] for a in good for b in good if a != b and torch.cuda.can_device_access_peer(a, b)]
    return found | {"gpus": gpus, "peers": peers}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _cudnn() -> int | None:
    try:
        return torch.backends.cudnn.version() if torch.version.cuda else None
    except RuntimeError:  # too new for a card here, or another one than torch was built with
        return None


def _nccl() -> str | None:
    if not (torch.version.cuda and torch.distributed.is_available() and torch.distributed.is_nccl_available()):
        return None
    return ".".join(map(str, torch.cuda.nccl.version()))


def cpu_formats() -> list[str]:
    """The number formats that this CPU has instructions for, the exact one first."""
    has_bf16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return ["fp32", "bf16"] if has_bf16 else ["fp32"]


def _cpu() -> dict[str, Any]:
    device = torch.device("cpu")
    source = torch.ones(COPIED_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    formats = cpu_formats()
    return {
        "products": {name: _products(device, name, CPU_SIDE) for name in formats},
        "errors": {name: _error(device, name) for name in formats},
        "copy_gb_s": _copies(device, target, source),
    }


def _gpu(number: int) -> dict[str, Any]:
    device = torch.device("cuda", number)
    about: dict[str, Any] = {"number": number, "name": "unknown", "uuid": "", "capability": [0, 0]}
    try:
        about["name"] = torch.cuda.get_device_name(number)
        about["capability"] = list(torch.cuda.get_device_capability(number))
        about["uuid"] = str(getattr(torch.cuda.get_device_properties(number), "uuid", ""))
        formats = [name for name in FORMATS if name != "bf16" or about["capability"] >= [8, 0]]
        with _rounded_inputs(False):
            products = {name: _products(device, name, GPU_SIDE) for name in formats}
        if about["capability"] >= [8, 0]:
            with _rounded_inputs(True):
                products["tf32"] = _products(device, "fp32", GPU_SIDE)
        on_host = torch.ones(COPIED_BYTES, dtype=torch.uint8).pin_memory()
        on_device = on_host.to(device)
        return about | {
            "products": products,
            "errors": {name: _error(device, name) for name in formats},
            "copy_gb_s": _copies(device, torch.empty_like(on_device), on_device),
            "to_device_gb_s": _copies(device, on_device, on_host),
            "to_host_gb_s": _copies(device, on_host, on_device),
        }
    # A card that is full, broken, split or too old for this torch: the others are measured anyway.
    except (RuntimeError, AssertionError) as error:
        return about | {"error": _first_line(error)}


@contextlib.contextmanager
def _rounded_inputs(wanted: bool) -> Iterator[None]:
    """Products of 32-bit floats with their inputs rounded to 10 bits (TF32), or not."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = wanted
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _products(device: torch.device, number_format: str, side: int) -> float:
    """Billions of multiply-accumulates a second, times two: GFLOP/s, of a product of two square matrices."""
    a = torch.randn(side, side, device=device).to(FORMATS[number_format])
    return round(2 * side**3 / shortest(lambda: a @ a, device) / 1e9, 1)


def _copies(device: torch.device, target: torch.Tensor, source: torch.Tensor) -> float:
    """Gigabytes a second that are copied."""
    return round(source.nbytes / shortest(lambda: target.copy_(source, non_blocking=True), device) / 1e9, 2)


def shortest(
    work: Callable[[], object], device: torch.device, *, for_s: float = MEASURE_S, give_up_s: float = math.inf
) -> float:
    """Seconds of the fastest of some rounds of `work`, the one that the rest of the machine disturbed least.

    Args:
        for_s: how long it is tried, but for two rounds at least; the first is left out.
        give_up_s: a round that takes longer is the last: that is far too slow.
    """
    best = math.inf
    began = time.perf_counter()
    for count in range(1000):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
        best = min(best, seconds) if count else best
        if count and (seconds > give_up_s or time.perf_counter() - began > for_s):
            break
    return best


def _error(device: torch.device, number_format: str) -> float:
    """How far a product on the device is from the same one in 64-bit floats on the CPU, relative to its size."""
    a = torch.randn(CHECKED_SIDE, CHECKED_SIDE, generator=torch.Generator().manual_seed(0)).to(FORMATS[number_format])
    exact = a.double() @ a.double()
    found = (a.to(device) @ a.to(device)).cpu().double()
    return float((found - exact).norm() / exact.norm())


def main() -> None:
    """Answer on standard output."""
    # What libraries print while they load must not stand before the answer's line.
    sys.stdout.flush()
    answer = os.dup(1)
    os.dup2(2, 1)
    found = measure()
    with os.fdopen(answer, "w") as out:
        out.write(json.dumps({"answer": found}) + "\n")


if __name__ == "__main__":
    main()
