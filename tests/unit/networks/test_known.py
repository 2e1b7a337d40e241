"""Tests of the names of networks that are kept in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from vizsla import files
from vizsla.errors import NotFound
from vizsla.networks import known


def test_without_a_file_every_name_may_be_one(tmp_path: Path) -> None:
    known.refuse_unknown(tmp_path / "cache", "nonsense")
    known.keep(tmp_path / "cache", ["lenet"])
    with pytest.raises(NotFound):
        known.refuse_unknown(tmp_path / "cache", "nonsense")


def test_a_name_that_is_none_is_refused_and_the_nearest_named(tmp_path: Path) -> None:
    known.keep(tmp_path / "cache", ["lenet", "resnet18"])
    for name in ("lenet", "resnet18", "resnet18.a1_in1k"):
        known.refuse_unknown(tmp_path / "cache", name)
    with pytest.raises(NotFound, match="There is no network named 'resnet19'") as refused:
        known.refuse_unknown(tmp_path / "cache", "resnet19")
    assert "Did you mean 'resnet18'" in refused.value.remedy


@pytest.mark.parametrize("kept", [{"timm": "0.0.1", "names": ["lenet"]}, [], {"timm": 3}, {"names": []}])
def test_names_of_another_timm_and_damaged_files_are_no_names(tmp_path: Path, kept: object) -> None:
    files.write_json(tmp_path / known.FILE, kept)
    known.refuse_unknown(tmp_path, "nonsense")
    known.keep(tmp_path, ["lenet"])
    with pytest.raises(NotFound):
        known.refuse_unknown(tmp_path, "nonsense")
