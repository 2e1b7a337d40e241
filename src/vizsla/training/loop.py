"""The training loop: a generator of events that knows no files, database or web.

Between two events the state is whole: whoever consumes them may save it, or stop. Where several processes train
together, each consumes the same events; what they say is summed up over all at each `synced` step.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vizsla import metrics
from vizsla.errors import TrainingFailed
from vizsla.training.arithmetic import autocast
from vizsla.training.average import Average
from vizsla.training.batches import Plan, Positions, ahead, largest_share, micro_batches, share, step_seed
from vizsla.training.distributed import Group
from vizsla.training.inputs import Inputs
from vizsla.training.objective import Objective
from vizsla.training.run import Arithmetic
from vizsla.training.schedules import learning_rate
from vizsla.training.spec import TrainingSpec
from vizsla.work import LESS_MEMORY, is_out_of_memory

# What torch's batch normalisation says of one picture that has shrunk to a point.
SINGLE_REFUSED = "more than 1 value per channel"
# The loss is reported once in so many steps. Reading it makes a GPU wait until all is computed.
REPORT_EVERY = 10


class Validation(NamedTuple):
    """How the network does on the validation split."""

    loss: float
    accuracy: metrics.Interval
    balanced_accuracy: float


class Speed(NamedTuple):
    """Pictures trained on a second, over all processes, and the share of it that this one waited for their pixels."""

    pictures_per_s: float
    data_wait: float


class Stepped(NamedTuple):
    """A step was taken. `loss` is the mean since the last report; it and `speed` are None between reports."""

    step: int
    epoch: int
    learning_rate: float
    loss: float | None
    speed: Speed | None
    synced: bool
    """whether the sums of all processes are in the state, so that it may be saved"""


class Validated(NamedTuple):
    """The validation split was looked at between the ends of two epochs."""

    step: int
    epoch: float
    validation: Validation


class EpochEnded(NamedTuple):
    """All training pictures were seen once more; the validation split was looked at when it was due."""

    step: int
    epoch: int
    train_loss: float
    train_accuracy: float
    validation: Validation | None


class Halved(NamedTuple):
    """The device was out of memory: passes are of `micro_batch` pictures from now on, and the step is done again."""

    step: int
    micro_batch: int


class OutOfMemory(TrainingFailed):
    """The device was out of memory in a step that other processes take part in, or with too few pictures to halve."""

    def __init__(self, message: str, remedy: str, micro_batch: int) -> None:
        super().__init__(message, remedy=remedy)
        self.micro_batch = micro_batch
        """pictures a pass that might fit; 0 when not even one does"""


Happening = Stepped | Validated | EpochEnded | Halved


@dataclass
class Task:
    """What is trained, on what, and how."""

    spec: TrainingSpec
    plan: Plan
    module: nn.Module
    """what is trained: the network, or its head alone"""
    head: nn.Module | None
    """the part that is trained alone in the first `freeze_epochs`"""
    train: Inputs
    val: Inputs | None
    objective: Objective
    device: torch.device
    arithmetic: Arithmetic
    group: Group = field(default_factory=Group)
    rate: Callable[[float], float] | None = None
    """the learning rate by how much of the training is done, 0 to 1; None: that of the spec"""
    report_every: int = REPORT_EVERY

    @property
    def synced_every(self) -> int:
        """Steps between sums over all processes. Reading from a CPU costs nothing; a GPU would be held up."""
        return 1 if self.device.type == "cpu" else REPORT_EVERY

    @property
    def frozen_steps(self) -> int:
        """Steps in which the head is trained alone."""
        return self.spec.freeze_epochs * self.plan.steps_per_epoch

    def validates(self, step: int) -> bool:
        """Whether the validation split is looked at after this step."""
        return is_due(self.spec.val_every, step, self.plan)


def is_due(every_epochs: float, step: int, plan: Plan) -> bool:
    """Whether something that happens every so many epochs happens after `step`; at the end it always does."""
    if step == plan.total_steps:
        return True
    span = every_epochs * plan.steps_per_epoch
    return bool(span) and int(step / span + 1e-9) > int((step - 1) / span + 1e-9)


def _no_sums() -> Tensor:
    return torch.zeros(3, dtype=torch.float64)


@dataclass
class State:
    """What changes while training, beside the weights."""

    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: Average | None = None
    micro_batch: int = 0
    """pictures a pass on one device; smaller than the share of a batch after a lack of memory"""
    step: int = 0
    sums: Tensor = field(default_factory=_no_sums)
    """of the epoch so far, over all processes: loss times pictures, right answers, pictures"""
    recent: Tensor = field(default_factory=_no_sums)
    """the same since the loss was last reported"""
    own: Tensor = field(default_factory=_no_sums)
    """the same of this process, since the sums of all were last taken"""

    def sync(self, group: Group) -> None:
        """Add up what all processes did since the last time."""
        total = group.sum(self.own)
        self.sums += total
        self.recent += total
        self.own = torch.zeros_like(total)

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


def train(task: Task, state: State) -> Generator[Happening, None, None]:
    """Train from `state.step` to the end of the plan, yielding what happens.

    Raises:
        TrainingFailed: the loss is not finite any more, or not even one picture fits into the device's memory.
        OutOfMemory: the same with several processes, which have to begin again together.
    """
    plan, device, group = task.plan, task.device, task.group
    state.sums, state.recent, state.own = (t.to(device) for t in (state.sums, state.recent, state.own))
    if state.micro_batch == 0:
        passes = task.spec.accumulate * group.world
        state.micro_batch = 1 if plan.step_size <= passes else largest_share(plan.step_size, passes)
    meter = _Meter()
    shares = (rows[slice(*share(len(rows), group.rank, group.world))] for rows in plan.from_step(state.step))
    sizes = (len(rows) for rows in plan.from_step(state.step))
    batches = ahead(task.train.load, shares)
    stepper = _Stepper(task, state)
    try:
        while state.step < plan.total_steps:
            task.train.begin(state.step // plan.steps_per_epoch)
            asked = time.perf_counter()
            positions, batch = _next(batches, state.step)
            waited = time.perf_counter() - asked
            num = next(sizes)
            progress = (state.step + 0.5) / plan.total_steps
            rate = task.rate(progress) if task.rate else learning_rate(task.spec, progress)
            while not stepper.step(batch, positions, num, rate):
                yield Halved(state.step, state.micro_batch)
            meter.add(num, waited)
            epoch, left = divmod(state.step, plan.steps_per_epoch)
            report = state.step % task.report_every == 0 or left == 0
            validates = task.validates(state.step)
            saves = is_due(task.spec.checkpoint_every, state.step, plan)
            synced = report or validates or saves or state.step % task.synced_every == 0
            if synced:
                state.sync(group)
            loss = state.read_loss() if report else None
            yield Stepped(state.step, epoch + (left > 0), rate, loss, meter.read() if report else None, synced)
            validation = _validate_averaged(task, state) if validates and task.val is not None else None
            if left == 0:
                mean_loss, accuracy = _end_epoch(state)
                yield EpochEnded(state.step, epoch, mean_loss, accuracy, validation)
            elif validation is not None:
                yield Validated(state.step, state.step / plan.steps_per_epoch, validation)
            if validates or left == 0:
                meter = _Meter()
    finally:
        batches.close()


def _next(batches: Iterator[tuple[Positions, Tensor]], step: int) -> tuple[Positions, Tensor]:
    try:
        return next(batches)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingFailed(
            f"There is no memory left to load the pictures of step {step + 1}.", remedy=LESS_MEMORY
        ) from error


def _end_epoch(state: State) -> tuple[float, float]:
    loss, correct, num = state.sums.tolist()
    state.sums = torch.zeros_like(state.sums)
    return loss / num, correct / num


class _Stepper:
    """Takes steps of the optimiser, in passes that fit into memory."""

    def __init__(self, task: Task, state: State) -> None:
        self._task = task
        self._state = state
        self._frozen: bool | None = None
        # A network of the user's may hold parts that it never trains.
        self._trained = [parameter for parameter in task.module.parameters() if parameter.requires_grad]
        self._parallel: nn.Module = task.module

    def step(self, batch: Tensor, positions: Positions, num: int, rate: float) -> bool:
        """One step on this process's share of `num` pictures; False when it has to be done again in smaller passes."""
        task, state = self._task, self._state
        self._freeze(state.step < task.frozen_steps, batch)
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        sums = None
        try:
            sums = self._gradients(batch, positions, num)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        except ValueError as error:
            if state.micro_batch > 1 or SINGLE_REFUSED not in str(error):
                raise
            raise self._out_of_memory() from None
        if sums is None:  # outside of the handler: the error holds on to the tensors of the failed pass
            self._halve()
            return False
        state.scaler.unscale_(state.optimizer)
        if task.spec.clip_norm:
            nn.utils.clip_grad_norm_(task.module.parameters(), task.spec.clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        if state.average is not None:
            state.average.update(state.step)
        state.own += sums
        return True

    def _gradients(self, batch: Tensor, positions: Positions, num: int) -> Tensor:
        """Gradients of the mean loss of `num` pictures; returns the sums of this process's share of them."""
        task, state = self._task, self._state
        labels = task.train.labels[torch.from_numpy(positions)].to(task.device, non_blocking=True)
        draws = task.train.draw(num, torch.Generator().manual_seed(step_seed(task.spec.seed, state.step)))
        first, last = share(num, task.group.rank, task.group.world)
        passes = micro_batches(first, last, state.micro_batch, largest=largest_share(num, task.group.world))
        sums = torch.zeros(3, dtype=torch.float64, device=task.device)
        for start, stop in passes:
            rows = slice(start - first, stop - first)
            # Dropout and the like draw from the global generator.
            torch.manual_seed(step_seed(task.spec.seed, state.step, start))
            inputs, target = task.train.inputs(
                batch[rows], labels[rows], draws.rows(start, stop), task.objective.num_classes
            )
            # Gradients travel between processes once a step, with the last pass.
            with contextlib.nullcontext() if (start, stop) == passes[-1] else self._unsynced():
                with autocast(task.arithmetic, task.device):
                    output = self._parallel(inputs)
                losses, logits = task.objective(output, target)
                state.scaler.scale(losses.sum() * (task.group.world / num)).backward()
            with torch.no_grad():
                correct = (logits.argmax(1) == labels[rows]).sum().double()
                sums += torch.stack([losses.detach().double().sum(), correct, torch.full_like(correct, stop - start)])
        return sums

    def _freeze(self, frozen: bool, batch: Tensor) -> None:
        """Before each step: which part is in training mode; when that changes, which part has gradients."""
        task = self._task
        if frozen != self._frozen:
            self._frozen = frozen
            head = {id(parameter) for parameter in task.head.parameters()} if task.head is not None else set()
            for parameter in self._trained:
                parameter.requires_grad_(not frozen or id(parameter) in head)
            self._parallel = task.group.parallel(
                task.module,
                task.device,
                sync_batch_norm=task.spec.sync_batch_norm,
                some_idle=task.group.world > 1 and _some_idle(task, batch),
            )
        task.module.train(not frozen)
        if frozen and task.head is not None:
            task.head.train()

    def _unsynced(self) -> contextlib.AbstractContextManager[object]:
        parallel = self._parallel
        if isinstance(parallel, nn.parallel.DistributedDataParallel):
            return parallel.no_sync()
        return contextlib.nullcontext()

    def _halve(self) -> None:
        task, state = self._task, self._state
        state.optimizer.zero_grad(set_to_none=True)
        if task.device.type == "cuda":
            torch.cuda.empty_cache()
        smaller = state.micro_batch // 2
        least = 4 if task.spec.sync_batch_norm else 2 if task.spec.mixup or task.spec.cutmix else 1
        too_small = smaller < least
        if task.group.world > 1:
            raise self._out_of_memory(0 if too_small else smaller)
        if too_small:
            raise self._out_of_memory()
        state.micro_batch = smaller

    def _out_of_memory(self, smaller: int = 0) -> OutOfMemory:
        state = self._state
        message = f"The device {self._task.device} is out of memory at step {state.step + 1}"
        message += "." if smaller else f", even with {state.micro_batch} pictures at a time."
        return OutOfMemory(message, "Use smaller pictures, or a smaller network.", smaller)


def _some_idle(task: Task, batch: Tensor) -> bool:
    """Whether some of the parameters that are trained get no gradient, tried on a copy."""
    copied = copy.deepcopy(task.module).train()
    with autocast(task.arithmetic, task.device):
        output = copied(task.train.plain(batch[:2]))
    parts = [output] if isinstance(output, Tensor) else [output.logits, *output.auxiliary]
    sum((part.float().sum() for part in parts), torch.zeros((), device=task.device)).backward()
    return any(parameter.requires_grad and parameter.grad is None for parameter in copied.parameters())


def _validate_averaged(task: Task, state: State) -> Validation:
    """Validate what will be the model: the averaged weights, where there are any; in every process those of the first.

    Each has running statistics of batch norm of its own, and the first one's are saved.
    """
    averaged = state.average.buffers(task.module) if state.average is not None else []
    task.group.from_first([*task.module.buffers(), *averaged])
    # Without gradients a larger batch fits, but one that was made small to fit stays small.
    size = max(state.micro_batch, min(64, 4 * state.micro_batch))
    with state.average.applied() if state.average is not None else contextlib.nullcontext():
        return validate(task, size)


def validate(task: Task, batch_size: int) -> Validation:
    """Loss and accuracy on the validation split, in evaluation mode and without augmentation.

    Each process looks at its own part of the split, and no picture is looked at twice. A batch that does not fit into
    memory is halved.

    Raises:
        TrainingFailed: the loss is not finite, or not even one picture fits.
    """
    assert task.val is not None, "validation needs a validation split"
    task.val.begin(0)
    labels, group = task.val.labels, task.group
    first, last = share(len(labels), group.rank, group.world)
    while (found := _look_at(task, task.val, first, last, batch_size)) is None:
        if batch_size == 1:
            raise TrainingFailed(
                f"The device {task.device} is out of memory in validation, even with one picture at a time.",
                remedy="Use smaller pictures, or a smaller network.",
            )
        batch_size //= 2
    # The rows of the others are zero, so the sum puts all together.
    losses, guesses = _everywhere(task, found[0]), _everywhere(task, found[1])
    loss = float(losses.mean())
    if not np.isfinite(loss):
        raise TrainingFailed(
            "The validation loss is not a finite number any more.", remedy="Try a lower --learning-rate."
        )
    answers, truth = guesses.numpy(), labels.numpy()
    return Validation(
        loss=loss,
        accuracy=metrics.wilson(int((answers == truth).sum()), len(truth)),
        balanced_accuracy=metrics.balanced_accuracy(truth, answers, task.objective.num_classes),
    )


def _look_at(task: Task, split: Inputs, first: int, last: int, batch_size: int) -> tuple[Tensor, Tensor] | None:
    """The losses and answers of a whole split, zero outside of `first` to `last`; None when memory ran out."""
    losses = torch.zeros(len(split.labels), dtype=torch.float64)
    answers = torch.zeros(len(split.labels), dtype=torch.int64)
    spans = (np.arange(i, min(i + batch_size, last)) for i in range(first, last, batch_size))
    task.module.eval()
    batches = ahead(split.load, spans)
    try:
        for positions, batch in batches:
            with torch.inference_mode(), autocast(task.arithmetic, task.device):
                logits = task.module(split.plain(batch)).float()
            rows = torch.from_numpy(positions)
            target = split.labels[rows].to(task.device)
            losses[rows] = F.cross_entropy(logits, target, reduction="none").double().cpu()
            answers[rows] = logits.argmax(1).cpu()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        batches.close()
    return losses, answers


def _everywhere(task: Task, tensor: Tensor) -> Tensor:
    return task.group.sum(tensor.to(task.device)).cpu()


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
