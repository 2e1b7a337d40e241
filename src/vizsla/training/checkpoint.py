"""Checkpoints: safetensors and JSON, never pickle; a folder appears whole or not at all.

A checkpoint holds the weights, the optimiser's state, the position, the sums of the epoch so far and the length of
the event log. Learning rate, order of pictures and every random draw are functions of seed and step, so no generator
needs to be kept.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vizsla import files
from vizsla.networks import catalogue
from vizsla.networks.classifier import Classifier
from vizsla.training.loop import State
from vizsla.training.run import Run, checkpoints


class Best(NamedTuple):
    """The best epoch so far, by validation accuracy and then by validation loss."""

    step: int
    epoch: int
    accuracy: float
    loss: float

    def beaten_by(self, other: Best) -> bool:
        """Whether `other` is better."""
        return (other.accuracy, -other.loss) > (self.accuracy, -self.loss)


class Position(NamedTuple):
    """Where a run stands, beside weights and optimiser."""

    step: int
    best: Best | None
    elapsed_s: float
    events_bytes: int
    """length of the event log; what comes later will happen again"""


def save(run_folder: Path, network: nn.Module, state: State, position: Position) -> Path:
    """Write the checkpoint of a step, then remove those that are neither the last nor the best.

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
            _save(unfinished / "weights.safetensors", _plain(network.state_dict()))
            tensors, scalars = _flatten(state.optimizer.state_dict())
            _save(unfinished / "optimizer.safetensors", tensors)
            facts = position._asdict() | {
                "format": "vizsla.checkpoint/1",
                "best": position.best._asdict() if position.best else None,
                "sums": state.sums.tolist(),
                "recent": state.recent.tolist(),
                "optimizer": scalars,
            }
            files.write_json(unfinished / "checkpoint.json", facts)
            unfinished.rename(folder)
            files.fsync(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _retain(run_folder, {position.step, position.best.step if position.best else position.step})
    return folder


def load(folder: Path, network: nn.Module, state: State) -> Position:
    """Put a checkpoint's weights into `network` and the rest into `state`; both exactly as they were."""
    facts = files.read_json(folder / "checkpoint.json")
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    tensors = load_file(folder / "optimizer.safetensors")
    state.optimizer.load_state_dict(_unflatten(tensors, facts["optimizer"]))
    _match_layout(state.optimizer)
    state.step = facts["step"]
    state.sums = torch.tensor(facts["sums"], dtype=torch.float64)
    state.recent = torch.tensor(facts["recent"], dtype=torch.float64)
    best = Best(**facts["best"]) if facts["best"] else None
    return Position(facts["step"], best, facts["elapsed_s"], facts["events_bytes"])


def restore(run: Run, folder: Path) -> Classifier:
    """The classifier of a run, in evaluation mode, with the weights of one checkpoint."""
    size = (run.input.height, run.input.width)
    network = catalogue.build(run.spec.net, num_classes=len(run.labels), in_channels=run.preprocess.channels, size=size)
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    return Classifier(network, size=size, mean=run.input.mean, std=run.input.std).eval()


def _retain(run_folder: Path, steps: set[int]) -> None:
    for checkpoint in checkpoints(run_folder):
        if checkpoint.step not in steps:
            # Out of sight first: a process that is killed while deleting leaves no half of a checkpoint.
            unwanted = checkpoint.folder.with_name(f".{checkpoint.folder.name}.tmp")
            checkpoint.folder.rename(unwanted)
            shutil.rmtree(unwanted)


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, path)
    files.fsync(path)


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # Copies: safetensors takes neither channels-last memory nor tensors that share it.
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as named tensors, and what is left as JSON."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for index, fields in state["state"].items():
        for name, value in fields.items():
            target = tensors if isinstance(value, Tensor) else scalars
            target[f"{index}.{name}"] = value
    return _plain(tensors), {"groups": state["param_groups"], "scalars": scalars}


def _unflatten(tensors: dict[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **rest["scalars"]}.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": rest["groups"]}


def _match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Lay the optimiser's tensors out in memory as their parameters, as they were when the optimiser made them."""
    for parameter, fields in optimizer.state.items():
        for name, value in fields.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                fields[name] = torch.empty_like(parameter).copy_(value)
