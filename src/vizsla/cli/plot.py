"""Curves in the terminal, drawn in braille: two by four dots a character, in the terminal's own colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from rich.text import Text

MAX_POINTS = 2048
LABEL_WIDTH = 8

Points = list[tuple[float, float]]

BLOCKS = "▁▂▃▄▅▆▇█"

# The bit of each dot of a braille character, by row and column (Unicode 2800 to 28FF).
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


class Curve:
    """Points (step, value) in bounded memory: of a long run neighbours are averaged, always the same number."""

    def __init__(self) -> None:
        self._points: Points = []
        self._pending: Points = []
        self._stride = 1

    def add(self, step: float, value: float) -> None:
        """Append a point; steps never go back, but by `undo`."""
        self._pending.append((step, value))
        if len(self._pending) == self._stride:
            self._points.append(_mean(self._pending))
            self._pending = []
        if len(self._points) == MAX_POINTS:
            self._points = [_mean(self._points[i : i + 2]) for i in range(0, MAX_POINTS, 2)]
            self._stride *= 2

    def undo(self, step: float) -> None:
        """Forget what came after `step`."""
        self._points = [point for point in self._points if point[0] <= step]
        self._pending = [point for point in self._pending if point[0] <= step]

    @property
    def points(self) -> Points:
        """What there is to draw."""
        return [*self._points, _mean(self._pending)] if self._pending else self._points


def sparkline(values: Sequence[float], width: int = 32, *, highest: float | None = None) -> str:
    """A curve of blocks from 0 up, a line high; more values than `width` are averaged.

    Args:
        highest: what fills a line, instead of the largest of the values.
    """
    if not values:
        return ""
    columns = min(width, len(values))
    edges = [len(values) * column // columns for column in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    top = highest or max(means) or 1.0
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(len(BLOCKS) * max(0.0, mean) / top))] for mean in means)


def _mean(points: Points) -> tuple[float, float]:
    # The step is the last one: what is undone after it does not touch this point.
    return points[-1][0], sum(value for _, value in points) / len(points)


class Line(NamedTuple):
    """A curve of a plot."""

    label: str
    style: str
    points: Points


def plot(
    lines: Sequence[Line],
    *,
    width: int,
    height: int,
    last_step: float,
    number: Callable[[float], str] = "{:.3g}".format,
) -> Text:
    """Lines over steps 0 to `last_step` in one picture of `width` x `height` characters, labels included.

    Args:
        number: a value of the vertical axis as text.
    """
    values = [value for line in lines for _, value in line.points]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    columns, rows = max(1, width - LABEL_WIDTH - 1), max(1, height - 3)
    canvas: dict[tuple[int, int], tuple[int, str]] = {}
    for line in lines:
        for x, y in _dots(line.points, (2 * columns - 1) / (last_step or 1), low, high, 4 * rows - 1):
            bits = canvas.get((y // 4, x // 2), (0, ""))[0]
            canvas[y // 4, x // 2] = (bits | DOTS[y % 4][x % 2], line.style)
    text = Text(no_wrap=True, overflow="crop")
    text.append(" " * (LABEL_WIDTH + 1))
    for line in lines:
        text.append(f"{line.label}  ", style=line.style)
    labels = {0: number(high), rows - 1: number(low)} if values else {}
    for row in range(rows):
        text.append(f"\n{labels.get(row, ''):>{LABEL_WIDTH - 1}} ", style="dim")
        text.append("┤" if row in labels else "│", style="dim")
        for column in range(columns):
            bits, style = canvas.get((row, column), (0, ""))
            text.append(chr(0x2800 + bits) if bits else " ", style=style)
    text.append(f"\n{' ' * LABEL_WIDTH}└{'─' * columns}\n", style="dim")
    text.append(f"{' ' * LABEL_WIDTH} 0{f'step {last_step:,.0f}':>{columns - 1}}", style="dim")
    return text


def _dots(points: Points, per_step: float, low: float, high: float, bottom: int) -> list[tuple[int, int]]:
    """The dots (column, row) of a line; the values that fall into one column are averaged."""
    by_column: dict[int, list[float]] = {}
    for step, value in points:
        by_column.setdefault(round(step * per_step), []).append(value)
    scale = bottom / (high - low) if high > low else 0.0
    corners = [(x, round((high - sum(ys) / len(ys)) * scale)) for x, ys in by_column.items()]
    dots = corners[:1]
    for (x0, y0), (x1, y1) in pairwise(corners):
        num = max(x1 - x0, abs(y1 - y0))
        dots += [(x0 + round(i * (x1 - x0) / num), y0 + round(i * (y1 - y0) / num)) for i in range(1, num + 1)]
    return dots
