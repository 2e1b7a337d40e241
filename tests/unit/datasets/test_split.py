"""Division: exact, stratified, repeatable, and copies together; tried on many random inputs."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest

from vizsla.datasets.split import Item, divide


def items(sizes: dict[str, int]) -> list[Item]:
    return [Item(label, f"{label}/{i}.png", f"{label}/{i}") for label, size in sizes.items() for i in range(size)]


def tally(pictures: list[Item], **fields: float) -> Counter[tuple[str, str]]:
    splits = divide(pictures, **({"val_percent": 0, "test_percent": 0, "seed": 0} | fields))  # type: ignore[arg-type]
    return Counter((item.label, split) for item, split in zip(pictures, splits, strict=True))


def total(counts: Counter[tuple[str, str]], split: str) -> int:
    return sum(number for (_, name), number in counts.items() if name == split)


def test_the_percentages_are_exact_in_total_and_in_each_class() -> None:
    counts = tally(items({"a": 100, "b": 50, "c": 10}), val_percent=20, test_percent=10)
    assert counts == {
        ("a", "train"): 70,
        ("a", "val"): 20,
        ("a", "test"): 10,
        ("b", "train"): 35,
        ("b", "val"): 10,
        ("b", "test"): 5,
        ("c", "train"): 7,
        ("c", "val"): 2,
        ("c", "test"): 1,
    }


def test_random_inputs_give_exact_totals_and_fair_classes() -> None:
    for seed in range(300):
        chance = random.Random(seed)
        sizes = {f"class {i}": chance.randint(12, 90) for i in range(chance.randint(2, 12))}
        val, test = chance.choice([0, 10, 20, 25, 33.3]), chance.choice([0, 10, 12.5, 30])
        counts = tally(items(sizes), val_percent=val, test_percent=test, seed=seed)
        number = sum(sizes.values())
        assert total(counts, "val") == round(number * val / 100)
        assert total(counts, "test") == round(number * test / 100)
        for label, size in sizes.items():
            assert abs(counts[label, "val"] - size * val / 100) < 1 + 1e-9
            assert abs(counts[label, "test"] - size * test / 100) < 1 + 1e-9


def test_small_classes_have_one_of_each_as_far_as_they_can() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        sizes = {f"class {i}": chance.randint(1, 6) for i in range(chance.randint(2, 8))}
        val, test = chance.choice([0, 5, 25, 60]), chance.choice([0, 5, 35])
        counts = tally(items(sizes), val_percent=val, test_percent=test, seed=seed)
        for label, size in sizes.items():
            assert counts[label, "train"] >= 1
            assert (counts[label, "val"] >= 1) == (val > 0 and size >= 2)
            assert (counts[label, "test"] >= 1) == (test > 0 and size >= (3 if val else 2))


def test_copies_stay_together_and_totals_stay_near() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        pictures = [
            Item(label, f"{label}/{i}.png", f"{label}{chance.randint(0, 60)}")
            for label in "abc"
            for i in range(chance.randint(30, 90))
        ]
        splits = divide(pictures, val_percent=20, test_percent=10, seed=seed)
        places = defaultdict(set)
        for item, split in zip(pictures, splits, strict=True):
            places[item.label, item.content].add(split)
        assert all(len(where) == 1 for where in places.values())
        assert abs(splits.count("val") - len(pictures) * 0.2) <= 3
        assert abs(splits.count("test") - len(pictures) * 0.1) <= 3


def test_a_picture_under_two_classes_stays_in_train_with_its_copies() -> None:
    pictures = items({"a": 50, "b": 50})
    pictures += [Item("b", f"b/copy {i}.png", f"a/{i}") for i in range(20)]
    splits = divide(pictures, val_percent=25, test_percent=25, seed=0)
    places = defaultdict(set)
    for item, split in zip(pictures, splits, strict=True):
        places[item.content].add(split)
    assert all(len(where) == 1 for where in places.values())
    assert all(places[f"a/{i}"] == {"train"} for i in range(20))
    assert splits.count("val") == splits.count("test") == 20


def test_a_pair_among_many_leaves_the_totals_exact() -> None:
    pictures = items({"a": 99, "b": 99})
    pictures += [pictures[0]._replace(path="a/copy.png"), pictures[100]._replace(path="b/copy.png")]
    for seed in range(50):
        counts = tally(pictures, val_percent=20, test_percent=10, seed=seed)
        assert (total(counts, "val"), total(counts, "test")) == (40, 20)


def test_copies_are_not_drawn_to_one_split() -> None:
    pictures = [Item("a", f"{i}-{copy}", str(i)) for i in range(1000) for copy in range(2 if i < 400 else 1)]
    splits = divide(pictures, val_percent=25, test_percent=0, seed=1)
    copies = [split for item, split in zip(pictures, splits, strict=True) if int(item.content) < 400]
    assert 0.18 < copies.count("val") / len(copies) < 0.32
    assert splits.count("val") == 350


def test_classes_of_copies_only() -> None:
    alike = [Item("a", f"{i}", "same") for i in range(5)]
    assert divide(alike, val_percent=25, test_percent=25, seed=0) == ["train"] * 5
    pairs = [Item("a", f"{i}", str(i // 2)) for i in range(6)]
    assert Counter(divide(pairs, val_percent=10, test_percent=10, seed=0)) == {"train": 2, "val": 2, "test": 2}


def test_the_order_of_the_items_does_not_matter_and_the_seed_does() -> None:
    pictures = items({"a": 40, "b": 30})
    options = {"val_percent": 25.0, "test_percent": 10.0}
    splits = dict(zip(pictures, divide(pictures, **options, seed=7), strict=True))
    shuffled = random.Random(0).sample(pictures, len(pictures))
    assert dict(zip(shuffled, divide(shuffled, **options, seed=7), strict=True)) == splits
    assert dict(zip(pictures, divide(pictures, **options, seed=8), strict=True)) != splits


def test_a_class_is_divided_alike_whatever_the_others_are() -> None:
    one = items({"a": 40})
    alone = divide(one, val_percent=25, test_percent=0, seed=3)
    together = divide(one + items({"b": 80, "c": 20}), val_percent=25, test_percent=0, seed=3)
    assert together[:40] == alone


def test_an_added_picture_moves_few_others() -> None:
    pictures = items({"a": 200})
    before = divide(pictures, val_percent=25, test_percent=10, seed=0)
    after = divide([*pictures, Item("a", "a/new.png", "new")], val_percent=25, test_percent=10, seed=0)
    assert sum(one != other for one, other in zip(before, after[:-1], strict=True)) <= 3


def test_the_division_is_the_same_on_every_machine_and_version() -> None:
    splits = divide(items({"a": 8, "b": 4}), val_percent=25, test_percent=25, seed=0)
    assert " ".join(splits) == "val test train val train test train train val test train train"


@pytest.mark.parametrize("number", [0, 1])
def test_nothing_and_one(number: int) -> None:
    assert divide(items({"a": number}), val_percent=50, test_percent=20, seed=0) == ["train"] * number
