"""The training loop: a generator of events that knows no files, database or web.

Between two events the state is whole: whoever consumes them may save it, or stop.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vizsla import metrics
from vizsla.errors import TrainingFailed
from vizsla.networks.classic import AUXILIARY_WEIGHT, WithAuxiliary
from vizsla.training.batches import Plan, ahead, step_seed
from vizsla.training.inputs import Inputs
from vizsla.training.precision import Precision
from vizsla.training.schedules import learning_rate
from vizsla.training.spec import TrainingSpec

# The loss is read from the device once in so many steps: reading it makes a GPU wait until all is computed.
REPORT_EVERY = 10


class Validation(NamedTuple):
    """How the network does on the validation split."""

    loss: float
    accuracy: metrics.Interval
    balanced_accuracy: float


class Speed(NamedTuple):
    """Pictures trained on a second, and the share of that second spent waiting for their pixels."""

    pictures_per_s: float
    data_wait: float


class Stepped(NamedTuple):
    """A step was taken. `loss` is the mean since the last report; it and `speed` are None between reports."""

    step: int
    epoch: int
    learning_rate: float
    loss: float | None
    speed: Speed | None


class EpochEnded(NamedTuple):
    """All training pictures were seen once more, and the validation split was looked at."""

    step: int
    epoch: int
    train_loss: float
    train_accuracy: float
    validation: Validation | None


@dataclass
class Task:
    """What is trained, on what, and how."""

    spec: TrainingSpec
    plan: Plan
    module: nn.Module
    """what the step runs in training mode: the network, or its head alone"""
    train: Inputs
    val: Inputs | None
    device: torch.device
    precision: Precision


@dataclass
class State:
    """What changes while training, beside the weights."""

    optimizer: torch.optim.Optimizer
    step: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    """of the epoch so far: loss times pictures, right answers, pictures"""
    recent: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    """the same since the loss was last reported"""

    def check_finite(self) -> None:
        """Raise `TrainingFailed` when a loss since the last report, or a weight now, is not a finite number."""
        weights = (parameter for group in self.optimizer.param_groups for parameter in group["params"])
        if not torch.isfinite(self.recent[0]) or not all(bool(torch.isfinite(weight).all()) for weight in weights):
            rate = self.optimizer.param_groups[0]["lr"]
            raise TrainingFailed(
                f"The loss is not a finite number any more (step {self.step}, learning rate {rate:.2g}).",
                remedy=f"Try a lower learning rate, such as --learning-rate {rate / 10:.1g}.",
            )

    def read_loss(self) -> float:
        """The mean loss since the last reading.

        Raises:
            TrainingFailed: it is not a finite number.
        """
        loss, _, num = self.recent.tolist()
        if not np.isfinite(loss):
            self.check_finite()
        self.recent = torch.zeros_like(self.recent)
        return float(loss / num)


def make_optimizer(spec: TrainingSpec, module: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a resolved spec. Biases and norms are not decayed (He et al. 2019, "Bag of Tricks")."""
    assert spec.learning_rate is not None, "the spec must be resolved"
    assert spec.weight_decay is not None, "the spec must be resolved"
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    match spec.optimizer:
        case "sgd":
            return torch.optim.SGD(groups, lr=spec.learning_rate, momentum=spec.momentum)
        case "adam":
            return torch.optim.Adam(groups, lr=spec.learning_rate)
        case "adamw":
            return torch.optim.AdamW(groups, lr=spec.learning_rate)


def train(task: Task, state: State) -> Generator[Stepped | EpochEnded, None, None]:
    """Train from `state.step` to the end of the plan, yielding what happens.

    Raises:
        TrainingFailed: the loss is not finite any more, or the device is out of memory.
    """
    plan, device = task.plan, task.device
    state.sums, state.recent = state.sums.to(device), state.recent.to(device)
    meter = _Meter()
    batches = ahead(task.train.load, plan.from_step(state.step))
    try:
        while state.step < plan.total_steps:
            asked = time.perf_counter()
            positions, batch = next(batches)
            waited = time.perf_counter() - asked
            rate = learning_rate(task.spec, (state.step + 0.5) / plan.total_steps)
            labels = task.train.labels[torch.from_numpy(positions)].to(device)
            step_sums = _step(task, state, batch, labels, rate)
            state.sums += step_sums
            state.recent += step_sums
            state.step += 1
            meter.add(len(positions), waited)
            epoch, left = divmod(state.step, plan.steps_per_epoch)
            report = state.step % REPORT_EVERY == 0 or left == 0
            loss = state.read_loss() if report else None
            speed = meter.read() if report else None
            yield Stepped(state.step, epoch + (left > 0), rate, loss, speed)
            if left == 0:
                yield _end_epoch(task, state, epoch)
                meter = _Meter()
    except torch.OutOfMemoryError:
        raise TrainingFailed(
            f"The device {device} is out of memory at step {state.step + 1}.",
            remedy=f"Use a smaller batch than {task.spec.batch_size}, smaller pictures, or a smaller network.",
        ) from None
    finally:
        batches.close()


