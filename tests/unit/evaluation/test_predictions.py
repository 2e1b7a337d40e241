"""The rows of an evaluation: some of them, and one with those beside it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from vizsla.evaluation.predictions import FILE_NAME, Predicted, PredictionsWriter, place, read

LABELS = ["cat", " ", "a&b=c"]
NUM = 40


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures whose numbers in the dataset are not their numbers here, some of them as sure as others."""
    found = tmp_path_factory.mktemp("evaluation") / FILE_NAME
    generator = np.random.default_rng(3)
    probabilities = generator.dirichlet(np.ones(3), NUM).round(1).astype(np.float32)
    with PredictionsWriter(found, LABELS) as writer:
        for part in np.split(np.arange(NUM), 4):
            some = probabilities[part]
            truth = generator.integers(3, size=len(part))
            top = np.argsort(-some, axis=1, kind="stable")
            writer.write(Predicted(997 - 7 * part, [f"{i}.png" for i in part], truth, top, some))
    return found


@pytest.mark.parametrize(
    ("label", "predicted", "wrong", "surest"),
    list(itertools.product((None, " "), (None, "a&b=c"), (False, True), (False, True))),
)
def test_a_picture_stands_where_the_list_has_it(
    path: Path, label: str | None, predicted: str | None, wrong: bool, surest: bool
) -> None:
    wanted = {"label": label, "predicted": predicted, "wrong": wrong, "surest": surest}
    rows = read(path, **wanted, limit=NUM).rows
    numbers = [row["index"] for row in rows]
    assert len(numbers) > 1
    for at, row in enumerate(rows):
        found = place(path, row["index"], **wanted)
        assert found is not None
        assert found.row == row
        assert (found.number, found.num_pictures) == (at + 1, len(rows))
        assert found.before == (numbers[at - 1] if at else None)
        assert found.after == (numbers[at + 1] if at + 1 < len(rows) else None)
    others = {997 - 7 * i for i in range(NUM)} - set(numbers)
    assert all(place(path, index, **wanted) is None for index in (*others, 0, -1, 10**9))
