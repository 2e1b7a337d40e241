from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vizsla.errors import TrainingFailed
from vizsla.training.batches import Plan, Positions
from vizsla.training.inputs import Features
from vizsla.training.loop import EpochEnded, State, Stepped, Task, loss_of, make_optimizer, train
from vizsla.training.precision import Precision
from vizsla.training.spec import TrainingSpec

CPU = torch.device("cpu")


def _task(**settings: Any) -> Task:
    """Two classes of points that a line tells apart."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (50,), generator=random)
    table = (torch.randn(50, 4, generator=random) + 3 * labels[:, None])[None]
    head = nn.Linear(4, 2)
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    spec = TrainingSpec(
        **{"tune": "head", "epochs": 3, "batch_size": 8, "learning_rate": 0.05, "weight_decay": 0} | settings
    )
    inputs = Features(table, labels, head, CPU)
    resolved = spec.resolved(has_weights=True)
    return Task(resolved, Plan(50, 8, 3, 0), head, inputs, inputs, CPU, Precision("fp32", ""))


def test_a_line_is_learned_and_every_step_is_told() -> None:
    task = _task()
    state = State(make_optimizer(task.spec, task.module))
    told = list(train(task, state))
    steps = [event for event in told if isinstance(event, Stepped)]
    epochs = [event for event in told if isinstance(event, EpochEnded)]
    assert [event.step for event in steps] == list(range(1, 22))
    assert [event.epoch for event in steps] == [1] * 7 + [2] * 7 + [3] * 7
    assert [event.epoch for event in epochs] == [1, 2, 3]
    assert {event.step for event in steps if event.loss is not None} == {7, 10, 14, 20, 21}
    assert epochs[-1].validation is not None
    assert epochs[-1].validation.accuracy.value > 0.8
    assert epochs[-1].validation.accuracy.num_pictures == 50
    assert epochs[-1].train_loss < epochs[0].train_loss


def test_it_goes_on_from_any_step_as_if_never_stopped() -> None:
    whole = _task()
    state = State(make_optimizer(whole.spec, whole.module))
    told = list(train(whole, state))

    halves = _task()
    state = State(make_optimizer(halves.spec, halves.module))
    first = train(halves, state)
    before = [next(first) for _ in range(10)]
    first.close()
    after = list(train(halves, state))
    assert torch.equal(whole.module.weight, halves.module.weight)  # type: ignore[arg-type]

    def facts(events: list[Stepped | EpochEnded]) -> list[object]:
        return [event._replace(speed=None) if isinstance(event, Stepped) else event for event in events]

    assert facts(before + after) == facts(told)


def test_a_loss_that_is_not_finite_ends_it_with_advice() -> None:
    task = _task(optimizer="sgd", learning_rate=1e38)
    with pytest.raises(TrainingFailed, match="not a finite number") as caught:
        list(train(task, State(make_optimizer(task.spec, task.module))))
    assert "--learning-rate" in caught.value.remedy


class _Full(Features):
    """Runs out of memory at the third batch."""

    batches = 0

    def logits(self, batch: Tensor, random: torch.Generator | None) -> Tensor:
        self.batches += 1
        if self.batches == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().logits(batch, random)


def test_out_of_memory_ends_it_with_advice() -> None:
    task = _task()
    task.train = _Full(torch.zeros(1, 50, 4), torch.zeros(50, dtype=torch.long), task.module, CPU)
    with pytest.raises(TrainingFailed, match="out of memory at step 3") as caught:
        list(train(task, State(make_optimizer(task.spec, task.module))))
    assert "smaller batch than 8" in caught.value.remedy


class _Gone(Features):
    """A disk that fails while batches are loaded."""

    def load(self, positions: Positions) -> Tensor:
        raise OSError("disk gone")


def test_the_loaders_error_is_not_swallowed() -> None:
    task = _task()
    task.train = _Gone(torch.zeros(1, 50, 4), torch.zeros(50, dtype=torch.long), task.module, CPU)
    with pytest.raises(OSError, match="disk gone"):
        list(train(task, State(make_optimizer(task.spec, task.module))))


def test_auxiliary_heads_count_as_in_the_paper() -> None:
    from vizsla.networks.classic import WithAuxiliary

    logits, extra, labels = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    plain, _ = loss_of(logits, labels, 0.0)
    more, main = loss_of(WithAuxiliary(logits, (extra, extra)), labels, 0.0)
    aside, _ = loss_of(extra, labels, 0.0)
    assert float(more) == pytest.approx(float(plain + 0.6 * aside), rel=1e-5)
    assert torch.equal(main, logits)


def test_biases_and_norms_are_not_decayed() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    spec = TrainingSpec(tune="scratch", weight_decay=0.5).resolved(has_weights=False)
    decayed, plain = make_optimizer(spec, network).param_groups
    assert (decayed["weight_decay"], len(decayed["params"])) == (0.5, 1)
    assert (plain["weight_decay"], len(plain["params"])) == (0.0, 3)
