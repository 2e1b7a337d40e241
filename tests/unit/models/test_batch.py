"""What is said of the source of a prediction."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from vizsla.errors import InvalidInput
from vizsla.events import EventLog, now
from vizsla.models import batch
from vizsla.models.predictions import Request


def test_errors_speak_of_the_archive_and_not_of_where_it_was_unpacked(tmp_path: Path) -> None:
    source = tmp_path / "packed.zip"
    with zipfile.ZipFile(source, "w") as file:
        file.mkdir("pictures")
    request = Request(
        id="1",
        name="p",
        created_at=now(),
        model_folder=tmp_path,
        model_name="m",
        source=source,
        base=None,
        within=None,
        top=1,
    )
    parts = tmp_path / "parts"
    with EventLog(tmp_path / "events.jsonl") as log, pytest.raises(InvalidInput, match="no pictures") as refused:
        batch.find(request, parts, tmp_path / "uploads", ("a",), log)
    assert str(parts) not in str(refused.value)
    assert "packed.zip" in refused.value.where
