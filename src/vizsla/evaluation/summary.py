"""From the answers of a whole split to the parts of a report: figures, mistakes, and warnings in plain words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vizsla import metrics
from vizsla.evaluation.report import ClassFigures, ConfusionCell, Figure, Mistake, SplitRole

NUM_MISTAKES = 48

_WIDE = 0.10
_FEW = 10
_NAMED = 5
_LONG_NAME = 40


@dataclass(frozen=True)
class Answers:
    """What the model answered for every picture of a split; arrays of n."""

    truth: metrics.Ints
    predicted: metrics.Ints
    confidence: npt.NDArray[np.float32]
    """The probability of the predicted class."""
    in_top: metrics.Bools
    """Whether the true class is among the five most probable."""
    second_class: npt.NDArray[np.float32]
    """The probability of the class at position 1, which is all that an AUC of two classes needs."""


def headline(answers: Answers, num_classes: int) -> dict[str, Figure]:
    """The figures that a report opens with, in the order in which to show them."""
    right, n = answers.truth == answers.predicted, len(answers.truth)
    figures = {"accuracy": metrics.wilson(int(right.sum()), n)}
    if num_classes > 5:
        figures["top5"] = metrics.wilson(int(answers.in_top.sum()), n)
    balanced = metrics.balanced_intervals(answers.truth, answers.predicted, num_classes)
    figures |= balanced._asdict()
    if num_classes == 2:
        area = metrics.auc(answers.second_class, answers.truth == 1)
        figures |= {"auc": area} if area else {}
    return {name: _figure(interval) for name, interval in figures.items()}


def class_figures(answers: Answers, labels: list[str]) -> list[ClassFigures]:
    """The figures of each class, in the order of `labels`."""
    found = metrics.class_intervals(answers.truth, answers.predicted, len(labels))
    return [
        ClassFigures(
            label=label,
            support=one.support,
            precision=one.precision and _figure(one.precision),
            recall=one.recall and _figure(one.recall),
            f1=one.f1 and _figure(one.f1),
        )
        for label, one in zip(labels, found, strict=True)
    ]


def confusion(answers: Answers, num_classes: int) -> list[ConfusionCell]:
    """The cells of the confusion matrix that are not 0."""
    cells = metrics.confusion_cells(answers.truth, answers.predicted, num_classes)
    return [ConfusionCell(*map(int, cell)) for cell in zip(*cells, strict=True)]


def mistakes(answers: Answers, indices: metrics.Ints, paths: list[str]) -> list[Mistake]:
    """The most confident mistakes; of equally confident ones those that come first in the split."""
    wrong = np.flatnonzero(answers.truth != answers.predicted)
    order = np.argsort(-answers.confidence[wrong], kind="stable")[:NUM_MISTAKES]
    return [
        Mistake(
            path=paths[row],
            index=int(indices[row]),
            true=int(answers.truth[row]),
            predicted=int(answers.predicted[row]),
            probability=float(answers.confidence[row]),
        )
        for row in wrong[order]
    ]


def warnings(
    split: str, role: SplitRole, accuracy: Figure, classes: list[ClassFigures], num_leaked: int = 0
) -> list[str]:
    """What a reader of the figures should know before trusting them."""
    found = []
    if role == "chose the checkpoint":
        found.append(
            f"The {split} split was also used to choose the checkpoint, so these figures are probably a little too "
            "good. For a figure to report, evaluate on a split that training never used."
        )
    if role == "trained on":
        found.append(
            f"The model learned from the pictures of the {split} split, so these figures say what it remembers, not "
            "how well it does on new pictures. For that, evaluate on a split that training never used."
        )
    if num_leaked:
        found.append(
            f"{pictures(num_leaked)} of the {split} split lie in another split of the dataset too, so these "
            "figures are too good. Remove the copies from one of the folders and build the dataset again."
        )
    if accuracy.high - accuracy.low > _WIDE:
        found.append(
            f"The intervals are wide because the split has only {pictures(accuracy.num_pictures)}: the accuracy may "
            f"well be anywhere between {accuracy.low:.0%} and {accuracy.high:.0%}."
        )
    found += _about_classes(classes)
    largest = max(classes, key=lambda one: one.support)
    share = largest.support / accuracy.num_pictures
    if len(classes) > 1 and accuracy.value <= share:
        found.append(
            f"Always answering “{_short(largest.label)}” would be right for {share:.1%} of these pictures, so the "
            f"accuracy of {accuracy.value:.1%} shows no skill by itself; look at the balanced accuracy."
        )
    return found


def pictures(count: int) -> str:
    """A number of pictures in words: "1 picture", "1,200 pictures"."""
    return f"{count:,} picture{'' if count == 1 else 's'}"


def _about_classes(classes: list[ClassFigures]) -> list[str]:
    found = []
    absent = [one.label for one in classes if one.support == 0]
    few = [one.label for one in classes if 0 < one.support < _FEW]
    if absent:
        start = "1 class has" if len(absent) == 1 else f"{len(absent):,} classes have"
        found.append(f"{start} no pictures in this split, so nothing is known about how well it does: {_list(absent)}.")
    if few:
        start = "1 class has" if len(few) == 1 else f"{len(few):,} classes have"
        found.append(f"{start} fewer than {_FEW} pictures in this split; figures by class are rough: {_list(few)}.")
    return found


def _list(names: list[str]) -> str:
    shown = ", ".join(f"“{_short(name)}”" for name in names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED:,} more"


def _short(name: str) -> str:
    return name if len(name) <= _LONG_NAME else name[: _LONG_NAME - 1] + "…"


def _figure(interval: metrics.Interval) -> Figure:
    return Figure(**interval._asdict())
