"""A store on each of the databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from vizsla.store.queries import Server, Store


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | Server:
    """A database that does not hold anything yet."""
    if request.param == "sqlite":
        return tmp_path / "v.db"
    return Server(make_url(request.getfixturevalue("database")), "1abc", tmp_path)


@pytest.fixture
def store(where: Path | Server) -> Iterator[Store]:
    opened = Store(where)
    yield opened
    opened.close()
