"""What the tests of trainings share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support import draw_shapes

import vizsla
from vizsla.api import datasets
from vizsla.store.workspace import Workspace


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """An open workspace with `shapes`: 96 train and 24 val pictures of 32 px in three classes."""
    folder = tmp_path_factory.mktemp("flow")
    pictures = draw_shapes(folder / "pictures")
    with vizsla.open(folder / "workspace") as opened:
        datasets.create(opened, "shapes", vizsla.DatasetSpec(source=pictures, width=32, height=32, val_percent=20))
        yield opened
