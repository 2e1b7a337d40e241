"""Tests of what is decided before the first step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vizsla.training.setup import plan_of, work_of
from vizsla.training.spec import TrainingSpec


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 13), (2, 7), (4, 4), (100, 1)])
def test_accumulated_batches_divide_the_steps(accumulate: int, steps: int) -> None:
    spec = TrainingSpec(net="lenet", tune="scratch", batch_size=8, epochs=3, accumulate=accumulate)
    plan = plan_of(spec.resolved(has_weights=False), np.zeros(100, dtype=np.int64))
    assert plan.steps_per_epoch == steps
    assert plan.total_steps == 3 * steps
    assert sum(len(positions) for positions in plan.from_step(0)) == 300


class Odd(nn.Module):
    """A user's network that cannot be counted."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("not like this")


def test_what_cannot_be_counted_is_trained_all_the_same() -> None:
    assert work_of(Odd(), (8, 8), 3) is None
    assert work_of(nn.Conv2d(3, 4, 3, bias=False), (8, 8), 3) == 6 * 6 * 3 * 4 * 3 * 3
