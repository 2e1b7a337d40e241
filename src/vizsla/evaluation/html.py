"""`report.html`: the report as one page that needs nothing else, to be opened, printed and sent to others.

The page loads nothing and runs no script; its own policy forbids both. Names of classes and files come from users:
the templates escape them, isolate their direction and cut them where they would break the layout.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
import numpy.typing as npt
from PIL import Image

from vizsla.evaluation.report import ClassFigures, ConfusionCell, Mistake, Report
from vizsla.evaluation.summary import pictures

FILE_NAME = "report.html"

# Up to this many classes the whole confusion matrix is readable; beyond it, the worst part of it is shown.
MAX_MATRIX = 40
NUM_WORST = 25
MAX_PAIRS = 50
# Up to this many classes the matrix leaves room for another card beside it.
MAX_BESIDE = 12
FIRST_MISTAKES = 12

SMALL_PX = 64
_PREVIEW_PX = 224

ROLES = {
    "held out": "held out from training",
    "chose the checkpoint": "chose the checkpoint",
    "trained on": "trained on",
}

TITLES = {
    "accuracy": ("Accuracy", "pictures that are right"),
    "top5": ("Top 5 accuracy", "true class among the five most probable"),
    "balanced_accuracy": ("Balanced accuracy", "every class weighs the same"),
    "macro_f1": ("Macro F1", "precision and recall, averaged over classes"),
    "auc": ("ROC AUC", "how well the two classes are told apart"),
}


@dataclass(frozen=True)
class Card:
    """A headline figure as it is shown; `low`, `value` and `high` place the mark on its scale."""

    title: str
    remark: str
    text: str
    low: float
    value: float
    high: float
    level: str
    interval: str
    method: str


class Shade(NamedTuple):
    """A cell of the matrix: its pictures, and how dark it is. `strong` cells need the inverse text colour."""

    num_pictures: int
    depth: float
    strong: bool
    hit: bool


class MatrixRow(NamedTuple):
    """One true class: its cells under the columns shown, those under columns not shown, and all together."""

    true: int
    cells: list[Shade]
    elsewhere: int
    total: int


class Matrix(NamedTuple):
    """The part of the confusion matrix that is shown, over the same classes in rows and columns.

    `size` names the style classes of its table; the names above the columns are upright unless it is "flat".
    """

    classes: list[int]
    rows: list[MatrixRow]
    whole: bool
    size: str


class Pair(NamedTuple):
    """Two classes that are confused, and the share of the true class that it concerns."""

    true: int
    predicted: int
    num_pictures: int
    share: float


class Shot(NamedTuple):
    """The picture of a mistake as a data URI; small ones are shown with hard pixels."""

    mistake: Mistake
    uri: str
    small: bool


def render(report: Report, pixels: list[npt.NDArray[np.uint8]]) -> str:
    """The page for `report`; `pixels` are the (H, W, C) pictures of `report.mistakes`, in their order."""
    shots = [
        Shot(mistake, _data_uri(picture), max(picture.shape[:2]) <= SMALL_PX)
        for mistake, picture in zip(report.mistakes, pixels, strict=True)
    ]
    num_right = sum(cell.num_pictures for cell in report.confusion if cell.true == cell.predicted)
    created = datetime.fromisoformat(report.created_at)
    template = _templates().get_template("report.html")
    return template.render(
        report=report,
        created=f"{created.day} {created:%B %Y}, {created:%H:%M} UTC",
        cards=cards(report),
        num_right=num_right,
        num_wrong=report.num_pictures - num_right,
        shots=shots,
        first=FIRST_MISTAKES if len(shots) > FIRST_MISTAKES + 6 else len(shots),
        matrix=matrix(report),
        role=ROLES[report.split_role],
        beside=len(report.labels) <= MAX_BESIDE,
        pairs=pairs(report),
        classes=worst_first(report.per_class),
    )


# What turns the direction of the text after it, or has no shape at all, could show a name as another one.
_HIDDEN = {
    code: f"\\u{code:04x}"
    for code in (*range(32), *range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def visible(value: object) -> object:
    """A text in which nothing is hidden; anything else as it is."""
    return value.translate(_HIDDEN) if type(value) is str else value


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"percent": percent, "duration": duration, "pictures": pictures}
    return environment


def percent(share: float, sign: str = "%") -> str:
    """A share with one decimal; what is not quite none or all never reads as "0.0" or "100.0"."""
    if share in (0, 1):
        return f"{share * 100:.0f}{sign}"
    if share > 0.9995:
        return f">99.9{sign}"
    return f"<0.1{sign}" if share < 0.0005 else f"{share * 100:.1f}{sign}"


def duration(seconds: float) -> str:
    """A time in the unit that people would say it in."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def cards(report: Report) -> list[Card]:
    """The headline figures as they are shown."""
    found = []
    for key, figure in report.headline.items():
        title, remark = TITLES[key]
        # An area is not a share of anything, so it is no percentage.
        say = (lambda share: f"{share:.3f}") if key == "auc" else percent
        found.append(
            Card(
                title=title,
                remark=remark,
                text=say(figure.value),
                low=figure.low,
                value=figure.value,
                high=figure.high,
                level=f"{figure.level:.0%}",
                interval=f"{say(figure.low).removesuffix('%')} – {say(figure.high)}",
                method=figure.method,
            )
        )
    return found


