"""What a folder and a server are asked alike."""

from __future__ import annotations

from pathlib import Path

import pytest

import vizsla
from vizsla.api import datasets
from vizsla.errors import InvalidInput


def test_a_negative_limit_is_refused_wherever_the_things_are(tmp_path: Path) -> None:
    with vizsla.open(tmp_path / "workspace") as ws, vizsla.connect("http://127.0.0.1:9") as server:
        for at in (ws, server):
            with pytest.raises(InvalidInput, match="The limit -1 is negative"):
                datasets.list_all(at, limit=-1)
