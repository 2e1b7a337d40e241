"""Pictures for people, drawn with Pillow: a curve over epochs, and a contact sheet of pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Point = tuple[float, float]

PAPER, INK, FAINT, GRID, CURVE = "#ffffff", "#1c1c1c", "#666666", "#e4e4e4", "#1f5fa8"

# Curves are drawn this much larger and then reduced, since Pillow's lines have steps.
FINER = 2

TILE = 200
GAP = 12
MARGIN = 48


class Tile(NamedTuple):
    """One picture of a contact sheet: uint8 (h, w, C), and lines of text below it."""

    pixels: npt.NDArray[np.uint8]
    caption: tuple[str, ...] = ()


def curve(
    points: Sequence[Point],
    *,
    title: str,
    subtitle: str,
    x_name: str,
    mark: tuple[float, str] | None,
    x_text: Callable[[float], str] | None = None,
) -> Image.Image:
    """A chart of `points`, 1600 x 900 px, with zero on both axes.

    Args:
        points: in the order of x, none of them negative.
        mark: a place on the x axis, and what is there.
        x_text: what a tick of the x axis says; by default the number.
    """
    width, height = 1600, 900
    image = Image.new("RGB", (width * FINER, height * FINER), PAPER)
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = 170, 150, width - 60, height - 110
    x_ticks = ticks(max(x for x, _ in points), 12)
    y_ticks = ticks(max(y for _, y in points), 8)
    x_end = max(x for x, _ in points) or 1.0
    y_end = y_ticks[-1] or 1.0

    def place(x: float, y: float) -> Point:
        return (left + (right - left) * x / x_end) * FINER, (bottom - (bottom - top) * y / y_end) * FINER

    font, large = _font(24 * FINER), _font(36 * FINER)
    draw.text((left * FINER, 36 * FINER), title, INK, large)
    draw.text((left * FINER, 90 * FINER), subtitle, FAINT, font)
    for y in y_ticks:
        draw.line([place(0, y), place(x_end, y)], GRID, FINER * 2)
        x_place, y_place = place(0, y)
        draw.text((x_place - 16 * FINER, y_place), number(y), INK, font, anchor="rm")
    for x in (tick for tick in x_ticks if tick <= x_end * 1.0001):
        x_place, y_place = place(x, 0)
        draw.line([(x_place, y_place), (x_place, y_place + 10 * FINER)], INK, FINER * 2)
        draw.text((x_place, y_place + 18 * FINER), (x_text or number)(x), INK, font, anchor="ma")
    draw.text(((left + right) / 2 * FINER, (bottom + 62) * FINER), x_name, FAINT, font, anchor="ma")
    if mark is not None:
        _mark(draw, place(mark[0], 0), place(mark[0], y_end), mark[1])
    draw.line([place(0, 0), place(x_end, 0)], INK, FINER * 2)
    draw.line([place(x, y) for x, y in points], CURVE, FINER * 4, joint="curve")
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _mark(draw: ImageDraw.ImageDraw, foot: Point, head: Point, text: str) -> None:
    dash = 10 * FINER
    for start in range(int(head[1]), int(foot[1]), 2 * dash):
        draw.line([(foot[0], start), (foot[0], min(start + dash, foot[1]))], FAINT, FINER * 2)
    draw.text((head[0] + 10 * FINER, head[1] + 6 * FINER), text, FAINT, _font(22 * FINER))


def ticks(end: float, at_most: int) -> list[float]:
    """Round numbers from zero up to `end` or just past it, no more than `at_most` steps of 1, 2 or 5 times 10ⁿ."""
    if end <= 0:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(end / at_most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if end / (power * factor) <= at_most)
    # Rounded to what the step can tell apart, so that three tenths are 0.3.
    return [round(i * step, 12 - math.floor(math.log10(step))) for i in range(math.ceil(end / step - 1e-9) + 1)]


def number(value: float) -> str:
    """A number of an axis, without an exponent where it can be read so."""
    return f"{value:.7f}".rstrip("0").rstrip(".") if value == 0 or 1e-5 <= value < 1e7 else f"{value:g}"


def contact_sheet(
    rows: Sequence[Sequence[Tile]], *, title: str, subtitle: Sequence[str], heads: tuple[str, str]
) -> Image.Image:
    """Rows of pictures, the first of each set apart from the others.

    Args:
        rows: of the same number of tiles, all of one shape.
        heads: what stands above the first column, and above the others.
    """
    shown = [[_shown(tile.pixels) for tile in row] for row in rows]
    tile_width, tile_height = shown[0][0].size
    # A column is wide enough for some words.
    column = max(tile_width, 150) + GAP
    font, large = _font(20), _font(32)
    lines = max(len(tile.caption) for row in rows for tile in row)
    row_height = tile_height + lines * 26 + 2 * GAP
    start = 110 + 28 * len(subtitle) + 44
    aside = 2 * GAP
    width = 2 * MARGIN + column * len(rows[0]) - GAP + aside
    image = Image.new("RGB", (width, start + row_height * len(rows) + MARGIN // 2), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, 36), fitted(title, large, width - 2 * MARGIN), INK, large)
    for line, words in enumerate(subtitle):
        draw.text((MARGIN, 88 + 28 * line), fitted(words, font, width - 2 * MARGIN), FAINT, font)
    second = MARGIN + column + aside
    draw.text((MARGIN, start - 14), fitted(heads[0], font, column + aside - GAP), INK, font, anchor="ls")
    draw.text((second, start - 14), heads[1], INK, font, anchor="ls")
    for count, (row, pictures) in enumerate(zip(rows, shown, strict=True)):
        y = start + count * row_height
        for place, (tile, picture) in enumerate(zip(row, pictures, strict=True)):
            x = MARGIN + place * column + (aside if place else 0)
            image.paste(picture, (x, y))
            for line, text in enumerate(tile.caption):
                draw.text((x, y + tile_height + 6 + 26 * line), fitted(text, font, column - GAP), INK, font)
    return image


def fitted(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """`text` on one line, shortened by an ellipsis until it is at most `width` px long."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _shown(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """A picture of about the size of a tile; small ones keep their square pixels."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    longest = max(image.size)
    if longest <= TILE:
        times = TILE // longest
        return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    width, height = (max(1, round(side * TILE / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _font(size: int) -> ImageFont.FreeTypeFont:
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont), "Pillow is built with FreeType"
    return found
