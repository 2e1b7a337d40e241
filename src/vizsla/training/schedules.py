"""Learning-rate schedules: pure functions of how far the training is, so that resuming needs no state."""

from __future__ import annotations

import math

from vizsla.training.spec import TrainingSpec


def learning_rate(spec: TrainingSpec, progress: float) -> float:
    """The learning rate when `progress` (0 to 1) of all steps are done.

    Cosine: Loshchilov and Hutter 2017 (SGDR), without restarts. Step: DIGITS' policy, in percent of the training.
    """
    assert spec.learning_rate is not None, "the spec must be resolved"
    warmup = spec.warmup_percent / 100
    if progress < warmup:
        return spec.learning_rate * progress / warmup
    match spec.schedule:
        case "cosine":
            rest = (progress - warmup) / (1 - warmup)
            return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))
        case "step":
            # A hair's breadth keeps 3 x 33.333 % from rounding to two steps.
            return spec.learning_rate * spec.gamma ** math.floor(100 * progress / spec.step_percent + 1e-9)
        case "fixed":
            return spec.learning_rate
