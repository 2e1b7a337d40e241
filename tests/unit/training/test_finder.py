from __future__ import annotations

import numpy as np
import pytest

from vizsla.errors import TrainingFailed
from vizsla.training.finder import smoothed, suggest

RATES = np.geomspace(1e-7, 10, 120)


def _losses(noise: float) -> list[float]:
    """Falls from 2 to 0.5 about a rate of 1e-3, and grows from 1 on."""
    curve = 2 - 1.5 / (1 + (1e-3 / RATES) ** 2) + RATES**2
    return (curve + np.random.default_rng(0).normal(0, noise, 120)).tolist()


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_the_suggested_rate_is_half_way_down(noise: float) -> None:
    assert suggest(RATES.tolist(), _losses(noise)) == pytest.approx(1e-3, rel=1)


def test_a_loss_that_does_not_fall_gives_no_rate() -> None:
    with pytest.raises(TrainingFailed, match="did not fall"):
        suggest(RATES.tolist(), [2.0 + 0.01 * i for i in range(120)])


def test_smoothing_keeps_a_line_a_line() -> None:
    line = [3.0 - 0.01 * i for i in range(50)]
    assert smoothed(line) == pytest.approx(line)
