"""`vizsla run follow`: a run while it trains, seen from another terminal."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vizsla.api import runs, things
from vizsla.cli.options import Common
from vizsla.cli.output import STATE_STYLES, err, next_step, out, print_error, print_json, safe, state
from vizsla.cli.plot import Curve, Line, plot
from vizsla.cli.progress import epoch_line
from vizsla.cli.run import EXIT_STOPPED, as_json, suggest
from vizsla.events import FINAL, Event, ignore_event
from vizsla.training.run import RunStatus
from vizsla.words import seconds

EXIT_CODES = {"done": 0, "stopped": EXIT_STOPPED}
NOTICES_SHOWN = 3
MIN_PLOT_WIDTH, MIN_PLOT_HEIGHT, MAX_PLOT_HEIGHT = 36, 6, 16
MIN_BAR_WIDTH = 100


def follow(name: str, /, *, common: Common = Common()) -> int:
    """Watch a run from another terminal until it ends; Ctrl-C leaves it alone.

    The status is 0 when the run is done, 130 when it was stopped, and 1 when it failed or was lost.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        entry = things.find(ws, name, "run")
        try:
            status = _watch(entry.name, common, lambda on_event: runs.follow(ws, entry.id, on_event))
        except KeyboardInterrupt:
            if common.json:
                print_json({"left": entry.id})
                return EXIT_STOPPED
            err.print("The run was left alone.")
            next_step(["vizsla", "run", "follow", entry.name], "Follow it again:")
            return EXIT_STOPPED
        if common.json:
            print_json(as_json(status) | {"epochs": runs.epochs(ws, entry.id)})
    if not common.json:
        if status.progress.error:
            print_error(status.progress.error)
        suggest(status)
    return EXIT_CODES.get(status.progress.state, 1)


def _watch(name: str, common: Common, run: Callable[[Callable[[Event], None]], RunStatus]) -> RunStatus:
    if common.json:
        return run(ignore_event)
    if not out.is_terminal:
        lines = Lines()
        status = run(lines.event)
        out.print(f"{safe(name)}: {state(status.progress.state)}")
        return status
    view = View(name)
    with Live(view, console=out, refresh_per_second=4):
        status = run(view.event)
        view.end(status.progress.state)
    return status


class Lines:
    """A line an epoch, for a file or a pipe."""

    def __init__(self) -> None:
        self._epochs = 0

    def event(self, event: Event) -> None:
        """Print an event if it is for people."""
        match event["event"]:
            case "started" | "extended":
                self._epochs = event["epochs"]
            case "resumed":
                out.print(f"Goes on from step {event['step']} (it was {event['after']}).")
            case "waiting":
                out.print(f"In the queue: {safe(event['text'])}", soft_wrap=True)
            case "notice":
                out.print(safe(event["text"]), soft_wrap=True)
            case "epoch":
                out.print(epoch_line(event, self._epochs), soft_wrap=True)


