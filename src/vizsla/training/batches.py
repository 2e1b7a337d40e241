"""Which pictures go into which step, and how they get there ahead of time.

The order is a pure function of seed, epoch and step: a resumed run needs no state of a loader to go on exactly.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

Positions = npt.NDArray[np.int64]


class Plan(NamedTuple):
    """The steps of a training: `num_pictures` in steps of at most `batch_size`, for `epochs` epochs."""

    num_pictures: int
    batch_size: int
    epochs: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every picture is seen once."""
        return math.ceil(self.num_pictures / self.batch_size)

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.steps_per_epoch * self.epochs

    def from_step(self, step: int) -> Iterator[Positions]:
        """The positions (in the train split) of each batch from `step` on.

        The batches of an epoch differ by at most one in size, so from three pictures a batch on none is left with a
        single one, which batch normalisation could not take.
        """
        while step < self.total_steps:
            epoch, first = divmod(step, self.steps_per_epoch)
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_pictures)
            batches = np.array_split(order, self.steps_per_epoch)[first:]
            yield from batches
            step += len(batches)


def step_seed(seed: int, step: int) -> int:
    """The seed of everything random in one step, so that no generator's state has to be kept."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def ahead(
    load: Callable[[Positions], Tensor], plan: Iterator[Positions], depth: int = 3
) -> Generator[tuple[Positions, Tensor], None, None]:
    """Pairs of positions and their loaded batch, with up to `depth` batches loading in a thread meanwhile."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="load")
    queue = deque((positions, pool.submit(load, positions)) for positions in islice(plan, depth))
    try:
        while queue:
            positions, future = queue.popleft()
            batch = future.result()
            following = next(plan, None)
            if following is not None:
                queue.append((following, pool.submit(load, following)))
            yield positions, batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
