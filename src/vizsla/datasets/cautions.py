"""What to beware of in a dataset, in words for people."""

from __future__ import annotations

from vizsla.datasets.dataset import Dataset
from vizsla.datasets.stats import Copies

UNEQUAL = 10
"""times that the largest class of train has the pictures of the smallest, from which on it is said"""


def cautions(dataset: Dataset) -> list[str]:
    """What to beware of, each with an example to look at."""
    copies, conflicts, leaks = (
        dataset.statistics.duplicates,
        dataset.statistics.conflicting,
        dataset.statistics.leaked,
    )
    found = []
    if copies.count:
        found.append(f"{_files(copies.count)} there more than once, such as {_example(copies)}.")
    if conflicts.count:
        found.append(
            f"{_files(conflicts.count)} under more than one class, of which one at most is right: "
            f"{_example(conflicts)}."
        )
    if leaks.count:
        found.append(
            f"{_files(leaks.count)} in more than one split, so figures measured there flatter: {_example(leaks)}."
        )
    return found + _imbalance(dataset.counts.get("train", {}))


def _imbalance(train: dict[str, int]) -> list[str]:
    """Classes of very unequal size: a network that is often right may never name the small ones."""
    sizes = sorted((number, label) for label, number in train.items() if number)
    if not sizes or sizes[-1][0] < UNEQUAL * sizes[0][0]:
        return []
    (least, rare), (most, common) = sizes[0], sizes[-1]
    return [
        f"The classes are unequal: {common} has {most:,} pictures to train with, {rare} {least:,}. Look at the "
        "balanced accuracy, and see the setting imbalance of a training."
    ]


def _files(count: int) -> str:
    return "1 picture is" if count == 1 else f"{count:,} pictures are"


def _example(copies: Copies) -> str:
    return " = ".join(copies.examples[0][:3])
