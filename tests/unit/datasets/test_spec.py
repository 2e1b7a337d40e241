"""The settings of a dataset: defaults, bounds and the sentences that the faces show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vizsla.datasets.spec import DatasetSpec


def test_defaults_are_those_of_digits() -> None:
    spec = DatasetSpec(source="/data")
    assert (spec.width, spec.height, spec.resize) == (256, 256, "squash")
    assert (spec.val_percent, spec.test_percent, spec.min_per_class, spec.max_per_class) == (25, 0, 2, None)


def test_each_field_has_one_sentence() -> None:
    for name, field in DatasetSpec.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = DatasetSpec(source="pets", val_folder="~/more")
    assert spec.source == tmp_path / "pets"
    assert spec.val_folder == Path.home() / "more"


def test_it_survives_json() -> None:
    spec = DatasetSpec(source="/data", val_folder="/val", max_per_class=9, encoding="png")
    assert DatasetSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"width": 0}, "width"),
        ({"height": 5000}, "height"),
        ({"val_percent": -1}, "val_percent"),
        ({"val_percent": 60, "test_percent": 40}, "leave nothing to train with"),
        ({"min_per_class": 5, "max_per_class": 4}, "max_per_class 4 must not be less than min_per_class 5"),
        ({"max_per_class": 0}, "max_per_class"),
        ({"seed": -1}, "seed"),
        ({"encoding": "lmdb"}, "encoding"),
        ({"folder": "/data"}, "folder"),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        DatasetSpec(**({"source": "/data"} | fields))
