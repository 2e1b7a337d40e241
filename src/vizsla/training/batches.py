"""Which pictures go into which step, how a step is shared out, and how its pixels get there ahead of time.

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
    """The steps of a training: `num_pictures` in steps of at most `step_size`, for `epochs` epochs."""

    num_pictures: int
    step_size: int
    """pictures a step of the optimiser, over all processes and accumulated batches"""
    epochs: int
    seed: int
    balanced: Positions | None = None
    """the label of each picture, to draw every class as often; None: each picture once an epoch"""

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which as many pictures are seen as there are."""
        return math.ceil(self.num_pictures / self.step_size)

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.steps_per_epoch * self.epochs

    @property
    def smallest_step(self) -> int:
        """Pictures in the smallest step."""
        return self.num_pictures // self.steps_per_epoch

    def from_step(self, step: int) -> Iterator[Positions]:
        """The positions (in the train split) of each step's pictures from `step` on.

        The steps of an epoch differ by at most one in size, so from three pictures a step on none is left with a
        single one, which batch normalisation could not take.
        """
        while step < self.total_steps:
            epoch, first = divmod(step, self.steps_per_epoch)
            steps = np.array_split(self._order(epoch), self.steps_per_epoch)[first:]
            yield from steps
            step += len(steps)

    def _order(self, epoch: int) -> Positions:
        random = np.random.default_rng([self.seed, epoch])
        if self.balanced is None:
            return random.permutation(self.num_pictures)
        return _balanced(self.balanced, random)


def _balanced(labels: Positions, random: np.random.Generator) -> Positions:
    """As many positions as labels, each class as often (but for one); no picture of a class again before all were."""
    classes = [random.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    shares = np.full(len(classes), len(labels) // len(classes))
    shares[random.permutation(len(classes))[: len(labels) % len(classes)]] += 1
    drawn = []
    for members, share in zip(classes, shares, strict=True):
        rounds = [random.permutation(members) for _ in range(math.ceil(share / len(members)))]
        drawn += [round_[: share - i * len(members)] for i, round_ in enumerate(rounds)]
    return random.permutation(np.concatenate(drawn))


def step_seed(seed: int, step: int, first_row: int = 0) -> int:
    """The seed of everything random in one step, or from one of its rows on, so that no generator's state is kept."""
    return int(np.random.SeedSequence([seed, step, first_row]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def share(num: int, rank: int, world: int) -> tuple[int, int]:
    """The rows of a step of `num` pictures that process `rank` of `world` works on, as start and stop.

    Cuts lie at even rows, since rows 2k and 2k + 1 may be mixed with each other.
    """
    pairs = math.ceil(num / 2)
    return min(num, 2 * (pairs * rank // world)), min(num, 2 * (pairs * (rank + 1) // world))


def largest_share(num: int, world: int) -> int:
    """Rows of the process that has most of a step of `num` pictures."""
    return min(num, 2 * math.ceil(math.ceil(num / 2) / world))


def micro_batches(start: int, stop: int, at_most: int, *, largest: int = 0) -> list[tuple[int, int]]:
    """Rows `start` (even) to `stop` in pieces of about one size, of `at_most` rows or one more, cut at even rows.

    Only pieces of a single row are cut at odd rows too; nothing is mixed then.

    Args:
        largest: rows of the process that has most of them. Where pieces hold four rows and more, every process makes as
            many as that one: they may wait for each other within a pass.
    """
    num = stop - start
    if at_most == 1:
        return [(row, row + 1) for row in range(start, stop)]
    # A lone last row goes with those before it: batch normalisation takes no single one.
    pieces = math.ceil((max(num, largest) // 2) / (at_most // 2))
    pieces = min(max(1, pieces), max(1, num // 2))
    return [(start + a, start + b) for a, b in (share(num, i, pieces) for i in range(pieces))]


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
