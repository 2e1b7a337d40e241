"""How much of the machine a training uses, read at most once a second."""

from __future__ import annotations

import time

import psutil
import torch

READ_EVERY_S = 1.0


class Usage:
    """Memory and load of this process and its device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first reading only starts the clock
        self._read_at = -READ_EVERY_S
        self._last: dict[str, float] = {}

    def read(self) -> dict[str, float]:
        """`memory_mb` (resident), `device_use` (0 to 1: of the GPU, or of the CPU's cores), and of a GPU also
        `device_memory_mb` (the most so far), `device_temperature_c` and `device_power_w`.
        """
        if time.monotonic() - self._read_at >= READ_EVERY_S:
            self._read_at = time.monotonic()
            self._last = {"memory_mb": round(self._process.memory_info().rss / 1e6, 1), **self._device_use()}
        return self._last

    def _device_use(self) -> dict[str, float]:
        if self._device.type != "cuda":
            cores = psutil.cpu_count() or 1
            return {"device_use": round(self._process.cpu_percent() / 100 / cores, 3)}
        used = {"device_memory_mb": round(torch.cuda.max_memory_reserved(self._device) / 1e6, 1)}
        try:
            return used | {
                "device_use": torch.cuda.utilization(self._device) / 100,
                "device_temperature_c": float(torch.cuda.temperature(self._device)),
                "device_power_w": round(torch.cuda.power_draw(self._device) / 1000, 1),
            }
        except Exception:  # the driver's library is missing or too old: some figures less, not a failure
            return used
