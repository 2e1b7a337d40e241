import time

import numpy as np
import pytest
import torch

from vizsla.training.batches import Plan, Positions, ahead, step_seed


@pytest.mark.parametrize(("num", "batch_size"), [(10, 3), (7, 7), (5, 100), (33, 32), (65, 32), (1, 1)])
def test_each_epoch_sees_every_picture_once(num: int, batch_size: int) -> None:
    plan = Plan(num_pictures=num, batch_size=batch_size, epochs=3, seed=1)
    batches = list(plan.from_step(0))
    assert len(batches) == plan.total_steps
    for epoch in range(3):
        seen = np.concatenate(batches[epoch * plan.steps_per_epoch : (epoch + 1) * plan.steps_per_epoch])
        assert sorted(seen) == list(range(num))
    sizes = {len(batch) for batch in batches}
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_no_batch_is_left_with_a_single_picture() -> None:
    assert min(len(b) for b in Plan(33, 32, 1, 0).from_step(0)) == 16


@pytest.mark.parametrize("step", [0, 1, 3, 4, 5, 11])
def test_from_step_is_the_rest_of_the_whole(step: int) -> None:
    plan = Plan(num_pictures=10, batch_size=3, epochs=3, seed=5)
    whole = list(plan.from_step(0))
    rest = list(plan.from_step(step))
    assert len(rest) == len(whole) - step
    assert all(np.array_equal(a, b) for a, b in zip(rest, whole[step:], strict=True))


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(np.concatenate(list(Plan(50, 50, 2, seed).from_step(at)))[:50]) for seed in (0, 1) for at in (0, 1)}
    assert len(orders) == 4


def test_step_seeds_differ_and_repeat() -> None:
    seeds = {step_seed(seed, step) for seed in range(10) for step in range(1000)}
    assert len(seeds) == 10_000
    assert step_seed(3, 4) == step_seed(3, 4)


def test_ahead_keeps_the_order_and_loads_before_it_is_asked() -> None:
    loaded = []

    def load(positions: Positions) -> torch.Tensor:
        loaded.append(int(positions[0]))
        return torch.from_numpy(positions)

    batches = ahead(load, Plan(20, 1, 1, 0).from_step(0), depth=3)
    first, _ = next(batches)
    deadline = time.monotonic() + 10
    while len(loaded) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    rest = [int(positions[0]) for positions, _ in batches]
    assert [int(first[0]), *rest] == [int(b[0]) for b in Plan(20, 1, 1, 0).from_step(0)]


def test_ahead_passes_the_loaders_error_on() -> None:
    def load(positions: Positions) -> torch.Tensor:
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        next(ahead(load, Plan(4, 2, 1, 0).from_step(0)))
