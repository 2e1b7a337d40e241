"""Tests of what is decided before the first step."""

from __future__ import annotations

import numpy as np
import pytest

from vizsla.training.setup import plan_of
from vizsla.training.spec import TrainingSpec


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 13), (2, 7), (4, 4), (100, 1)])
def test_accumulated_batches_divide_the_steps(accumulate: int, steps: int) -> None:
    spec = TrainingSpec(net="lenet", tune="scratch", batch_size=8, epochs=3, accumulate=accumulate)
    plan = plan_of(spec.resolved(has_weights=False), np.zeros(100, dtype=np.int64))
    assert plan.steps_per_epoch == steps
    assert plan.total_steps == 3 * steps
    assert sum(len(positions) for positions in plan.from_step(0)) == 300
