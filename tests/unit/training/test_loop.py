from __future__ import annotations

import multiprocessing
import resource
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vizsla.errors import TrainingFailed
from vizsla.training.arithmetic import Trial
from vizsla.training.average import Average
from vizsla.training.batches import Plan, Positions
from vizsla.training.inputs import Features
from vizsla.training.loop import EpochEnded, Halved, Happening, State, Stepped, Task, Validated, is_due, train
from vizsla.training.objective import Objective
from vizsla.training.optimizers import make_optimizer
from vizsla.training.probe import largest_batch
from vizsla.training.run import Arithmetic
from vizsla.training.spec import TrainingSpec

CPU = torch.device("cpu")


def _task(module: nn.Module | None = None, **settings: Any) -> Task:
    """Two classes of points that a line tells apart."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (50,), generator=random)
    table = torch.randn(50, 4, generator=random) + 3 * labels[:, None]
    head = module or nn.Linear(4, 2)
    if module is None:
        for parameter in head.parameters():
            torch.nn.init.zeros_(parameter)
    asked = {"tune": "head", "epochs": 3, "batch_size": 8, "learning_rate": 0.05, "weight_decay": 0} | settings
    spec = TrainingSpec(**asked).resolved(has_weights=True)
    inputs = Features(labels, CPU, lambda mirrored: table)
    plan = Plan(50, (spec.batch_size or 0) * spec.accumulate, spec.epochs or 0, spec.seed)
    objective = Objective(spec, labels, 2)
    return Task(spec, plan, head, None, inputs, inputs, objective, CPU, Arithmetic(precision="fp32"))


def _state(task: Task) -> State:
    average = Average(task.module, task.spec.ema) if task.spec.ema else None
    return State(make_optimizer(task.spec, task.module), torch.amp.GradScaler("cpu", enabled=False), average)


def _facts(told: list[Happening]) -> list[object]:
    return [event._replace(speed=None) if isinstance(event, Stepped) else event for event in told]


def _weights(task: Task) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in task.module.parameters()])


def test_a_line_is_learned_and_every_step_is_told() -> None:
    task = _task()
    told = list(train(task, _state(task)))
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


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "lamb", "clip_norm": 0.1}, {"optimizer": "rmsprop", "schedule": "onecycle"}],
    ids=lambda settings: settings.get("optimizer", "adamw"),
)
def test_it_goes_on_from_any_step_as_if_never_stopped(settings: dict[str, Any]) -> None:
    whole = _task(**settings)
    told = list(train(whole, _state(whole)))
    halves = _task(**settings)
    state = _state(halves)
    first = train(halves, state)
    before = [next(first) for _ in range(10)]
    first.close()
    after = list(train(halves, state))
    assert torch.equal(_weights(whole), _weights(halves))
    assert _facts(before + after) == _facts(told)


def test_passes_of_any_size_make_the_same_steps() -> None:
    """A step in one pass, in accumulated batches, and in passes that were made small for want of memory."""
    one, four, small = _task(batch_size=32), _task(batch_size=8, accumulate=4), _task(batch_size=32)
    state = _state(small)
    state.micro_batch = 3
    told = [_facts(list(train(task, _state(task) if task is not small else state))) for task in (one, four, small)]
    assert len(told[0]) == len(told[1]) == len(told[2])
    for task in (four, small):
        assert torch.allclose(_weights(one), _weights(task), rtol=1e-5, atol=1e-6)


def test_validations_come_as_often_as_asked() -> None:
    told = list(train(task := _task(val_every=0.5), _state(task)))
    seen = [event.step for event in told if not isinstance(event, Stepped | Halved) and event.validation is not None]
    assert seen == [4, 7, 11, 14, 18, 21]
    assert {event.step for event in told if isinstance(event, Validated)} == {4, 11, 18}
    told = list(train(task := _task(val_every=2), _state(task)))
    assert [event.step for event in told if isinstance(event, EpochEnded) and event.validation] == [14, 21]


def test_what_is_due_happens_as_often_as_asked_and_at_the_end() -> None:
    plan = Plan(50, 8, 3, 0)
    assert [step for step in range(1, 22) if is_due(0, step, plan)] == [21]
    assert [step for step in range(1, 22) if is_due(1, step, plan)] == [7, 14, 21]
    assert len([step for step in range(1, 22) if is_due(0.1, step, plan)]) == 21


class _TwoLayers(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def test_at_first_only_the_head_learns() -> None:
    task = _task(_TwoLayers(), tune="full", freeze_epochs=2)
    task.head = task.module[2]  # type: ignore[index]
    before = {name: value.clone() for name, value in task.module.state_dict().items()}
    for event in train(task, _state(task)):
        if isinstance(event, EpochEnded):
            moved = {name for name, value in task.module.state_dict().items() if not torch.equal(value, before[name])}
            if event.epoch <= 2:
                assert moved == {"2.weight", "2.bias"}
    assert moved == set(before)


def test_the_averaged_weights_are_validated_and_the_others_are_trained_on() -> None:
    plain, averaged = _task(), _task(ema=0.9)
    list(train(plain, _state(plain)))
    state = _state(averaged)
    told = list(train(averaged, state))
    assert torch.equal(_weights(plain), _weights(averaged)), "the average does not change the training"
    assert state.average is not None
    mean = state.average.mean["weight"]
    assert not torch.equal(mean, averaged.module.weight)  # type: ignore[arg-type]
    with state.average.applied():
        assert torch.equal(averaged.module.weight, mean)  # type: ignore[arg-type]
    assert torch.equal(_weights(plain), _weights(averaged))
    assert isinstance(told[-1], EpochEnded)


def test_a_loss_that_is_not_finite_ends_it_with_advice() -> None:
    task = _task(optimizer="sgd", learning_rate=1e38)
    with pytest.raises(TrainingFailed, match="not a finite number") as caught:
        list(train(task, _state(task)))
    assert "--learning-rate" in caught.value.remedy


class _Wide(nn.Module):
    """Takes 100 MB for every picture of a pass: in training, or else in validation."""

    def __init__(self, *, in_training: bool = True) -> None:
        super().__init__()
        self.line = nn.Linear(4, 2)
        self._in_training = in_training

    def forward(self, x: Tensor) -> Tensor:
        if self.training != self._in_training:
            return self.line(x)
        wide = self.line(x)[:, :, None] * torch.ones(12_500_000)
        return wide[:, :, :2].sum(2) / 2


def _within(num_bytes: int, batch_size: int, *, in_training: bool = True) -> list[str]:
    """Train within so much more memory than this process has now; what happened, in words."""
    task = _task(_Wide(in_training=in_training), batch_size=batch_size, epochs=1)
    state = _state(task)
    _limit_memory(num_bytes)
    told = []
    try:
        for event in train(task, state):
            if isinstance(event, Halved):
                told.append(f"halved to {event.micro_batch} after step {event.step}")
            if isinstance(event, EpochEnded) and event.validation:
                told.append(f"done after step {event.step}, looked at {event.validation.accuracy.num_pictures}")
    except TrainingFailed as error:
        told.append(str(error))
    return told


def _largest(*limits: int) -> list[int]:
    """The largest batch within so much more memory than this process has now, for each limit."""
    spec = TrainingSpec(tune="scratch", optimizer="sgd").resolved(has_weights=False)
    trial = Trial(_Flat(_Wide()), (2, 2), 1, spec, CPU, 8, 100)
    found = []
    for num_bytes in limits:
        _limit_memory(num_bytes)
        found.append(largest_batch(trial, Arithmetic(precision="fp32"), 50))
    return found


class _Flat(nn.Module):
    """A network of pictures of 2 x 2 px."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.flatten(1))


