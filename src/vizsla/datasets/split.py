"""Divide pictures among train, val and test: by class, exactly, repeatably, and never a picture and its copy apart."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vizsla.datasets.scan import Given, Split

_KEPT_APART: tuple[Given, Given] = ("val", "test")


class Item(NamedTuple):
    """A picture to be divided: its class, its path relative to its root, and the hash of its content."""

    label: str
    path: str
    content: str


class _Want(NamedTuple):
    """How many pictures of a class go to val and to test."""

    val: int
    test: int


def divide(items: Sequence[Item], *, val_percent: float, test_percent: float, seed: int) -> list[Split]:
    """The split of each item, in the order of `items`; it does not depend on that order.

    In total, `round(N * percent / 100)` pictures go to val and to test, shared out over the classes by largest
    remainder. Each class keeps a train picture, and has a val and a test one if it has two and three different
    pictures; with many small classes that may take more than the percentage. Copies of a picture within a class stay
    together, which may shift a count by a few where they are many. Within a class the order is drawn from the seed,
    the class name and the paths, so other classes do not matter to it, and an added picture moves few of the others.
    A picture whose copies stand under several classes stays in train with all of them: no figure can rest on it.
    """
    classes: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    contradictory = _contradictory(items)
    for index, item in enumerate(items):
        if item.content not in contradictory:
            classes[item.label][item.content].append(index)
    total = sum(len(group) for groups in classes.values() for group in groups.values())
    wanted = _apportion({label: classes[label] for label in sorted(classes)}, total, val_percent, test_percent)
    splits: list[Split] = ["train"] * len(items)
    for label, groups in classes.items():
        ordered = sorted((_draw(seed, label, [items[i].path for i in group]), group) for group in groups.values())
        for split, group in _deal(ordered, wanted[label], val_percent / 100, test_percent / 100):
            for index in group:
                splits[index] = split
    return splits


def _contradictory(items: Sequence[Item]) -> set[str]:
    """The contents that occur under more than one label."""
    first: dict[str, str] = {}
    return {item.content for item in items if first.setdefault(item.content, item.label) != item.label}


def order_key(seed: int, label: str, path: str) -> int:
    """A random number of 64 bits drawn from the seed, the class and the path, the same on every machine."""
    # The length keeps the class "a" with path "b/c" apart from the class "ab" with path "/c".
    text = f"{seed} {len(label)} {label}{path}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def _draw(seed: int, label: str, paths: list[str]) -> int:
    return order_key(seed, label, min(paths))


def _apportion(
    classes: Mapping[str, Mapping[str, list[int]]], total: int, val_percent: float, test_percent: float
) -> dict[str, _Want]:
    sizes = {label: sum(map(len, groups.values())) for label, groups in classes.items()}
    least_val = {label: int(val_percent > 0 and len(groups) >= 2) for label, groups in classes.items()}
    least_test = {
        label: int(test_percent > 0 and len(groups) >= 2 + least_val[label]) for label, groups in classes.items()
    }
    most_val = {label: max(least_val[label], size - 1 - least_test[label]) for label, size in sizes.items()}
    val = _largest_remainder(sizes, val_percent, round(total * val_percent / 100), least_val, most_val)
    most_test = {label: max(least_test[label], size - 1 - val[label]) for label, size in sizes.items()}
    test = _largest_remainder(sizes, test_percent, round(total * test_percent / 100), least_test, most_test)
    return {label: _Want(val[label], test[label]) for label in sizes}


def _largest_remainder(
    sizes: dict[str, int], percent: float, total: int, least: dict[str, int], most: dict[str, int]
) -> dict[str, int]:
    """Share `total` out in proportion to `sizes`, each class within its bounds; exact as far as the bounds allow."""
    quota = {label: size * percent / 100 for label, size in sizes.items()}
    seats = {label: min(max(int(quota[label]), least[label]), most[label]) for label in sizes}
    missing = total - sum(seats.values())
    step, bound = (1, most) if missing > 0 else (-1, least)
    while missing:
        open_to_change = [label for label in sizes if (bound[label] - seats[label]) * step > 0]
        if not open_to_change:
            break
        open_to_change.sort(key=lambda label: (seats[label] - quota[label]) * step)
        for label in open_to_change[: abs(missing)]:
            seats[label] += step
            missing -= step
    return seats


def _deal(
    groups: list[tuple[int, list[int]]], want: _Want, val_share: float, test_share: float
) -> list[tuple[Split, list[int]]]:
    """Give each group of copies its split: several by the draw, then single ones so that the sums are exact."""
    left: dict[Split, int] = {"val": want.val, "test": want.test, "train": sum(len(group) for _, group in groups)}
    dealt: list[tuple[Split, list[int]]] = []
    waiting: list[list[int]] = []
    singles: list[list[int]] = []
    for draw, group in groups:
        if len(group) == 1:
            singles.append(group)
            continue
        # A low draw comes first among single pictures as well, so the draw itself decides.
        chance = draw / 2**64
        split: Split = "val" if chance < val_share else "test" if chance < val_share + test_share else "train"
        if split != "train" and len(group) <= left[split]:
            left[split] -= len(group)
            dealt.append((split, group))
        else:
            waiting.append(group)
    for group in singles + sorted(waiting, key=len):
        fits: Split = next((split for split in _KEPT_APART if len(group) <= left[split]), "train")
        left[fits] -= len(group)
        dealt.append((fits, group))
    return _fill_empty(dealt, want)


def _fill_empty(dealt: list[tuple[Split, list[int]]], want: _Want) -> list[tuple[Split, list[int]]]:
    """Where copies were too many to fit, let the smallest group of train fill a split that should not be empty."""
    for split, number in zip(_KEPT_APART, want, strict=True):
        train = [group for name, group in dealt if name == "train"]
        if number and len(train) > 1 and not any(name == split for name, _ in dealt):
            smallest = min(train, key=len)
            dealt = [(split if group is smallest else name, group) for name, group in dealt]
    return dealt
