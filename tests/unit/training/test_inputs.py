"""Tests of what a step trains on: features by a frozen body, and when they are computed."""

from __future__ import annotations

import torch
from torch import Tensor

from vizsla.training.inputs import Features

CPU = torch.device("cpu")


class _Body:
    """Stands in for a frozen body: the feature of a picture is its number, negative where it was mirrored."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self, mirrored: Tensor) -> Tensor:
        self.passes += 1
        numbers = torch.arange(1.0, len(mirrored) + 1)
        return torch.where(mirrored, -numbers, numbers)[:, None]


def _epoch(features: Features, epoch: int) -> Tensor:
    features.begin(epoch)
    num = len(features.labels)
    batch = features.load(torch.arange(num).numpy())
    draws = features.draw(num, torch.Generator().manual_seed(epoch))
    first, _ = features.inputs(batch[:50], features.labels[:50], draws.rows(0, 50), 2)
    second, _ = features.inputs(batch[50:], features.labels[50:], draws.rows(50, num), 2)
    return torch.cat([first, second])[:, 0]


def test_each_picture_is_seen_both_ways_in_two_epochs_and_the_first_waits_for_one_pass() -> None:
    body = _Body()
    features = Features(torch.zeros(200, dtype=torch.long), CPU, body, mirror_seed=3)
    assert body.passes == 0
    first = _epoch(features, 0)
    assert body.passes == 1
    assert 70 < int((first < 0).sum()) < 130
    assert (_epoch(features, 1) == -first).all()
    later = [_epoch(features, epoch) for epoch in (2, 3, 4)]
    assert body.passes == 2
    assert all((view.abs() == first.abs()).all() for view in later)
    assert len({tuple(view.tolist()) for view in [first, -first, *later]}) == 5


def test_going_on_in_a_later_epoch_computes_what_the_earlier_ones_had() -> None:
    labels = torch.zeros(200, dtype=torch.long)
    whole, again = Features(labels, CPU, _Body(), mirror_seed=3), Features(labels, CPU, _Body(), mirror_seed=3)
    expected = [_epoch(whole, epoch) for epoch in range(4)]
    assert (_epoch(again, 3) == expected[3]).all()


def test_without_mirroring_one_pass_does() -> None:
    body = _Body()
    features = Features(torch.zeros(200, dtype=torch.long), CPU, body)
    assert all((_epoch(features, epoch) > 0).all() for epoch in range(3))
    assert body.passes == 1
    assert (features.plain(torch.tensor([4, 7])) == torch.tensor([[5.0], [8.0]])).all()
