"""What the tests of trainings share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support import with_shapes

import vizsla
from vizsla.store.workspace import Workspace


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """An open workspace with `shapes`: 96 train and 24 val pictures of 32 px in three classes."""
    # No copy: tests write beside the pictures that the dataset was made from.
    folder = tmp_path_factory.mktemp("flow")
    with_shapes(folder)
    with vizsla.open(folder / "workspace") as opened:
        yield opened