def _limit_memory(num_bytes: int) -> None:
    """Let this process have so much more memory than it has now."""
    with open("/proc/self/statm") as file:  # noqa: PTH123 - a file of the kernel's
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + num_bytes, resource.RLIM_INFINITY))


@pytest.mark.parametrize(("megabytes", "end"), [(1000, "done after step 7"), (100, "out of memory")])
def test_out_of_memory_halves_the_passes_and_does_the_step_again(megabytes: int, end: str) -> None:
    """For real: the kernel refuses memory to a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        *halved, last = pool.apply(_within, (megabytes * 2**20, 8))
    assert halved[0] == "halved to 4 after step 0"
    assert [line.split()[2] for line in halved] == ["4", "2", "1"][: len(halved)]
    assert end in last


@pytest.mark.parametrize(
    ("megabytes", "end"), [(1000, "done after step 7, looked at 50"), (60, "even with one picture")]
)
def test_a_validation_that_is_out_of_memory_goes_on_in_smaller_batches(megabytes: int, end: str) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        told = pool.apply(_within, (megabytes * 2**20, 8), {"in_training": False})
    assert [line[: len(end)] for line in told] == [end] or end in told[-1]
    assert not any("halved" in line for line in told)


def test_the_largest_batch_is_found_by_trying() -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        found = pool.apply(_largest, (600 * 2**20, 1200 * 2**20))
    assert 2 <= found[0] < found[1] < 50


class _Gone(Features):
    """A disk that fails while batches are loaded."""

    def load(self, positions: Positions) -> Tensor:
        raise OSError("disk gone")


def test_the_loaders_error_is_not_swallowed() -> None:
    task = _task()
    task.train = _Gone(torch.zeros(50, dtype=torch.long), CPU, lambda mirrored: torch.zeros(50, 4))
    with pytest.raises(OSError, match="disk gone"):
        list(train(task, _state(task)))