def _step(task: Task, state: State, batch: Tensor, labels: Tensor, rate: float) -> Tensor:
    """One step of the optimiser; returns loss times pictures, right answers, pictures."""
    seed = step_seed(task.spec.seed, state.step)
    torch.manual_seed(seed)  # dropout and the like draw from the global generator
    random = torch.Generator().manual_seed(seed)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    task.module.train()
    with task.precision.autocast(task.device):
        output = task.train.logits(batch, random)
    loss, logits = loss_of(output, labels, task.spec.label_smoothing)
    loss.backward()
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        correct = (logits.argmax(1) == labels).sum()
        num = torch.full((), len(labels), dtype=torch.float64, device=task.device)
        return torch.stack([loss.detach().double() * num, correct.double(), num])


def loss_of(output: Tensor | WithAuxiliary, labels: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy (with GoogLeNet's auxiliary heads added as in its paper) and the main logits, in float32."""
    logits = (output.logits if isinstance(output, WithAuxiliary) else output).float()
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    if isinstance(output, WithAuxiliary):
        for extra in output.auxiliary:
            loss = loss + AUXILIARY_WEIGHT * F.cross_entropy(extra.float(), labels, label_smoothing=label_smoothing)
    return loss, logits


def _end_epoch(task: Task, state: State, epoch: int) -> EpochEnded:
    loss, correct, num = state.sums.tolist()
    state.sums = torch.zeros_like(state.sums)
    validation = validate(task) if task.val is not None else None
    return EpochEnded(state.step, epoch, loss / num, correct / num, validation)


def validate(task: Task) -> Validation:
    """Loss and accuracy on the validation split, in evaluation mode and without augmentation."""
    assert task.val is not None, "validation needs a validation split"
    labels = task.val.labels
    # Without gradients a larger batch fits, but one that was made small to fit stays small.
    batch_size = max(task.spec.batch_size, min(64, 4 * task.spec.batch_size))
    spans = (np.arange(i, min(i + batch_size, len(labels))) for i in range(0, len(labels), batch_size))
    task.module.eval()
    loss = 0.0
    predicted = []
    classes = 0
    for positions, batch in ahead(task.val.load, spans):
        with torch.inference_mode(), task.precision.autocast(task.device):
            logits = task.val.logits(batch, None).float()
        target = labels[torch.from_numpy(positions)].to(task.device)
        loss += F.cross_entropy(logits, target, reduction="sum").item()
        predicted.append(logits.argmax(1).cpu())
        classes = logits.shape[1]
    guesses, truth = torch.cat(predicted).numpy(), labels.numpy()
    if not np.isfinite(loss):
        raise TrainingFailed(
            "The validation loss is not a finite number any more.", remedy="Try a lower --learning-rate."
        )
    return Validation(
        loss=loss / len(labels),
        accuracy=metrics.wilson(int((guesses == truth).sum()), len(truth)),
        balanced_accuracy=metrics.balanced_accuracy(truth, guesses, classes),
    )


class _Meter:
    """Speed since the last report."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._num_pictures = 0
        self._waited_s = 0.0

    def add(self, num_pictures: int, waited_s: float) -> None:
        """Count one step."""
        self._num_pictures += num_pictures
        self._waited_s += waited_s

    def read(self) -> Speed:
        """The speed since the last reading."""
        seconds = time.perf_counter() - self._since
        speed = Speed(self._num_pictures / seconds, self._waited_s / seconds)
        self._since, self._num_pictures, self._waited_s = time.perf_counter(), 0, 0.0
        return speed
