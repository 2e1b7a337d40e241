"""A network as an SVG page: rows, blocks and branches, laid out from top to bottom in as many columns as suit a page.

The picture follows the reader's light or dark mode by itself, and holds no script and no font. Light: no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Literal, NamedTuple

Kind = Literal["conv", "linear", "attention", "norm", "act", "pool", "merge", "other"]
Shape = tuple[int, ...]

WIDEST_ROW, NARROWEST_COLUMN = 330, 310
GAP, PAD, BRANCH_GAP, SKIP, FORK, HEADER = 14, 10, 8, 18, 14, 40
MARGIN, GUTTER, TITLE = 28, 34, 74
ASPECT = 1.3
MOST_COLUMNS = 8
TEXT, SMALL = 6.9, 5.9
"""px a character, at 12 and 10.5 px"""

KEY = (
    "Each box: layer, output as channels × height × width or as tokens × channels, and number of parameters.",
    "/ 2 is a stride, × 2 so many in a row. Dashed: more connections than are drawn.",
)

STYLE = """
svg { --page:#ffffff; --ink:#1d2430; --soft:#5d6675; --line:#8a94a3; --box:#f6f7f9; --edge:#d5dae1; --block:#eef1f5;
  --conv:#3b7dd8; --linear:#8a56c9; --attention:#d0487f; --norm:#7b8794; --act:#e08a1e; --pool:#2f9e6e; --merge:#5d6675;
  --other:#9a8a5a; font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif }
@media (prefers-color-scheme: dark) { svg {
  --page:#14181f; --ink:#e6eaf0; --soft:#9ba6b5; --line:#6f7a89; --box:#232a35;
  --edge:#3a4453; --block:#1b212a; --conv:#6ba4f2; --linear:#b48ae8; --attention:#ee7dab; --norm:#93a0b0; --act:#f0aa4d;
  --pool:#56c596; --merge:#9ba6b5; --other:#c4b277 } }
.page { fill:var(--page) } .box { fill:var(--box); stroke:var(--edge) } .block { fill:var(--block); stroke:var(--edge) }
text { fill:var(--ink); font-size:12px } .soft { fill:var(--soft); font-size:10.5px } .title { font-size:20px;
  font-weight:600 } .strong { font-weight:600 } .end { text-anchor:middle } .right { text-anchor:end }
.line { fill:none; stroke:var(--line); stroke-width:1.5 } .knot { stroke-dasharray:3 3 } .head { fill:var(--line) }
.sum { fill:var(--page); stroke:var(--line); stroke-width:1.5 }
.conv { fill:var(--conv) } .linear { fill:var(--linear) }
.attention { fill:var(--attention) } .norm { fill:var(--norm) } .act { fill:var(--act) } .pool { fill:var(--pool) }
.merge { fill:var(--merge) } .other { fill:var(--other) }
"""


@dataclass(frozen=True)
class Row:
    """A layer, with the norms and activations that follow it as `details`."""

    label: str
    shape: Shape
    num_parameters: int
    kind: Kind
    details: tuple[str, ...] = ()
    count: int = 1

    def joined(self, word: Row) -> Row:
        """This row, followed by what is only a word on it."""
        count = self.num_parameters + word.num_parameters
        return replace(self, shape=word.shape, num_parameters=count, details=(*self.details, word.label, *word.details))

    def repeated(self, run: Sequence[Row | Block]) -> Row:
        """This row in place of `run`."""
        return replace(self, shape=run[-1].shape, num_parameters=_sum(run), count=len(run))

    def signature(self, *, widths: bool) -> tuple[object, ...]:
        """Equal for rows that look the same; without `widths` the number of channels does not count."""
        if widths:
            return self.label, self.details, self.kind, self.shape, self.num_parameters
        return _without_width(self.label), self.details, self.kind


@dataclass(frozen=True)
class Series:
    """One after the other. `knotted`: it has more ways through than are drawn."""

    items: Sequence[Item]
    knotted: bool = False

    @property
    def num_parameters(self) -> int:
        """Of all that is in it."""
        return _sum(self.items)

    def signature(self, *, widths: bool) -> tuple[object, ...]:
        """See `Row.signature`."""
        return tuple(item.signature(widths=widths) for item in self.items)


@dataclass(frozen=True)
class Parallel:
    """Side by side, and with `skip` a way past all of it."""

    branches: Sequence[Series]
    skip: bool

    @property
    def num_parameters(self) -> int:
        """Of all branches."""
        return _sum(self.branches)

    def signature(self, *, widths: bool) -> tuple[object, ...]:
        """See `Row.signature`."""
        return self.skip, *(branch.signature(widths=widths) for branch in self.branches)


@dataclass(frozen=True)
class Block:
    """A module drawn as a box with what is in it; `path` is its name in the network, or those of the first and last."""

    label: str
    path: str
    body: Series
    shape: Shape
    num_parameters: int
    count: int = 1
    alike: bool = True
    """whether all `count` have the widths that are drawn, which are the last one's"""

    def repeated(self, run: Sequence[Row | Block]) -> Block:
        """The last of a run of equal blocks in place of all."""
        last = run[-1]
        assert isinstance(last, Block), "a run is of one sort"
        alike = all(one.signature(widths=True) == last.signature(widths=True) for one in run)
        count = sum(one.count for one in run)
        path = f"{self.path.split(' – ')[0]} – {last.path.split(' – ')[-1]}"
        return replace(last, path=path, num_parameters=_sum(run), count=count, alike=alike)

    def signature(self, *, widths: bool) -> tuple[object, ...]:
        """See `Row.signature`."""
        return self.label, self.body.signature(widths=widths)


Item = Row | Block | Parallel | Series


def _sum(items: Sequence[Item]) -> int:
    return sum(item.num_parameters for item in items)


def _without_width(label: str) -> str:
    name, _, rest = label.partition(", ")
    return f"{name}{rest.lstrip('0123456789')}"


def svg(title: str, subtitle: str, network: Series) -> str:
    """The page. `subtitle` is one line of figures about the whole network."""
    width = max(NARROWEST_COLUMN, *(_least_width(item) for item in network.items))
    columns = _columns(network.items, width)
    height = max(_height(Series(column), width) for column in columns)
    page = _Page()
    page_width = 2 * MARGIN + len(columns) * width + (len(columns) - 1) * GUTTER
    page_width = max(
        page_width,
        round(2 * MARGIN + len(subtitle) * 6.2),
        round(2 * MARGIN + len(title) * 12),
        round(2 * MARGIN + len(KEY[0]) * SMALL),
    )
    left = (page_width - len(columns) * width - (len(columns) - 1) * GUTTER) / 2
    page.text(MARGIN, 38, title, "title")
    page.text(MARGIN, 60, subtitle, "soft")
    for number, column in enumerate(columns):
        x = left + number * (width + GUTTER)
        page.series(Series(column, network.knotted), x, TITLE + 8, width)
        if number + 1 < len(columns):
            bottom, middle = TITLE + 8 + _height(Series(column), width), x + width + GUTTER / 2
            turn, into = bottom + 12, x + width + GUTTER + width / 2
            page.route([(x + width / 2, bottom), (x + width / 2, turn), (middle, turn), (middle, TITLE - 6),
                        (into, TITLE - 6), (into, TITLE + 8)], arrow=True)  # fmt: skip
    page_height = TITLE + height + 66
    page.text(MARGIN, page_height - 28, KEY[0], "soft")
    page.text(MARGIN, page_height - 14, KEY[1], "soft")
    return page.document(title, page_width, page_height)


def _columns(items: Sequence[Item], width: float) -> list[list[Item]]:
    """The items over so many columns that the page comes nearest to `ASPECT`, as evenly as their order allows."""
    heights = [_height(item, width) + GAP for item in items]
    best: tuple[float, list[list[Item]]] | None = None
    for number in range(1, min(MOST_COLUMNS, len(items)) + 1):
        low, high = max(heights), sum(heights)
        while high - low > 1:
            middle = (low + high) / 2
            low, high = (low, middle) if len(_filled(items, heights, middle)) <= number else (middle, high)
        columns = _filled(items, heights, high)
        ratio = len(columns) * (width + GUTTER) / (high + TITLE)
        # A page should be full as well as of a good shape.
        worse = max(ratio / ASPECT, ASPECT / ratio) * len(columns) * high / sum(heights)
        if best is None or worse < best[0]:
            best = worse, columns
    assert best is not None, "a network has layers"
    return best[1]


def _filled(items: Sequence[Item], heights: Sequence[float], most: float) -> list[list[Item]]:
    columns: list[list[Item]] = [[]]
    used = 0.0
    for item, height in zip(items, heights, strict=True):
        if columns[-1] and used + height > most:
            columns.append([])
            used = 0.0
        columns[-1].append(item)
        used += height
    return columns


class _Words(NamedTuple):
    """The texts of a row."""

    label: str
    details: str
    shape: str
    parameters: str

    def fits(self, width: float) -> bool:
        """Whether two lines with a text at either end have room."""
        first = len(self.label) * TEXT + len(self.shape) * SMALL
        second = (len(self.details) + len(self.parameters)) * SMALL
        return max(first, second) + 34 <= width

    @property
    def last(self) -> str:
        """The last of three lines."""
        return " · ".join(part for part in (self.shape, self.parameters) if part)


def _words(row: Row) -> _Words:
    label = f"{row.label}  × {row.count}" if row.count > 1 else row.label
    return _Words(label, ", ".join(row.details), _size(row.shape), _count(row.num_parameters))


def _size(shape: Shape) -> str:
    return " × ".join(map(str, shape))


def _count(number: int) -> str:
    if not number:
        return ""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= 10 * size or (unit == "M" and number >= size):
            return f"{number / size:.3g} {unit}"
    return f"{number:,}"


def _least_width(item: Item) -> float:
    if isinstance(item, Row):
        words = _words(item)
        if item.kind == "merge":
            return max(120.0, 2 * (18 + max(len(words.details), len(words.shape)) * SMALL) + len(item.label) * TEXT)
        return max(92.0, 20 + max(len(words.label) * TEXT, len(words.last) * SMALL, len(words.details) * SMALL))
    if isinstance(item, Series):
        return max((_least_width(part) for part in item.items), default=0)
    if isinstance(item, Parallel):
        widths = [_least_width(branch) for branch in item.branches]
        return sum(widths) + BRANCH_GAP * (len(widths) - 1) + (2 * SKIP if item.skip else 0)
    head = max(len(_heading(item)) * TEXT, len(item.path + _count(item.num_parameters)) * SMALL + 12)
    return max(_least_width(item.body), head) + 2 * PAD


def _heading(block: Block) -> str:
    return f"{block.label}  × {block.count}" if block.count > 1 else block.label


def _height(item: Item, width: float) -> float:
    if isinstance(item, Row):
        if item.kind == "merge":
            return 22
        words, width = _words(item), min(width, WIDEST_ROW)
        if words.fits(width):
            return 38 if words.details or words.parameters else 26
        return 38 + (12 if words.details else 0)
    if isinstance(item, Series):
        return sum(_height(part, width) for part in item.items) + GAP * max(0, len(item.items) - 1)
    if isinstance(item, Parallel):
        inner = _branch_widths(item, width)
        return max(_height(b, w) for b, w in zip(item.branches, inner, strict=True)) + 2 * FORK
    return HEADER + _height(item.body, _block_width(item, width) - 2 * PAD) + PAD


def _block_width(block: Block, width: float) -> float:
    return min(width, max(_least_width(block), WIDEST_ROW))


def _branch_widths(item: Parallel, width: float) -> list[float]:
    least = [_least_width(branch) for branch in item.branches]
    spare = width - sum(least) - BRANCH_GAP * (len(least) - 1) - (2 * SKIP if item.skip else 0)
    return [one + spare / len(least) for one in least]


class _Page:
    """What has been drawn."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._boxes: list[str] = []

    def text(self, x: float, y: float, text: str, style: str = "") -> None:
        """One line; `y` is its baseline."""
        if text:
            self._boxes.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(text)}</text>')

    def route(self, points: list[tuple[float, float]], *, arrow: bool = False, knotted: bool = False) -> None:
        """A line through points, of level and upright pieces, with round corners."""
        points = [point for number, point in enumerate(points) if not number or point != points[number - 1]]
        path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
        for before, corner, after in zip(points, points[1:], points[2:], strict=False):
            for sign, other in (("L", before), ("Q", after)):
                far = abs(other[0] - corner[0]) + abs(other[1] - corner[1])
                share = min(7.0, far / 2) / far if far else 0
                x, y = (corner[i] + (other[i] - corner[i]) * share for i in (0, 1))
                path.append(
                    f"{sign}{x:.1f} {y:.1f}" if sign == "L" else f"Q{corner[0]:.1f} {corner[1]:.1f} {x:.1f} {y:.1f}"
                )
        x, y = points[-1]
        path.append(f"L{x:.1f} {y:.1f}")
        self._lines.append(f'<path class="line{" knot" if knotted else ""}" d="{" ".join(path)}"/>')
        if arrow:
            self._lines.append(f'<path class="head" d="M{x - 4:.1f} {y - 6:.1f}h8l-4 6z"/>')

    def series(self, series: Series, x: float, y: float, width: float) -> None:
        """Draw items below each other, joined by arrows."""
        middle = x + width / 2
        for number, item in enumerate(series.items):
            if number:
                arrow = not isinstance(item, Parallel)
                self.route([(middle, y - GAP), (middle, y)], arrow=arrow, knotted=series.knotted)
            self.item(item, x, y, width)
            y += _height(item, width) + GAP

    def item(self, item: Item, x: float, y: float, width: float) -> None:
        """Draw one item whose upper edge is at `y`."""
        if isinstance(item, Row):
            self._row(item, x, y, width)
        elif isinstance(item, Block):
            self._block(item, x, y, width)
        elif isinstance(item, Parallel):
            self._parallel(item, x, y, width)
        else:
            self.series(item, x, y, width)

    def _row(self, row: Row, x: float, y: float, width: float) -> None:
        if row.kind == "merge":
            self._merge(row, x + width / 2, y)
            return
        height, inner = _height(row, width), min(width, WIDEST_ROW)
        x += (width - inner) / 2
        words = _words(row)
        self._box(x, y, inner, height, style="box", radius=5)
        self._boxes.append(
            f'<rect x="{x:.1f}" y="{y + 4:.1f}" width="4" height="{height - 8:.1f}" rx="2" class="{row.kind}"/>'
        )
        self.text(x + 12, y + 17, words.label, "strong")
        if words.fits(inner):
            self.text(x + inner - 9, y + 17, words.shape, "soft right")
            self.text(x + 12, y + 31, words.details, "soft")
            self.text(x + inner - 9, y + 31, words.parameters, "soft right")
        else:
            self.text(x + 12, y + 30, words.details or words.last, "soft")
            self.text(x + 12, y + 42, words.last if words.details else "", "soft")

    def _merge(self, row: Row, middle: float, y: float) -> None:
        words = _words(row)
        half = 11.0 if len(words.label) == 1 else len(words.label) * TEXT / 2 + 8
        self._box(middle - half, y, 2 * half, 22, style="sum", radius=11)
        self.text(middle, y + 15.5, words.label, "strong end")
        self.text(middle + half + 7, y + 15, words.details or words.shape, "soft")

    def _block(self, block: Block, x: float, y: float, width: float) -> None:
        inner, height = _block_width(block, width), _height(block, width)
        x += (width - inner) / 2
        self._box(x, y, inner, height, style="block", radius=9)
        self.text(x + PAD + 2, y + 18, _heading(block), "strong")
        note = block.path if block.alike else f"{block.path} (the last one's widths)"
        fits = (len(note) + len(_count(block.num_parameters))) * SMALL + 30 < inner
        self.text(x + PAD + 2, y + 32, note if fits else block.path, "soft")
        self.text(x + inner - PAD - 2, y + 32, _count(block.num_parameters), "soft right")
        self.series(block.body, x + PAD, y + HEADER, inner - 2 * PAD)

    def _parallel(self, item: Parallel, x: float, y: float, width: float) -> None:
        middle, bottom = x + width / 2, y + _height(item, width)
        left = x + (SKIP if item.skip else 0)
        for branch, inner in zip(item.branches, _branch_widths(item, width), strict=True):
            centre, end = left + inner / 2, y + FORK + _height(branch, inner)
            self.route([(middle, y), (centre, y), (centre, y + FORK)], arrow=not isinstance(branch.items[0], Parallel))
            self.series(branch, left, y + FORK, inner)
            self.route([(centre, end), (centre, bottom), (middle, bottom)])
            left += inner + BRANCH_GAP
        if item.skip:
            lane = x + width - SKIP / 2
            self.route([(middle, y), (lane, y), (lane, bottom), (middle, bottom)])

    def _box(self, x: float, y: float, width: float, height: float, *, style: str, radius: int) -> None:
        self._boxes.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius}" class="{style}"/>'
        )

    def document(self, title: str, width: float, height: float) -> str:
        """The whole SVG. Lines are drawn over the boxes of blocks, so they come last."""
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">',
            f"<title>{escape(title)}</title><style>{STYLE}</style>",
            '<rect class="page" width="100%" height="100%"/>',
            *self._boxes,
            *self._lines,
            "</svg>",
        ]
        return "\n".join(parts) + "\n"
