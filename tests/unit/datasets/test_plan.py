"""What a dataset would be, before it is built: the same as it becomes, where every file was opened."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vizsla.datasets import plan as plans
from vizsla.datasets import upload
from vizsla.datasets.dataset import Dataset
from vizsla.datasets.plan import fitted, plan
from vizsla.datasets.spec import DatasetSpec
from vizsla.errors import InvalidInput

Fill = Callable[..., Path]
Make = Callable[..., Dataset]


@pytest.fixture
def pets(tmp_path: Path, classes: Fill) -> Path:
    source = classes(tmp_path / "pets", cat=20, dog=12, emu=1)
    (source / "cat" / "notes.txt").write_text("hello")
    (source / "dog" / "copy.png").write_bytes((source / "dog" / "000.png").read_bytes())
    (source / "README.txt").write_text("hello")
    return source


@pytest.mark.parametrize("fields", [{}, {"max_per_class": 9}, {"test_percent": 20, "seed": 3}])
def test_it_is_what_the_dataset_becomes(tmp_path: Path, pets: Path, make: Make, fields: dict[str, Any]) -> None:
    fields = {"small_classes": "drop", **fields}
    told = plan(DatasetSpec(source=pets, **fields), tmp_path / "unpacked")
    made = make(pets, **fields)
    assert told.exact
    assert told.counts == made.counts
    assert (told.labels, told.found, told.rejected) == (made.labels, made.found, made.rejected)
    assert told.rejected_reasons == made.rejected_reasons
    assert told.classes == {"cat": 21, "dog": 13, "emu": 1}, "by their names alone"
    assert {(one.path, one.reason) for one in told.rejected_files} >= {("README.txt", "not in a class folder")}


def test_what_cannot_be_built_is_told_with_its_counts(tmp_path: Path, pets: Path) -> None:
    told = plan(DatasetSpec(source=pets), tmp_path / "unpacked")
    assert "'emu' has 1" in told.problem
    assert told.remedy
    assert told.counts["train"]["emu"] == 1
    with pytest.raises(InvalidInput, match="no such folder"):
        plan(DatasetSpec(source=tmp_path / "nowhere"), tmp_path / "unpacked")


def test_of_many_files_some_are_opened(tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "OPENED", 5)
    told = plan(DatasetSpec(source=pets, small_classes="drop"), tmp_path / "unpacked")
    assert (told.opened, told.exact) == (5, False)
    assert told.classes["cat"] == 21


def test_archives_are_unpacked_and_removed(tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "pets"), "zip", pets))
    spec = DatasetSpec(source=archive, small_classes="drop")
    assert plan(spec, tmp_path / "unpacked") == plan(spec.model_copy(update={"source": pets}), tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()
    monkeypatch.setattr(plans, "MAX_ARCHIVE_BYTES", 100)
    with pytest.raises(InvalidInput, match="not unpacked"):
        plan(spec, tmp_path / "unpacked")


def test_the_first_picture_as_it_would_be_kept(tmp_path: Path, draw: Callable[..., Path]) -> None:
    source = tmp_path / "wide"
    (source / "a").mkdir(parents=True)
    (source / "a" / "0.txt").write_text("no picture")
    draw(source / "a" / "1.png", size=(60, 20))
    archive = Path(shutil.make_archive(str(tmp_path / "wide"), "zip", source))
    (tmp_path / "uploads" / "1abc").mkdir(parents=True)
    shutil.move(shutil.copytree(source, tmp_path / "copy"), tmp_path / "uploads" / "1abc" / upload.PICTURES)
    record = upload.Upload(id="1abc", name="x", kind="folder", owner="ada", created_at="", size=None)
    upload.write(tmp_path / "uploads" / "1abc", record)
    shown = set()
    for path in (source, archive, Path("upload:1abc")):
        spec = DatasetSpec(source=path, width=40, height=40, resize="fill")
        image = Image.open(io.BytesIO(fitted(spec, uploads=tmp_path / "uploads")))
        assert image.size == (40, 40)
        assert image.getpixel((20, 1)) == (0, 0, 0), "padded with black"
        assert image.getpixel((20, 20)) != (0, 0, 0)
        shown.add(image.tobytes())
    assert len(shown) == 1
    large = Image.open(io.BytesIO(fitted(DatasetSpec(source=source, width=4096, height=2048))))
    assert large.size == (320, 160)
    shutil.rmtree(source / "a")
    (source / "a").mkdir()
    with pytest.raises(InvalidInput, match="no picture"):
        fitted(DatasetSpec(source=source))


def test_a_damaged_archive_has_no_first_picture(tmp_path: Path, pets: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "pets"), "zip", pets))
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(InvalidInput, match="damaged"):
        fitted(DatasetSpec(source=archive))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(InvalidInput, match="no picture"):
        fitted(DatasetSpec(source=tmp_path / "empty.zip"))


def test_where_no_file_is_a_picture_that_is_said_before_anything_is_built(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "pets" / label / f"{number}.jpg").write_text("no picture")
    told = plan(DatasetSpec(source=tmp_path / "pets"), tmp_path / "unpacked")
    assert told.problem == "None of the 6 files is a picture that can be used."
    assert "JPEG" in told.remedy
