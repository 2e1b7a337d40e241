"""The largest batch that fits into a device, found by trying: what kernels take for their own work, nobody counts."""

from __future__ import annotations

import torch

from vizsla.training.arithmetic import Trial, trial_step
from vizsla.training.run import Arithmetic
from vizsla.work import is_out_of_memory

# Between the largest that fits and the smallest that does not, in parts of the former.
PRECISION = 8
# Of each number of a batch: three batches of bytes that are loaded ahead, and two of floats between augmentations.
BYTES_PER_NUMBER = 3 + 2 * 4


def largest_batch(trial: Trial, arithmetic: Arithmetic, at_most: int, *, aside_bytes: int = 0) -> int:
    """Pictures a pass of a training with which a whole step fits into the memory of the trial's device.

    Args:
        at_most: more than so many are not tried.
        aside_bytes: what else the training keeps there, such as the pictures of its splits.

    Returns:
        A number within an eighth below the limit; 0 when not even two pictures fit.
    """
    fits, too_many = 0, at_most + 1
    while fits < at_most:
        doubled = min(max(2, 2 * fits), at_most)
        if not _fits(trial, arithmetic, doubled, aside_bytes):
            too_many = doubled
            break
        fits = doubled
    while fits and too_many - fits > max(1, fits // PRECISION):
        middle = (fits + too_many) // 2
        if _fits(trial, arithmetic, middle, aside_bytes):
            fits = middle
        else:
            too_many = middle
    return fits


def _fits(trial: Trial, arithmetic: Arithmetic, num: int, aside_bytes: int) -> bool:
    try:
        _take_steps(trial, arithmetic, num, aside_bytes)
        fits = True
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    if trial.device.type == "cuda":
        torch.cuda.empty_cache()
    return fits


def _take_steps(trial: Trial, arithmetic: Arithmetic, num: int, aside_bytes: int) -> None:
    numbers = num * trial.channels * trial.size[0] * trial.size[1]
    held = torch.empty(aside_bytes + numbers * BYTES_PER_NUMBER, dtype=torch.uint8, device=trial.device)
    step = trial_step(trial, arithmetic, num, optimised=True)
    for _ in range(2):  # in the second one the state of the optimiser is there from the beginning
        step()
    del held
