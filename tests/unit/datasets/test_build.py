"""Building: the counts reconcile, each error says what to do, and nothing half-done looks done."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vizsla import files
from vizsla.datasets import read
from vizsla.datasets.build import build
from vizsla.datasets.dataset import Dataset, open_dataset, read_images, split_arrays
from vizsla.datasets.spec import DatasetSpec
from vizsla.datasets.store import PixelStore
from vizsla.errors import Conflict, DiskFull, InvalidInput

Fill = Callable[..., Path]
Draw = Callable[..., Path]
Make = Callable[..., Dataset]
Shared = Callable[[str], Path]


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in read_images(folder).to_pylist()}


def reconcile(dataset: Dataset, folder: Path) -> None:
    """Every file found is used or rejected, in each of the places that say so."""
    table = read_images(folder).to_pylist()
    used = [row for row in table if row["reason"] is None]
    assert dataset.found == len(table) == dataset.used + dataset.rejected
    assert dataset.used == len(used) == sum(sum(labels.values()) for labels in dataset.counts.values())
    assert dataset.rejected_reasons == Counter(row["reason"] for row in table if row["reason"])
    counted = Counter((row["split"], row["label"]) for row in used)
    assert {(s, c): n for s, labels in dataset.counts.items() for c, n in labels.items() if n} == counted
    assert all(row["index"] is not None and row["sha256"] and row["bytes"] for row in used)
    assert all(row["index"] is None and row["split"] is None for row in table if row["reason"])
    indices = [row["index"] for row in used]
    assert len(set(indices)) == len(indices)
    assert open_dataset(folder) == dataset


def test_a_small_dataset_in_full(tmp_path: Path, classes: Fill, make: Make) -> None:
    source = classes(tmp_path / "pets", cat=20, dog=12)
    (source / "cat" / "notes.txt").write_text("hello")
    (source / "dog" / "cut.png").write_bytes((source / "dog" / "000.png").read_bytes()[:150])
    (source / "dog" / "empty.jpg").touch()
    (source / "README.txt").write_text("hello")
    dataset = make(source, test_percent=12.5, resize="crop")
    folder = tmp_path / "built"
    reconcile(dataset, folder)
    assert (dataset.id, dataset.name, dataset.labels, dataset.encoding) == ("1abc", "a name", ["cat", "dog"], "raw")
    assert dataset.counts["val"] == {"cat": 5, "dog": 3}
    assert sum(dataset.counts["test"].values()) == 4
    assert dataset.rejected_reasons == {
        "not in a class folder": 1,
        "not a picture": 1,
        "truncated PNG": 1,
        "empty file": 1,
    }
    assert (dataset.found, dataset.used, dataset.rejected) == (36, 32, 4)
    assert dataset.preprocess.model_dump() == {
        "width": 8,
        "height": 6,
        "channels": 3,
        "resize": "crop",
        "interpolation": "bicubic",
    }
    store = PixelStore.open(folder / "pixels")
    for path, row in rows(folder).items():
        if row["reason"] is None:
            assert (store.read([row["index"]])[0] == dataset.preprocess.to_array(source / path)).all()
            assert (row["width"], row["height"], row["root"]) == (12, 9, "source")
            assert row["bytes"] == (source / path).stat().st_size
            assert row["sha256"] == files.sha256(source / path)


def test_the_statistics_are_those_of_the_train_split(tmp_path: Path, classes: Fill, draw: Draw, make: Make) -> None:
    source = classes(tmp_path / "pets", cat=9, dog=9)
    draw(source / "cat" / "wide.png", size=(100, 20))
    dataset = make(source)
    folder = tmp_path / "built"
    train = PixelStore.open(folder / "pixels").read(split_arrays(folder, "train").indices) / 255
    assert np.allclose(dataset.statistics.mean, train.mean(axis=(0, 1, 2)))
    assert np.allclose(dataset.statistics.std, train.std(axis=(0, 1, 2)))
    mean = np.load(folder / "mean.npy")
    assert mean.dtype == np.float32
    assert np.allclose(mean, 255 * train.mean(axis=0), atol=1e-3)
    with Image.open(folder / "mean.png") as image:
        assert image.size == (8, 6)
        assert np.abs(np.asarray(image) - mean).max() <= 0.51
    assert dataset.statistics.width.model_dump() == {"min": 12, "median": 12, "max": 100}
    assert dataset.statistics.height.model_dump() == {"min": 9, "median": 9, "max": 20}
    written = [path for path in folder.rglob("*") if path.is_file() and path.name != "dataset.json"]
    assert dataset.statistics.disk_bytes == sum(path.stat().st_size for path in written)


def test_real_lesions_with_one_pair_of_copies(tmp_path: Path, shared: Shared, make: Make) -> None:
    dataset = make(shared("isic_thumbs"), width=24, height=24, val_percent=20, test_percent=10, seed=5)
    reconcile(dataset, tmp_path / "built")
    assert dataset.used == 550
    assert sum(dataset.counts["val"].values()) == 110
    assert sum(dataset.counts["test"].values()) == 55
    pair = ["malignant/ISIC_0000279.jpg", "malignant/ISIC_0000280.jpg"]
    assert dataset.statistics.duplicates.model_dump() == {"count": 1, "examples": [pair]}
    assert dataset.statistics.leaked.count == dataset.statistics.conflicting.count == 0
    found = rows(tmp_path / "built")
    assert found[pair[0]]["split"] == found[pair[1]]["split"]


def test_real_digits_are_grey_and_their_test_folder_is_the_test(tmp_path: Path, shared: Shared, make: Make) -> None:
    dataset = make(shared("mnist_2500"), width=28, height=28)
    reconcile(dataset, tmp_path / "built")
    assert dataset.preprocess.channels == 1
    assert {split: sum(labels.values()) for split, labels in dataset.counts.items()} == {
        "train": 1500,
        "val": 500,
        "test": 500,
    }
    path = next(shared("mnist_2500").glob("test/7/*.png"))
    row = rows(tmp_path / "built")[f"test/7/{path.name}"]
    with Image.open(path) as image:
        stored = PixelStore.open(tmp_path / "built" / "pixels").read([row["index"]])[0, :, :, 0]
        assert (stored == np.asarray(image)).all()


def test_real_dogs_keep_their_val_folder(tmp_path: Path, shared: Shared, make: Make) -> None:
    dataset = make(shared("dogs10"), width=32, height=24, test_percent=10, max_per_class=12)
    reconcile(dataset, tmp_path / "built")
    assert dataset.preprocess.channels == 3
    assert set(dataset.counts["val"].values()) == {12}
    assert sum(dataset.counts["test"].values()) == 12
    assert sum(dataset.counts["train"].values()) == 108
    assert dataset.rejected_reasons == {"over the limit of 12 a class": 1500 - 240}


def test_copies_conflicts_and_leaks_are_counted(tmp_path: Path, classes: Fill, draw: Draw, make: Make) -> None:
    source = classes(tmp_path / "pets", cat=8, dog=8)
    shutil.copy(source / "cat" / "000.png", source / "cat" / "copy.png")
    shutil.copy(source / "cat" / "001.png", source / "dog" / "wrong.png")
    test = classes(tmp_path / "more", cat=2, dog=2)
    shutil.copy(source / "dog" / "002.png", test / "dog" / "seen.png")
    dataset = make(source, test_folder=test, val_percent=0)
    reconcile(dataset, tmp_path / "built")
    statistics = dataset.statistics
    assert (statistics.duplicates.count, statistics.conflicting.count, statistics.leaked.count) == (3, 1, 1)
    assert statistics.conflicting.examples == [["cat/001.png", "dog/wrong.png"]]
    assert statistics.leaked.examples == [["dog/002.png", "test_folder/dog/seen.png"]]
    assert dataset.counts["test"] == {"cat": 2, "dog": 3}
    table = read_images(tmp_path / "built", "test").to_pylist()
    assert {row["root"] for row in table} == {"test"}


def test_the_fingerprint_is_of_the_pictures_and_not_of_the_place(tmp_path: Path, classes: Fill, make: Make) -> None:
    source = classes(tmp_path / "pets", cat=8, dog=8)
    shutil.copytree(source, tmp_path / "elsewhere" / "animals")
    first = make(source, tmp_path / "1")
    again = make(tmp_path / "elsewhere" / "animals", tmp_path / "2", encoding="png")
    assert first.fingerprint == again.fingerprint
    assert first.counts == again.counts
    one, other = rows(tmp_path / "1"), rows(tmp_path / "2")
    assert {path: row["split"] for path, row in one.items()} == {path: row["split"] for path, row in other.items()}
    assert make(source, tmp_path / "3", seed=1).fingerprint != first.fingerprint
    assert make(source, tmp_path / "4", width=9).fingerprint != first.fingerprint
    shutil.copy(source / "cat" / "001.png", source / "cat" / "002.png")
    assert make(source, tmp_path / "5").fingerprint != first.fingerprint


def test_raw_and_png_are_identical_and_jpeg_is_close(tmp_path: Path, shared: Shared, make: Make) -> None:
    pictures = {}
    for encoding in ("raw", "png", "jpeg"):
        folder = tmp_path / encoding
        dataset = make(shared("dogs10"), folder, width=48, height=48, max_per_class=4, encoding=encoding)
        assert dataset.encoding == encoding
        pictures[encoding] = PixelStore.open(folder / "pixels").read(split_arrays(folder, "train").indices)
    assert (pictures["raw"] == pictures["png"]).all()
    assert 0 < np.abs(pictures["jpeg"].astype(int) - pictures["raw"]).mean() < 6


@pytest.mark.parametrize(("asked", "channels"), [("auto", 1), ("grey", 1), ("colour", 3)])
def test_grey_pictures_of_any_mode(tmp_path: Path, make: Make, asked: str, channels: int) -> None:
    for index in range(4):
        grey = Image.fromarray(np.full((9, 12), index * 50, np.uint8))
        for label, mode in (("a", "L"), ("b", "RGB")):
            (tmp_path / "grey" / label).mkdir(parents=True, exist_ok=True)
            grey.convert(mode).save(tmp_path / "grey" / label / f"{index}.png")
    dataset = make(tmp_path / "grey", colour=asked)
    assert dataset.preprocess.channels == channels
    assert PixelStore.open(tmp_path / "built" / "pixels").shape[3] == channels


def test_one_coloured_picture_in_the_sample_makes_colour(tmp_path: Path, classes: Fill, make: Make) -> None:
    source = classes(tmp_path / "pets", a=1, b=3)
    (source / "a" / "broken.png").write_bytes(b"\x89PNG")
    for index in range(3):
        Image.new("L", (9, 9), index).save(source / "a" / f"grey{index}.png")
    assert make(source).preprocess.channels == 3


def test_small_classes_stop_the_build_or_are_dropped(tmp_path: Path, classes: Fill, make: Make) -> None:
    source = classes(tmp_path / "pets", cat=6, dog=6, emu=1)
    (source / "fox").mkdir()
    (source / "emu" / "notes.txt").write_text("hello")
    with pytest.raises(InvalidInput) as caught:
        make(source, tmp_path / "1")
    assert "needs 2 usable pictures to train with: 'emu' has 1, 'fox' has 0" in caught.value.what
    assert "Add pictures" in caught.value.remedy
    assert "--small-classes drop" in caught.value.remedy
    assert not (tmp_path / "1" / "dataset.json").exists()
    dataset = make(source, tmp_path / "2", small_classes="drop")
    reconcile(dataset, tmp_path / "2")
    assert dataset.labels == ["cat", "dog"]
    assert dataset.rejected_reasons == {"class dropped: fewer than 2 usable pictures": 1, "not a picture": 1}
    with pytest.raises(InvalidInput, match="1 of 4 is left"):
        make(classes(source, cat=9), tmp_path / "3", small_classes="drop", min_per_class=8)


def test_a_dropped_class_is_dropped_from_the_val_folder_too(tmp_path: Path, classes: Fill, make: Make) -> None:
    source, val = classes(tmp_path / "pets", cat=6, dog=6, emu=1), classes(tmp_path / "val", cat=1, emu=5)
    dataset = make(source, val_folder=val, small_classes="drop")
    reconcile(dataset, tmp_path / "built")
    assert dataset.counts["val"] == {"cat": 1, "dog": 0}
    assert dataset.rejected == 6


def test_pictures_that_are_all_broken(tmp_path: Path, make: Make) -> None:
    for label in "ab":
        (tmp_path / "bad" / label).mkdir(parents=True)
        for index in range(4):
            (tmp_path / "bad" / label / f"{index}.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    with pytest.raises(InvalidInput) as caught:
        make(tmp_path / "bad")
    assert "None of the 8 files" in caught.value.what
    assert "a/0.jpg: truncated or broken JPEG" in caught.value.remedy
    assert not (tmp_path / "built" / "dataset.json").exists()


def test_the_limit_a_class_takes_usable_pictures_of_each_folder(tmp_path: Path, classes: Fill, make: Make) -> None:
    source, val = classes(tmp_path / "pets", cat=60, dog=3), classes(tmp_path / "val", cat=9, dog=2)
    for index in range(0, 60, 2):
        (source / "cat" / f"{index:03d}.png").write_bytes(b"broken")
    dataset = make(source, tmp_path / "1", val_folder=val, max_per_class=5)
    reconcile(dataset, tmp_path / "1")
    assert dataset.counts == {
        "train": {"cat": 5, "dog": 3},
        "val": {"cat": 5, "dog": 2},
        "test": {"cat": 0, "dog": 0},
    }
    assert dataset.rejected_reasons["over the limit of 5 a class"] + dataset.rejected_reasons["not a picture"] == 59

    def chosen(folder: Path) -> set[str]:
        return {path for path, row in rows(folder).items() if row["reason"] is None}

    make(source, tmp_path / "2", val_folder=val, max_per_class=5)
    make(source, tmp_path / "3", val_folder=val, max_per_class=5, seed=1)
    assert read_images(tmp_path / "1").drop(["index"]) == read_images(tmp_path / "2").drop(["index"])
    assert chosen(tmp_path / "1") != chosen(tmp_path / "3")


def test_strange_entries_are_rejected_and_nothing_hangs(tmp_path: Path, classes: Fill, make: Make) -> None:
    source = classes(tmp_path / "pets", cat=5, dog=5)
    os.mkfifo(source / "cat" / "pipe.png")
    (source / "cat" / ".ipynb_checkpoints").mkdir()
    (source / "dog" / "up").symlink_to(source)
    (source / "dog" / "gone.png").symlink_to(source / "nowhere")
    dataset = make(source)
    reconcile(dataset, tmp_path / "built")
    assert dataset.rejected_reasons == {
        "hidden": 1,
        "not a regular file": 1,
        "a link that leads nowhere": 1,
        "a link to a folder above it": 1,
    }


def test_a_file_that_vanishes_is_rejected(tmp_path: Path, classes: Fill) -> None:
    source = classes(tmp_path / "pets", cat=5, dog=5)

    def remove(stage: str, done: int, total: int) -> None:
        if stage == "scan" and done:
            (source / "dog" / "004.png").unlink()

    spec = DatasetSpec(source=source, width=8, height=8)
    dataset = build(spec, tmp_path / "built", id="1abc", name="pets", progress=remove)
    reconcile(dataset, tmp_path / "built")
    assert dataset.rejected_reasons == {"no such file": 1}


def test_progress_counts_up_and_may_stop_the_build(tmp_path: Path, classes: Fill) -> None:
    source = classes(tmp_path / "pets", cat=50, dog=50)
    spec = DatasetSpec(source=source, width=8, height=8)
    calls: list[tuple[str, int, int]] = []
    build(spec, tmp_path / "1", id="1", name="pets", progress=lambda *call: calls.append(call))
    stages = [stage for stage, _, _ in calls]
    assert list(dict.fromkeys(stages)) == ["scan", "read", "measure"]
    assert [done for stage, done, _ in calls if stage == "read"] == list(range(1, 101))
    assert calls[-1] == ("measure", 75, 75)

    class StoppedError(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "read" and done == 10:
            raise StoppedError

    with pytest.raises(StoppedError):
        build(spec, tmp_path / "2", id="2", name="pets", progress=stop)
    assert not (tmp_path / "2" / "dataset.json").exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_where_a_dataset_may_not_be_built(tmp_path: Path, classes: Fill, make: Make) -> None:
    source = classes(tmp_path / "pets", cat=3, dog=3)
    make(source)
    with pytest.raises(Conflict):
        make(source)
    with pytest.raises(InvalidInput, match="its own pictures"):
        make(source, source / "workspace" / "datasets" / "1")
    assert not (source / "workspace").exists()


def test_a_disk_that_is_too_small_or_fills_up(
    tmp_path: Path, classes: Fill, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = classes(tmp_path / "pets", cat=3, dog=3)
    if Path("/dev/full").exists():
        (tmp_path / "1" / "pixels").mkdir(parents=True)
        (tmp_path / "1" / "pixels" / "pixels.u8").symlink_to("/dev/full")
        with pytest.raises(DiskFull):
            make(source, tmp_path / "1")
        assert not (tmp_path / "1" / "dataset.json").exists()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DiskFull, match="are needed"):
        make(source, tmp_path / "2", width=4000, height=4000)


def test_work_in_flight_is_bounded_and_in_order() -> None:
    begun, done, most = [], 0, 0

    def work() -> Any:
        for piece in range(300):
            begun.append(piece)
            yield piece

    def double(piece: int) -> int:
        time.sleep(0.001 * (piece % 3))
        return 2 * piece

    for place, result in enumerate(read.in_order(work(), double, workers=4)):
        assert result == 2 * place
        most = max(most, len(begun) - done)
        done += 1
    assert done == 300
    assert most <= read.IN_FLIGHT


def test_memory_stays_flat_over_2000_pictures(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "many" / label).mkdir(parents=True)
    for index in range(2000):
        picture = Image.new("RGB", (4, 4), (index % 256, index // 256, 99))
        picture.save(tmp_path / "many" / "ab"[index % 2] / f"{index}.bmp")
    spec = DatasetSpec(source=tmp_path / "many", width=160, height=160, resize="fill")
    tracemalloc.start()
    try:
        dataset = build(spec, tmp_path / "built", id="1", name="many", progress=lambda *_: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert dataset.used == 2000
    pixels = (tmp_path / "built" / "pixels" / "pixels.u8").stat().st_size
    assert pixels == 2000 * 160 * 160 * 3
    assert peak < 45e6 < pixels / 3


def test_rows_and_json_describe_the_same(tmp_path: Path, classes: Fill, make: Make) -> None:
    make(classes(tmp_path / "pets", cat=3, dog=3))
    content = json.loads((tmp_path / "built" / "dataset.json").read_text())
    assert content["format"] == "vizsla.dataset/1"
    assert list(read_images(tmp_path / "built").schema.names) == [field.name for field in dataclasses.fields(read.Row)]
    assert not list((tmp_path / "built").glob(".*"))
