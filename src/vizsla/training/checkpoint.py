"""Checkpoints: safetensors and JSON, never pickle; a folder appears whole or not at all.

A checkpoint holds the weights that are the model, those that are trained on where they differ, the optimiser's state,
the position and the sums of the epoch so far. Learning rate, order of pictures and every random draw are functions of
seed and step, so no generator needs to be kept.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vizsla import files, metrics
from vizsla.networks import catalogue
from vizsla.networks.classifier import Classifier
from vizsla.training import setup
from vizsla.training.loop import State
from vizsla.training.run import Run, checkpoints, gone


class Best(NamedTuple):
    """One of the best validations so far: by accuracy (balanced, for unequal classes) and then by loss."""

    step: int
    epoch: float
    score: float
    loss: float
    accuracy: metrics.Interval

    def beaten_by(self, other: Best) -> bool:
        """Whether `other` is better."""
        return (other.score, -other.loss) > (self.score, -self.loss)


class Position(NamedTuple):
    """Where a run stands, beside weights and optimiser."""

    step: int
    elapsed_s: float
    best: tuple[Best, ...] = ()
    """the best first, as many as are kept"""
    stale: int = 0
    """validations since the best one"""

    def validated(self, found: Best, keep: int) -> Position:
        """The position after a validation."""
        ranked = sorted((*self.best, found), key=lambda best: (-best.score, best.loss, best.step))
        improved = not self.best or self.best[0].beaten_by(found)
        return self._replace(best=tuple(ranked[:keep]), stale=0 if improved else self.stale + 1)


def save(run_folder: Path, network: nn.Module, state: State, position: Position, *, keep: set[int]) -> Path:
    """Write the checkpoint of a step, then remove those that are neither the last, nor among the best, nor in `keep`.

    Raises:
        DiskFull: there is no room; the checkpoints that were there are untouched.
    """
    root = run_folder / "checkpoints"
    folder = root / f"{position.step:09d}"
    unfinished = root / f".{position.step:09d}.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with files.disk_errors(folder):
            unfinished.mkdir(parents=True)
            _save_weights(unfinished, network, state)
            tensors, rest = _flatten(state.optimizer)
            _save(unfinished / "optimizer.safetensors", tensors)
            facts = position._asdict() | {
                "format": "vizsla.checkpoint/1",
                "best": [best._asdict() | {"accuracy": best.accuracy._asdict()} for best in position.best],
                "sums": state.sums.tolist(),
                "recent": state.recent.tolist(),
                "micro_batch": state.micro_batch,
                "scaler": state.scaler.state_dict(),
                "optimizer": rest,
            }
            files.write_json(unfinished / "checkpoint.json", facts)
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one, which was not gone on from
            unfinished.rename(folder)
            files.fsync(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _retain(run_folder, {position.step, *(best.step for best in position.best), *keep})
    return folder


def tidy(run_folder: Path) -> None:
    """Remove what a process that was killed left of checkpoints while it wrote or deleted them."""
    for path in (run_folder / "checkpoints").glob(".*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def load(folder: Path, network: nn.Module, state: State) -> Position:
    """Put a checkpoint's weights into `network` and the rest into `state`; both exactly as they were."""
    facts = files.read_json(folder / "checkpoint.json")
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    if state.average is not None:
        state.average.restart()
        network.load_state_dict(load_file(folder / "training.safetensors"))
    _unflatten(state.optimizer, load_file(folder / "optimizer.safetensors"), facts["optimizer"])
    if facts["scaler"]:
        state.scaler.load_state_dict(facts["scaler"])
    state.step = facts["step"]
    state.micro_batch = facts["micro_batch"]
    state.sums = torch.tensor(facts["sums"], dtype=torch.float64)
    state.recent = torch.tensor(facts["recent"], dtype=torch.float64)
    best = tuple(Best(**fields | {"accuracy": metrics.Interval(**fields["accuracy"])}) for fields in facts["best"])
    return Position(facts["step"], facts["elapsed_s"], best, facts["stale"])


def restore(run: Run, folder: Path) -> Classifier:
    """The classifier of a run, in evaluation mode, with the weights of one checkpoint in the run's folder.

    Raises:
        NotFound: the checkpoint was removed meanwhile.
    """
    run_folder = folder.parents[1]
    size = (run.input.height, run.input.width)
    net = run.net(run_folder)
    network = catalogue.build(net, num_classes=len(run.labels), in_channels=run.preprocess.channels, size=size)
    try:
        weights = load_file(folder / "weights.safetensors")
    except FileNotFoundError:
        raise gone(str(int(folder.name)), checkpoints(run_folder)) from None
    network.load_state_dict(weights)
    return setup.classifier_of(run, network, run_folder).eval()


def _retain(run_folder: Path, steps: set[int]) -> None:
    for checkpoint in checkpoints(run_folder):
        if checkpoint.step not in steps:
            # Out of sight first: a process that is killed while deleting leaves no half of a checkpoint.
            unwanted = checkpoint.folder.with_name(f".{checkpoint.folder.name}.tmp")
            checkpoint.folder.rename(unwanted)
            shutil.rmtree(unwanted)


def _save_weights(folder: Path, network: nn.Module, state: State) -> None:
    with state.average.applied() if state.average is not None else contextlib.nullcontext():
        _save(folder / "weights.safetensors", _plain(network.state_dict()))
    if state.average is not None:
        _save(folder / "training.safetensors", _plain(network.state_dict()))


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, path)
    files.fsync(path)


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # Copies: safetensors takes neither channels-last memory nor tensors that share it.
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _flatten(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as named tensors, and what is left as JSON.

    Of its groups only numbers and tensors are kept: some count steps there. All else follows from the settings.
    """
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, fields in state["state"].items():
        for name, value in fields.items():
            target = tensors if isinstance(value, Tensor) else scalars
            target[f"{index}.{name}"] = value
    groups = []
    for index, group in enumerate(state["param_groups"]):
        groups.append({name: value for name, value in group.items() if isinstance(value, int | float)})
        tensors |= {f"group{index}.{name}": value for name, value in group.items() if isinstance(value, Tensor)}
    return _plain(tensors), {"groups": groups, "scalars": scalars}


def _unflatten(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    groups = [own | kept for own, kept in zip(optimizer.state_dict()["param_groups"], rest["groups"], strict=True)]
    for key, value in {**tensors, **rest["scalars"]}.items():
        index, name = key.split(".", 1)
        if index.startswith("group"):
            groups[int(index.removeprefix("group"))][name] = value
        else:
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    _match_layout(optimizer)


def _match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Lay the optimiser's tensors out in memory as their parameters, as they were when the optimiser made them."""
    for parameter, fields in optimizer.state.items():
        for name, value in fields.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                fields[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
