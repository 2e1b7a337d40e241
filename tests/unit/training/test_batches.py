import time

import numpy as np
import pytest
import torch

from vizsla.training.batches import Plan, Positions, ahead, largest_share, micro_batches, share, step_seed


@pytest.mark.parametrize(("num", "batch_size"), [(10, 3), (7, 7), (5, 100), (33, 32), (65, 32), (1, 1)])
def test_each_epoch_sees_every_picture_once(num: int, batch_size: int) -> None:
    plan = Plan(num_pictures=num, step_size=batch_size, epochs=3, seed=1)
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
    plan = Plan(num_pictures=10, step_size=3, epochs=3, seed=5)
    whole = list(plan.from_step(0))
    rest = list(plan.from_step(step))
    assert len(rest) == len(whole) - step
    assert all(np.array_equal(a, b) for a, b in zip(rest, whole[step:], strict=True))


def test_balanced_steps_draw_every_class_as_often() -> None:
    labels = np.array([0] * 60 + [1] * 9 + [2])
    plan = Plan(70, 16, 2, 0, labels)
    epochs = [np.concatenate(list(plan.from_step(5 * epoch))[:5]) for epoch in range(2)]
    for drawn in epochs:
        assert sorted(np.bincount(labels[drawn])) == [23, 23, 24]
        times = np.bincount(drawn, minlength=70)
        assert times[:60].max() == 1
        assert set(times[60:69]) == {2, 3}
    assert not np.array_equal(*epochs)


def test_a_step_is_shared_out_in_whole_pairs() -> None:
    for num in range(1, 70):
        for world in range(1, 9):
            cuts = [share(num, rank, world) for rank in range(world)]
            assert [cut[0] for cut in cuts] == [0, *(cut[1] for cut in cuts[:-1])]
            assert cuts[-1][1] == num
            assert all(start % 2 == 0 for start, stop in cuts if stop > start)
            assert all(stop > start for start, stop in cuts) or num < 2 * world


def test_passes_are_no_larger_than_asked() -> None:
    for num in range(1, 70):
        for at_most in range(1, 40):
            pieces = micro_batches(4, 4 + num, at_most)
            assert [start for start, _ in pieces] == [4, *(stop for _, stop in pieces[:-1])]
            assert pieces[-1][1] == 4 + num
            assert all(0 < stop - start <= at_most + (at_most > 1) for start, stop in pieces)
            assert at_most == 1 or num == 1 or all(stop - start > 1 for start, stop in pieces)
            assert at_most == 1 or all(start % 2 == 0 for start, _ in pieces)


def test_every_process_makes_as_many_passes() -> None:
    """They wait for each other within a pass where batch statistics are shared."""
    for world in range(1, 9):
        for num in range(2 * world, 100):
            for at_most in (*range(4, 40), largest_share(num, world)):
                cuts = [share(num, rank, world) for rank in range(world)]
                most = max(stop - start for start, stop in cuts)
                assert largest_share(num, world) in (most, most + 1)
                passes = [micro_batches(*cut, at_most, largest=largest_share(num, world)) for cut in cuts]
                assert len({len(pieces) for pieces in passes}) == 1 or at_most < 4


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
