"""Progress bars on standard error, fed by stages and by the events of workers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from vizsla.cli.output import err, safe
from vizsla.events import Event
from vizsla.words import num_bytes, percent

IN_BYTES = ("upload",)
"""stages whose progress is told in bytes"""


class _Time(TimeRemainingColumn):
    """The time that is left, or that it took, saying which."""

    def render(self, task: Task) -> Text:
        return super().render(task).append(" taken" if task.finished else " left")


class _Amount(MofNCompleteColumn):
    """How much is done of how much: a number of things, or of bytes."""

    def render(self, task: Task) -> Text:
        if task.description in IN_BYTES and task.total is not None:
            return Text(f"{num_bytes(task.completed)} of {num_bytes(task.total)}", style="progress.download")
        return super().render(task)


class Bars:
    """One bar a stage. Quiet when the output is for programs."""

    def __init__(self, *, quiet: bool, epoch_lines: bool = True) -> None:
        self._quiet = quiet
        self._epoch_lines = epoch_lines
        self._progress = Progress(
            TextColumn("[bold]{task.description:<17}"),
            BarColumn(bar_width=16),
            _Amount(),
            _Time(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
            console=err,
            disable=quiet,
            transient=False,
        )
        self._tasks: dict[str, TaskID] = {}
        self._starting: TaskID | None = None
        self._epochs = 0
        self._total_steps = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is drawn meanwhile, so that something can be asked."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()

    def stage(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` are done in a stage."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(safe(stage), total=total, note="")
        self._progress.update(self._tasks[stage], completed=done, total=total, note=note)

    def event(self, event: Event) -> None:
        """Show an event of a worker."""
        show = {
            "waiting": self._on_waiting,
            "starting": self._on_starting,
            "progress": self._on_progress,
            "notice": self._on_notice,
            "started": self._on_started,
            "extended": self._on_started,
            "resumed": self._on_resumed,
            "stopping": self._on_stopping,
            "killing": self._on_killing,
            "step": self._on_step,
            "epoch": self._on_epoch,
            "validation": self._on_epoch,
        }.get(event["event"])
        if self._quiet:
            return
        if self._starting is not None:
            self._progress.remove_task(self._starting)
            self._starting = None
        if show is not None:
            show(event)

    def plan(self, total_steps: int, epochs: int) -> None:
        """Say how long the training is, when it goes on and its `started` event lies in the past."""
        self._total_steps, self._epochs = total_steps, epochs

    def _on_waiting(self, event: Event) -> None:
        self._progress.print(f"[dim]In the queue: {safe(event['text'])}[/]", soft_wrap=True)

    def _on_starting(self, event: Event) -> None:
        # Loading torch and the network takes seconds, and nothing says how many: a bar without an end.
        self._starting = self._progress.add_task("start worker", total=None, note="")

    def _on_progress(self, event: Event) -> None:
        self.stage(event["stage"], event["done"], event["total"])

    def _on_notice(self, event: Event) -> None:
        self._progress.print(f"[yellow]{safe(event['text'])}[/]")

    def _on_started(self, event: Event) -> None:
        self.plan(event["total_steps"], event["epochs"])
        if "train" in self._tasks:  # of the run before, in a sweep
            self._progress.reset(self._tasks["train"], total=self._total_steps, note="")

    def _on_resumed(self, event: Event) -> None:
        self._progress.print(f"Goes on from step {event['step']} (it was {event['after']}).")
        if "train" in self._tasks:  # what was undone is to be done again, and took its time for nothing
            self._progress.reset(self._tasks["train"], completed=event["step"], total=self._total_steps, note="")

    def _on_stopping(self, event: Event) -> None:
        self._progress.print("[yellow]Stopping at the next safe point. Ctrl-C again kills it.[/]")

    def _on_killing(self, event: Event) -> None:
        kept = " What its last checkpoint holds is kept." if "train" in self._tasks else ""
        self._progress.print(f"[yellow]Killed.{kept}[/]")

    def _on_step(self, event: Event) -> None:
        note = f"[dim]loss {event['loss']:.3f}  {event['pictures_per_s']:,.0f} pics/s[/]"
        self.stage("train", event["step"], self._total_steps, note)

    def _on_epoch(self, event: Event) -> None:
        if self._epoch_lines:
            self._progress.print(epoch_line(event, self._epochs), soft_wrap=True)


def epoch_line(event: dict[str, Any], epochs: int) -> str:
    """One line about an epoch, or a validation between two, with its accuracy, interval and number of pictures."""
    start = f"{event['epoch']:>{len(str(epochs))}g}/{epochs}"
    if "train_loss" in event:
        start += f"  train loss {event['train_loss']:.3f}"
    if not event["val_accuracy"]:
        return f"{start}  [dim]{'not validated' if event['num_val'] else 'no val pictures'}[/]"
    best = "  [green]best[/]" if event["best_step"] == event["step"] else ""
    accuracy = f"val accuracy {percent(event['val_accuracy'])}, n {event['val_accuracy']['num_pictures']:,}"
    return f"{start}  {accuracy}{best}"
