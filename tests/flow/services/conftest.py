"""What the tests of services share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import Once, with_models

import vizsla
from vizsla.api import models
from vizsla.models.card import Card
from vizsla.store.workspace import Workspace


@pytest.fixture(scope="module")
def ws(once: Once) -> Iterator[Workspace]:
    """An open workspace with two models of `shapes`."""
    with vizsla.open(once(with_models) / "workspace") as opened:
        yield opened


@pytest.fixture(scope="module")
def cards(ws: Workspace) -> list[Card]:
    """The models, the older one first."""
    return [models.get(ws, name) for name in ("first", "the second")]


@pytest.fixture(scope="module")
def pictures(ws: Workspace) -> list[Path]:
    """Some of those that they were trained on."""
    return sorted((ws.root.parent / "pictures").rglob("*.png"))[::7]
