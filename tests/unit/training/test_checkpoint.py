from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support import fake_run
from torch import nn

from vizsla.errors import NotFound
from vizsla.metrics import wilson
from vizsla.training import checkpoint
from vizsla.training.average import Average
from vizsla.training.checkpoint import Best, Position
from vizsla.training.loop import State
from vizsla.training.optimizers import make_optimizer
from vizsla.training.run import checkpoints, find_checkpoint
from vizsla.training.spec import TrainingSpec


def _network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    return made.to(memory_format=torch.channels_last)


def _state(network: nn.Module, optimizer: str, *, ema: float = 0.0) -> State:
    spec = TrainingSpec(optimizer=optimizer, tune="scratch").resolved(has_weights=False)
    scaler = torch.amp.GradScaler("cpu", enabled=optimizer == "sgd")
    return State(make_optimizer(spec, network), scaler, Average(network, ema) if ema else None)


def _step(network: nn.Module, state: State) -> None:
    inputs = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(state.step))
    state.scaler.scale(network(inputs.to(memory_format=torch.channels_last)).square().mean()).backward()
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    state.sums += state.step
    state.recent += 2 * state.step
    state.step += 1
    if state.average is not None:
        state.average.update(state.step)


def _position(step: int, *best: Best) -> Position:
    return Position(step=step, elapsed_s=1.5, best=best, stale=1)


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "lamb", "adadelta", "muon", "lion", "nadam"])
def test_what_is_loaded_goes_on_as_what_was_saved(tmp_path: Path, optimizer: str, ema: float) -> None:
    network = _network(0)
    state = _state(network, optimizer, ema=ema)
    for _ in range(3):
        _step(network, state)
    best = Best(step=2, epoch=1, score=0.5, loss=0.7, accuracy=wilson(5, 10))
    folder = checkpoint.save(tmp_path, network, state, _position(3, best), keep=set())

    other = _network(1)
    restored = _state(other, optimizer, ema=ema)
    assert checkpoint.load(folder, other, restored) == _position(3, best)
    assert restored.step == 3
    for _ in range(3):
        _step(network, state)
        _step(other, restored)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    for name, tensor in state.average.mean.items() if state.average else ():
        assert restored.average is not None
        assert torch.equal(tensor, restored.average.mean[name]), name
    assert state.scaler.state_dict() == restored.scaler.state_dict()
    assert torch.equal(state.sums, restored.sums)
    assert torch.equal(state.recent, restored.recent)


def test_the_optimisers_tensors_lie_in_memory_as_their_parameters(tmp_path: Path) -> None:
    network = _network(0)
    state = _state(network, "adamw")
    _step(network, state)
    folder = checkpoint.save(tmp_path, network, state, _position(1), keep=set())
    restored = _state(network, "adamw")
    checkpoint.load(folder, network, restored)
    convolution = network.get_parameter("0.weight")
    assert restored.optimizer.state[convolution]["exp_avg"].stride() == convolution.stride()


@pytest.mark.parametrize(
    ("keep_best", "keep", "expected"),
    [(1, set(), [2, 6]), (2, set(), [2, 4, 6]), (1, {1, 3}, [1, 2, 3, 6]), (9, set(), [1, 2, 3, 4, 5, 6])],
)
def test_the_last_the_best_and_those_asked_for_are_kept(
    tmp_path: Path, keep_best: int, keep: set[int], expected: list[int]
) -> None:
    network = _network(0)
    state = _state(network, "sgd")
    position = _position(0)
    for step, score in enumerate([0.1, 0.9, 0.3, 0.8, 0.2, 0.1], 1):
        found = Best(step=step, epoch=1, score=score, loss=0.7, accuracy=wilson(5, 10))
        position = position.validated(found, keep_best)._replace(step=step)
        checkpoint.save(tmp_path, network, state, position, keep=keep)
    assert position.stale == 4
    assert [found.step for found in checkpoints(tmp_path)] == expected
    assert find_checkpoint(tmp_path, "best").step == 2
    assert find_checkpoint(tmp_path, "last").step == 6
    assert find_checkpoint(tmp_path, "2").step == 2


def test_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "000000007").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".000000008.tmp").mkdir()
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize(
    ("now", "then", "beaten"),
    [
        ((0.5, 1.0), (0.6, 2.0), True),
        ((0.5, 1.0), (0.5, 0.9), True),
        ((0.5, 1.0), (0.5, 1.0), False),
        ((0.5, 1.0), (0.4, 0.1), False),
    ],
)
def test_best_is_by_score_and_then_by_loss(now: tuple[float, float], then: tuple[float, float], beaten: bool) -> None:
    accuracy = wilson(5, 10)
    assert Best(1, 1, *now, accuracy).beaten_by(Best(2, 2, *then, accuracy)) is beaten


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    network = _network(0)
    state = _state(network, "sgd")
    whole = checkpoint.save(tmp_path, network, state, _position(3), keep=set())
    half = tmp_path / "checkpoints" / ".000000007.tmp"
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"half")
    checkpoint.tidy(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [whole.name]


def test_a_damaged_checkpoint_is_written_anew(tmp_path: Path) -> None:
    network = _network(0)
    state = _state(network, "sgd")
    folder = checkpoint.save(tmp_path, network, state, _position(3), keep=set())
    (folder / "checkpoint.json").write_text("{")
    assert checkpoint.save(tmp_path, network, state, _position(3), keep=set()) == folder
    assert checkpoint.load(folder, network, state).step == 3


def test_one_that_was_removed_meanwhile_is_said_to_be_gone(tmp_path: Path) -> None:
    begun = fake_run()
    run = begun.model_copy(update={"spec": begun.spec.model_copy(update={"net": "lenet"})})
    with pytest.raises(NotFound, match="no checkpoint '10'"):
        checkpoint.restore(run, tmp_path / "checkpoints" / "000000010")
