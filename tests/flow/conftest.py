"""What the tests of trainings share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import draw_shapes

import vizsla
from vizsla.api import datasets, models, runs
from vizsla.models.card import Card
from vizsla.store.workspace import Workspace

TINY = vizsla.TrainingSpec(net="lenet", tune="scratch", epochs=1, batch_size=32)


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """An open workspace with `shapes`: 96 train and 24 val pictures of 32 px in three classes."""
    folder = tmp_path_factory.mktemp("flow")
    pictures = draw_shapes(folder / "pictures")
    with vizsla.open(folder / "workspace") as opened:
        datasets.create(opened, "shapes", vizsla.DatasetSpec(source=pictures, width=32, height=32, val_percent=20))
        yield opened


@pytest.fixture(scope="module")
def cards(ws: Workspace) -> list[Card]:
    """Two models of two runs."""
    return [
        models.export(ws, runs.start(ws, "shapes", TINY.model_copy(update={"seed": seed})).run.id, name=name)
        for seed, name in enumerate(("first", "the second"))
    ]


@pytest.fixture(scope="module")
def pictures(ws: Workspace, cards: list[Card]) -> list[Path]:
    """Some of those that they were trained on."""
    return sorted((ws.root.parent / "pictures").rglob("*.png"))[::7]
