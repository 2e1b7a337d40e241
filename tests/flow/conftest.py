"""What the tests of trainings share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support import Once, with_shapes

import vizsla
from vizsla.store.workspace import Workspace


@pytest.fixture(scope="module")
def ws(once: Once) -> Iterator[Workspace]:
    """An open workspace with `shapes`: 96 train and 24 val pictures of 32 px in three classes."""
    with vizsla.open(once(with_shapes) / "workspace") as opened:
        yield opened
