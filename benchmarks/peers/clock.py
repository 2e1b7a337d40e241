"""How every candidate is timed: from the end of a warm-up step to the end of a later one, in the middle of an epoch."""

from __future__ import annotations

import time

import torch


class Window:
    """Counts steps and reads the clock at the two that bound the timed ones, when the device has done them."""

    def __init__(self, *, warm: int, timed: int, batch: int, device: str) -> None:
        self._edges = (warm, warm + timed)
        self._num_pictures = timed * batch
        self._device = device
        self._step = 0
        self._times: list[float] = []

    def step_ended(self) -> bool:
        """Count a step; returns whether it was the last that is timed."""
        self._step += 1
        if self._step in self._edges:
            if self._device.startswith("cuda"):
                torch.cuda.synchronize()
            self._times.append(time.perf_counter())
        return self._step >= self._edges[1]

    @property
    def pictures_per_s(self) -> float:
        """The speed between the two."""
        began, ended = self._times
        return round(self._num_pictures / (ended - began), 3)
