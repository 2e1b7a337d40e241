"""Schedules of the learning rate: pure functions of how far the training is, so that resuming needs no state."""

from __future__ import annotations

import math

from vizsla.training.spec import TrainingSpec

# One-cycle begins at the 25th part of its highest rate, and ends at the 10,000th part of that.
ONECYCLE_START, ONECYCLE_END = 1 / 25, 1 / 25e4


def learning_rate(spec: TrainingSpec, progress: float) -> float:
    """The learning rate of a resolved spec when `progress` (0 to 1) of all steps are done.

    The warm-up rises linearly from zero, whatever follows; one-cycle has its own rise.
    """
    assert spec.learning_rate is not None, "the spec must be resolved"
    assert spec.warmup_percent is not None, "the spec must be resolved"
    warmup = spec.warmup_percent / 100
    if spec.schedule == "onecycle":
        return spec.learning_rate * _onecycle(progress, warmup)
    if progress < warmup:
        return spec.learning_rate * progress / warmup
    if spec.schedule == "cosine":
        return spec.learning_rate * _between(1.0, 0.0, (progress - warmup) / (1 - warmup))
    return spec.learning_rate * _digits(spec, 100 * progress)


def _between(start: float, end: float, progress: float) -> float:
    """Half a cosine from start to end (Loshchilov and Hutter 2017, SGDR, without restarts)."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _onecycle(progress: float, rise: float) -> float:
    """Smith and Topin 2018 (super-convergence), with cosines for lines, as fastai and torch have it."""
    if progress < rise:
        return _between(ONECYCLE_START, 1.0, progress / rise)
    return _between(1.0, ONECYCLE_END, (progress - rise) / (1 - rise))


def _digits(spec: TrainingSpec, percent: float) -> float:  # noqa: PLR0911 - one for each policy
    """DIGITS' policies, with their formulas in percent of the training."""
    gamma, power, step = spec.gamma or 1.0, spec.power or 1.0, spec.step_percent or 100.0
    match spec.schedule:
        case "step":
            # A hair's breadth keeps 3 x 33.333 % from rounding to two steps.
            return gamma ** math.floor(percent / step + 1e-9)
        case "multistep":
            return gamma ** sum(percent >= milestone for milestone in spec.milestone_percents)
        case "exp":
            return gamma**percent
        case "inv":
            return (1 + gamma * percent) ** -power
        case "poly":
            return max(0.0, 1 - percent / 100) ** power
        case "sigmoid":
            return 1 / (1 + math.exp(gamma * (percent - step)))
        case _:
            return 1.0
