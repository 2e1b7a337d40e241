from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from vizsla.networks.classic import WithAuxiliary
from vizsla.training.objective import Objective, class_weights
from vizsla.training.spec import TrainingSpec

LABELS = torch.tensor([0] * 6 + [1] * 3 + [2])


def _objective(**settings: Any) -> Objective:
    return Objective(TrainingSpec(**settings), LABELS, 4)


def test_class_weights_balance_the_classes() -> None:
    weights = class_weights(LABELS, 4)
    assert float(weights[LABELS].mean()) == pytest.approx(1)
    totals = [float(weights[LABELS[torch.eq(LABELS, label)]].sum()) for label in range(3)]
    assert totals == pytest.approx([10 / 3] * 3)
    assert weights[3] == 0, "a class without pictures"


def test_auxiliary_heads_count_as_in_the_paper() -> None:
    logits, extra, labels = torch.randn(4, 4), torch.randn(4, 4), torch.tensor([0, 1, 2, 0])
    plain, _ = _objective()(logits, labels)
    more, main = _objective()(WithAuxiliary(logits, (extra, extra)), labels)
    aside, _ = _objective()(extra, labels)
    assert torch.allclose(more, plain + 0.6 * aside)
    assert torch.equal(main, logits)


def test_the_focal_loss_is_that_of_its_paper() -> None:
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    found, _ = _objective(imbalance="focal")(logits, labels)
    chance = logits.softmax(1)[torch.arange(5), labels]
    assert torch.allclose(found, -((1 - chance) ** 2) * chance.log(), atol=1e-6)


def test_mixed_labels_give_the_mixed_loss() -> None:
    logits, first, second = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 1, 0, 2, 2])
    mixed = 0.3 * F.one_hot(first, 4) + 0.7 * F.one_hot(second, 4)
    for settings in ({}, {"imbalance": "weights"}, {"label_smoothing": 0.1}):
        objective = _objective(**settings)
        found, _ = objective(logits, mixed)
        one, other = objective(logits, first)[0], objective(logits, second)[0]
        assert torch.allclose(found, 0.3 * one + 0.7 * other, atol=1e-5), settings
