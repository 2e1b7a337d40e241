"""Opening a dataset and its splits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from vizsla.datasets import rows
from vizsla.datasets.dataset import Dataset, open_dataset, read_images, split_arrays
from vizsla.errors import InvalidInput, NotFound

Fill = Callable[..., Path]
Make = Callable[..., Dataset]


@pytest.fixture
def folder(tmp_path: Path, classes: Fill, make: Make) -> Path:
    make(classes(tmp_path / "pets", cat=8, dog=4))
    return tmp_path / "built"


def test_a_split_as_arrays(folder: Path) -> None:
    split = split_arrays(folder, "val")
    assert split.indices.dtype == split.labels.dtype == np.int64
    assert split.labels.tolist() == [0, 0, 1]
    assert [path.split("/")[0] for path in split.paths] == ["cat", "cat", "dog"]
    assert split.paths == sorted(split.paths)
    table = {row["path"]: row["index"] for row in read_images(folder, "val").to_pylist()}
    assert [table[path] for path in split.paths] == split.indices.tolist()
    assert len(split_arrays(folder, "train").indices) == 9
    assert read_images(folder).num_rows == 12


def test_a_split_that_is_empty_or_unknown(folder: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        split_arrays(folder, "test")
    assert "The test split is empty" in caught.value.what
    assert "has train and val" in caught.value.remedy
    assert "--test-percent 20" in caught.value.remedy
    with pytest.raises(InvalidInput) as caught:
        read_images(folder, "vall")
    assert "no split 'vall'" in caught.value.what
    assert "Did you mean 'val'?" in caught.value.remedy


def test_rows_by_class_are_found_in_few_groups(
    tmp_path: Path, classes: Fill, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "GROUP_ROWS", 4)
    monkeypatch.setattr(rows, "READ_AT_ONCE", 3)
    make(classes(tmp_path / "pets", ant=9, bee=3, cat=11))
    path = tmp_path / "built" / "images.parquet"
    whole = rows.read(path).rows
    assert len(whole) == 23
    for label in (None, "ant", "bee", "cat", "dog"):
        found: list[rows.Row] = []
        place: int | None = 0
        while place is not None:
            part = rows.read(path, label=label, after=place, limit=2)
            found, place = found + part.rows, part.next
        assert found == [row for row in whole if label in (None, row.label)]
    with pq.ParquetFile(path) as file:
        read = [place for place, _ in rows._batches(file, 0, "bee")]
    assert read == [8, 11], "of six groups one"


def test_a_folder_named_like_a_column_value(tmp_path: Path, classes: Fill, make: Make) -> None:
    folder = tmp_path / "split=val" / "built"
    make(classes(tmp_path / "pets", cat=4, dog=4), folder)
    assert len(split_arrays(folder, "train").indices) == 6


def test_what_is_no_finished_dataset(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_dataset(tmp_path / "absent")
    path = folder / "dataset.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"format": "vizsla.dataset/9"}))
    with pytest.raises(InvalidInput, match=r"of format 'vizsla.dataset/9'"):
        open_dataset(folder)
    path.write_text(json.dumps(content | {"found": "many"}))
    with pytest.raises(InvalidInput, match="damaged: found"):
        open_dataset(folder)
    path.write_text("[]")
    with pytest.raises(InvalidInput, match="of format None"):
        open_dataset(folder)
    path.write_text("{")
    with pytest.raises(InvalidInput, match="not valid JSON"):
        open_dataset(folder)
    path.unlink()
    with pytest.raises(InvalidInput, match="unfinished"):
        open_dataset(folder)