class View:
    """The curves and figures of a run, from its events. Drawn by another thread than the one that feeds it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._state = "running"
        self._waits = ""
        self._curves = {key: Curve() for key in ("loss", "learning_rate", "val_loss", "val_accuracy")}
        self._epochs = self._total_steps = 0
        self._step: Event | None = None
        self._epoch: Event | None = None
        self._stage: Event | None = None
        self._notices: deque[str] = deque(maxlen=NOTICES_SHOWN)
        self._lock = threading.Lock()

    def event(self, event: Event) -> None:
        """Take an event in."""
        with self._lock:
            self._stage = event if event["event"] == "progress" else None
            self._state, self._waits = "running", ""
            match event["event"]:
                case "waiting":
                    self._state, self._waits = "queued", event["text"]
                case "started" | "extended":
                    self._epochs, self._total_steps = event["epochs"], event["total_steps"]
                case "notice":
                    self._notices.append(event["text"])
                case "resumed":
                    self._undo(event["step"])
                case "step":
                    self._step = event
                    self._add(event, "loss", "learning_rate")
                case "validation" | "epoch":
                    self._epoch = event if event["event"] == "epoch" else self._epoch
                    self._add(event, "val_loss", "val_accuracy")

    def end(self, state: str) -> None:
        """Say what the run has become."""
        with self._lock:
            self._state, self._stage = state, None

    def _add(self, event: Event, *keys: str) -> None:
        for key in keys:
            value = event.get(key)
            if value is not None:
                self._curves[key].add(event["step"], value["value"] if key == "val_accuracy" else value)

    def _undo(self, step: int) -> None:
        for curve in self._curves.values():
            curve.undo(step)
        if self._step and self._step["step"] > step:
            self._step = self._step | {"step": step}
        if self._epoch and self._epoch["step"] > step:
            self._epoch = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Any:
        with self._lock:
            yield self._head(options.max_width)
            yield self._plots(options.max_width, options.size.height)
            yield Group(*self._foot())

    def _head(self, width: int) -> RenderableType:
        step = self._step["step"] if self._step else 0
        epoch = self._step["epoch"] if self._step else 0
        counted = f"epoch {epoch}/{self._epochs}  step {step:,}/{self._total_steps:,}" if self._total_steps else ""
        cells: list[RenderableType] = [f"[bold]{safe(self._name)}[/]", state(self._state), counted]
        if width >= MIN_BAR_WIDTH:
            style = STATE_STYLES[self._state]
            bar = ProgressBar(self._total_steps or 1, step, width=24, complete_style=style, finished_style=style)
            cells.append(bar)
        head = Table.grid(padding=(0, 2))
        for cell in cells:
            head.add_column(no_wrap=not isinstance(cell, ProgressBar))
        head.add_row(*cells)
        return head

    def _plots(self, width: int, height: int) -> RenderableType:
        """As many plots beside each other as there is room for."""
        per_row = max(1, min(3, width // MIN_PLOT_WIDTH))
        plot_rows = -(-3 // per_row)
        room = height - 5 - NOTICES_SHOWN
        size = max(MIN_PLOT_HEIGHT, min(MAX_PLOT_HEIGHT, room // plot_rows))
        if size * plot_rows > room:  # a small terminal shows what fits: the loss first
            plot_rows = max(1, room // size)
        points = {key: curve.points for key, curve in self._curves.items()}
        last_step = max([1.0, *(line[-1][0] for line in points.values() if line)])
        loss = [Line("train loss", "cyan", points["loss"])]
        loss += [Line("val loss", "magenta", points["val_loss"])] if points["val_loss"] else []
        kinds: list[tuple[list[Line], Callable[[float], str]]] = [
            (loss, "{:.3g}".format),
            ([Line("val accuracy", "green", points["val_accuracy"])], lambda value: f"{100 * value:.1f} %"),
            ([Line("learning rate", "default", points["learning_rate"])], "{:.1e}".format),
        ]
        made = [
            plot(lines, width=width // per_row - 1, height=size, last_step=last_step, number=number)
            for lines, number in kinds[: per_row * plot_rows]
        ]
        grid = Table.grid(expand=True)
        for _ in range(per_row):
            grid.add_column(ratio=1)
        for start in range(0, len(made), per_row):
            grid.add_row(*made[start : start + per_row])
        return grid

    def _foot(self) -> list[RenderableType]:
        lines: list[RenderableType] = []
        if self._stage:
            lines.append(Text(f"{self._stage['stage']}: {self._stage['done']:,} of {self._stage['total']:,}"))
        elif self._step:
            lines.append(Text("   ".join(self._figures(self._step))))
        else:
            starts = "The worker starts." if self._state == "running" else self._waits
            lines.append(Text(starts))
        if self._epoch:
            lines.append(Text.from_markup(epoch_line(self._epoch, self._epochs)))
        lines += [Text(text, style="yellow", no_wrap=True, overflow="ellipsis") for text in self._notices]
        return lines

    def _figures(self, step: Event) -> list[str]:
        trained = f"trained {seconds(step['elapsed_s'])}"
        if self._state in (*FINAL, "lost"):
            return [trained]
        left = step.get("eta_s")
        if left is None and step["step"]:
            left = step["elapsed_s"] / step["step"] * max(0, self._total_steps - step["step"])
        figures = [f"{step['pictures_per_s']:,.0f} pictures/s", f"{100 * step['data_wait']:.0f} % waiting for data"]
        if step.get("memory_mb") is not None:
            figures.append(f"{step['memory_mb']:,.0f} MB")
        if step.get("device_memory_mb") is not None:
            figures.append(f"{step['device_memory_mb']:,.0f} MB on the device")
        if step.get("device_use") is not None:
            figures.append(f"device {100 * step['device_use']:.0f} % busy")
        if step.get("device_temperature_c") is not None:
            figures.append(f"{step['device_temperature_c']:.0f} °C, {step['device_power_w']:.0f} W")
        return [*figures, trained, *([f"about {seconds(left)} left"] if left is not None else [])]