def matrix(report: Report, around: int | None = None) -> Matrix:
    """The confusion matrix; of many classes the part with the most errors.

    Args:
        around: of many classes show this one and those that it is confused with.
    """
    num_classes = len(report.labels)
    whole = num_classes <= MAX_MATRIX
    cells = [cell for cell in report.confusion if around is None or around in (cell.true, cell.predicted)]
    classes = list(range(num_classes)) if whole else most_errors(cells, num_classes, around)
    counts = {(cell.true, cell.predicted): cell.num_pictures for cell in report.confusion}
    rows = []
    for true in classes:
        total = report.per_class[true].support
        found = [counts.get((true, predicted), 0) for predicted in classes]
        shades = [_shade(n, total, true == predicted) for n, predicted in zip(found, classes, strict=True)]
        rows.append(MatrixRow(true, shades, total - sum(found), total))
    size = "wide" if len(classes) > MAX_BESIDE else "large" if len(classes) < 5 else "roomy"
    flat = " flat" if max(len(report.labels[i]) for i in classes) <= 3 else ""
    return Matrix(classes, rows, whole, size + flat)


def most_errors(cells: list[ConfusionCell], num_classes: int, around: int | None = None) -> list[int]:
    """The classes with the most errors, in the order of the labels; with `around` it, and the others that have any."""
    errors = np.zeros(num_classes, dtype=np.int64)
    for cell in cells:
        if cell.true != cell.predicted:
            errors[cell.true] += cell.num_pictures
            errors[cell.predicted] += cell.num_pictures
    worst = [int(i) for i in np.argsort(-errors, kind="stable")[:NUM_WORST]]
    if around is not None:
        worst = [around, *(i for i in worst if i != around and errors[i])][:NUM_WORST]
    return sorted(worst)


def _shade(num_pictures: int, total: int, hit: bool) -> Shade:
    rate = num_pictures / total if total else 0.0
    strong = rate > 0.5
    # No depth between 0.62 and 0.86: there, neither dark nor light text would be readable.
    depth = 0.86 + 0.14 * (2 * rate - 1) if strong else 0.1 + 0.52 * math.sqrt(2 * rate)
    return Shade(num_pictures, round(depth, 2), strong, hit)


def pairs(report: Report) -> list[Pair]:
    """The classes that are confused most often; none where the matrix shows them at a glance."""
    wrong = [cell for cell in report.confusion if cell.true != cell.predicted]
    wrong.sort(key=lambda cell: (-cell.num_pictures, cell.true, cell.predicted))
    num_classes = len(report.labels)
    if num_classes <= MAX_BESIDE:
        # About as tall as the matrix beside it; a handful of pairs is seen at a glance in the matrix itself.
        wrong = wrong[: num_classes + 2] if num_classes > 2 and len(wrong) > num_classes // 2 else []
    return [Pair(*cell, cell.num_pictures / report.per_class[cell.true].support) for cell in wrong[:MAX_PAIRS]]


def worst_first(classes: list[ClassFigures]) -> list[ClassFigures]:
    """By F1, the worst first; classes without pictures come last, for nothing is known about them."""
    return sorted(classes, key=lambda one: (one.support == 0, -1.0 if one.f1 is None else one.f1.value, -one.support))


def _data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
    buffer = io.BytesIO()
    if max(picture.size) <= SMALL_PX:
        kind = "png"
        picture.save(buffer, "PNG", optimize=True)
    else:
        kind = "jpeg"
        picture.thumbnail((_PREVIEW_PX, _PREVIEW_PX), Image.Resampling.LANCZOS)
        picture.save(buffer, "JPEG", quality=82)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
