"""Text lists: every good line is used, every other one is rejected with its place and reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vizsla.datasets import lists, sources
from vizsla.datasets.build import build
from vizsla.datasets.dataset import Dataset, read_images
from vizsla.datasets.lists import MAX_LINE_BYTES
from vizsla.datasets.scan import Scan, scan
from vizsla.datasets.spec import DatasetSpec
from vizsla.errors import InvalidInput

Draw = Callable[..., Path]
Make = Callable[..., Dataset]


@pytest.fixture
def pictures(tmp_path: Path, draw: Draw) -> Path:
    """A folder of twelve pictures, 00.png to 11.png, one of them in a folder of its own with a space in its name."""
    for number in range(12):
        draw(tmp_path / "pictures" / f"{number:02d}.png")
    (tmp_path / "pictures" / "a b").mkdir()
    (tmp_path / "pictures" / "11.png").rename(tmp_path / "pictures" / "a b" / "11.png")
    return tmp_path / "pictures"


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def scanned(source: Path, *, allowed: list[Path] | None = None, **fields: Any) -> Scan:
    return scan(DatasetSpec(source=source, **fields), allowed=allowed)


def refusal(source: Path, **fields: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        scanned(source, **fields)
    assert caught.value.where
    assert caught.value.remedy
    return caught.value.what


@pytest.mark.parametrize("absolute", [True, False])
def test_every_good_line_is_used(pictures: Path, make: Make, tmp_path: Path, absolute: bool) -> None:
    stem = f"{pictures}/" if absolute else ""
    names = [f"{number:02d}.png" for number in range(11)] + ["a b/11.png"]
    labels = write(tmp_path / "labels.txt", "dog", "great dane")
    train = write(tmp_path / "train.txt", *(f"{stem}{name} {number % 2}" for number, name in enumerate(names[:8])))
    val = write(tmp_path / "val.txt", f"{stem}08.png dog", f"{stem}09.png\tgreat dane")
    test = write(tmp_path / "test.txt", f"{stem}10.png 0", f"{stem}a b/11.png 1")
    folder = None if absolute else pictures
    made = make(train, val_folder=val, test_folder=test, labels_file=labels, picture_folder=folder)
    assert made.labels == ["dog", "great dane"]
    assert (made.found, made.used, made.rejected) == (12, 12, 0)
    assert made.counts == {
        "train": {"dog": 4, "great dane": 4},
        "val": {"dog": 1, "great dane": 1},
        "test": {"dog": 1, "great dane": 1},
    }
    found = {row["path"]: (row["root"], row["label"]) for row in read_images(tmp_path / "built").to_pylist()}
    assert found == {
        f"{stem}{name}": (
            "source" if number < 8 else "val" if number < 10 else "test",
            ("dog", "great dane")[number % 2],
        )
        for number, name in enumerate(names)
    }


def test_a_list_gives_the_dataset_that_the_same_folders_give(pictures: Path, make: Make, tmp_path: Path) -> None:
    lines = []
    for number in range(10):
        label = ("cat", "dog")[number % 2]
        (tmp_path / "folders" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "folders" / label / f"{number}.png").write_bytes((pictures / f"{number:02d}.png").read_bytes())
        lines.append(f"{label}/{number}.png {label}")
    listed = make(write(tmp_path / "all.txt", *lines), tmp_path / "x", picture_folder=tmp_path / "folders")
    assert listed.fingerprint == make(tmp_path / "folders", tmp_path / "y").fingerprint
    assert sum(listed.counts["val"].values()) == 2


def test_bad_lines_are_rejected_by_file_and_line(pictures: Path, make: Make, tmp_path: Path) -> None:
    (pictures / "broken.png").write_bytes(b"x")
    (pictures / "loop.png").symlink_to(pictures / "loop.png")
    good = [f"{number:02d}.png {number % 2}" for number in range(6)]
    bad = {
        "06.png": "no label",
        "a b/11.png": "no label",
        " 1": "no label",
        "06.png -1": "a label below 0",
        "06.png 2": "unknown label",
        "06.png 99999999999999999999": "unknown label",
        "06.png cow": "unknown label",
        "06.png 1.5": "unknown label",
        "absent.png 0": "no such file",
        "a b 0": "a folder",
        f"{'x' * 300}.png 0": "no such file",
    }
    source = write(pictures / "list.txt", "", *good, "   ", *bad, "broken.png 1", "loop.png 1")
    with source.open("ab") as file:
        file.write(b"caf\xe9.png 0\r\n" + b"y" * (3 * MAX_LINE_BYTES) + b" 0\n06.png 0")
    made = make(source, labels_file=write(tmp_path / "labels.txt", "cat", "dog", ""))
    rows = read_images(tmp_path / "built").to_pylist()
    rejected = {row["path"]: row["reason"] for row in rows if row["reason"]}
    begin = 2 + len(good) + 1
    expected = {
        f"list.txt:{number}: {line.strip()}": reason for number, (line, reason) in enumerate(bad.items(), begin)
    }
    last = begin + len(bad) + 2
    assert expected.items() <= rejected.items()
    assert rejected[f"list.txt:{last}: caf\\xe9.png 0"] == "the line is not valid UTF-8"
    assert rejected[f"list.txt:{last + 1}: {'y' * 1000}"] == "the line is too long"
    assert {path for path, reason in rejected.items() if path not in expected and path.startswith("list.txt")} == {
        f"list.txt:{last}: caf\\xe9.png 0",
        f"list.txt:{last + 1}: {'y' * 1000}",
        f"list.txt:{last - 1}: loop.png 1",
    }
    assert "broken.png" in rejected
    assert made.used == len(good) + 1, "the last line counts without an end too"
    assert made.found == made.used + made.rejected == len(rows)
    assert made.rejected_reasons["unknown label"] == 4


def test_without_a_file_of_names_labels_are_names(pictures: Path, tmp_path: Path) -> None:
    found = scanned(write(pictures / "list.txt", "00.png 10", "01.png 9", "02.png b", "03.png", "04.png -3"))
    assert found.labels == ["9", "10", "b"]
    assert [row.reason for row in found.files] == [None, None, None, "no label", "a label below 0"]


def test_a_line_that_is_there_twice_is_a_copy(pictures: Path, make: Make) -> None:
    lines = ["00.png a", "01.png a", "02.png b", "03.png b", "03.png b", "00.png b"]
    made = make(write(pictures / "list.txt", *lines), val_percent=0)
    assert made.used == 6
    assert made.statistics.duplicates.count == 2
    assert made.statistics.conflicting.count == 1


def test_folders_and_lists_go_together(pictures: Path, draw: Draw, tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        draw(tmp_path / "folders" / label / "1.png")
    val = write(pictures / "val.txt", "00.png dog", "01.png cow", "02.png 0")
    found = scanned(tmp_path / "folders", val_folder=val)
    assert [(row.root, row.split, row.label, row.reason) for row in found.files[2:]] == [
        ("val", "val", "dog", None),
        ("val", "val", "cow", "class not in train"),
        ("val", "val", "0", "class not in train"),
    ]
    assert found.given == {"val"}
    listed = write(pictures / "train.txt", "00.png dog", "01.png cat")
    mixed = scanned(listed, test_folder=tmp_path / "folders")
    assert [(row.root, row.label) for row in mixed.files] == [
        ("source", "dog"),
        ("source", "cat"),
        ("test", "cat"),
        ("test", "dog"),
    ]


def test_lists_that_cannot_be(pictures: Path, tmp_path: Path) -> None:
    for content in (b"", b"\n \r\n", b"\xef\xbb\xbf\n"):
        (pictures / "empty.txt").write_bytes(content)
        assert refusal(pictures / "empty.txt") == "The list is empty."
    assert "neither a folder" in refusal(pictures / "00.png")
    assert "one class only, 'a'" in refusal(write(pictures / "one.txt", "00.png a", "01.png"))
    assert refusal(write(pictures / "none.txt", "no.png a", "no.png b")) == "None of the lines can be used."
    train = write(pictures / "train.txt", "00.png a", "01.png b")
    assert refusal(train, val_folder=write(pictures / "val.txt", "02.png c")) == "None of the lines can be used."
    assert refusal(train, val_folder=write(pictures / "val.txt")) == "The list is empty."
    for content, reason in {
        "a\n\nb\n": "Line 2 has no name.",
        "a\nb\na\n": "Line 3 has the name of line 1.",
        "a\n\n": "The file has 1 class names; a classifier needs two.",
        f"a\n{'b' * 300}\n": "Line 2 is not valid UTF-8, or too long.",
    }.items():
        (pictures / "labels.txt").write_text(content)
        assert refusal(train, labels_file=pictures / "labels.txt") == reason
    os.mkfifo(pictures / "pipe")
    for name in ("absent.txt", "pipe", "a b"):
        assert refusal(train, labels_file=pictures / name) == "There is no such file."
    odd = pictures / os.fsdecode(b"\xff.txt")
    odd.write_text("00.png a\n01.png b\n")
    assert "cannot be printed" in refusal(odd)


def test_what_is_of_use_to_lists_only_is_refused_without_one(pictures: Path, tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.txt", "a", "b")
    for fields in ({"labels_file": labels}, {"picture_folder": pictures}):
        with pytest.raises(InvalidInput, match="only where pictures are named by a text list"):
            sources.require(DatasetSpec(source=pictures, **fields))
        sources.require(DatasetSpec(source=write(tmp_path / "list.txt", "x a"), **fields))


def test_pictures_lie_only_where_it_is_allowed(pictures: Path, draw: Draw, tmp_path: Path, make: Make) -> None:
    secret = draw(tmp_path / "secret" / "s.png")
    (pictures / "link.png").symlink_to(secret)
    refused = (f"{secret} a", "../secret/s.png a", "../secret/absent.png b", "link.png b", "/etc/passwd a")
    source = write(pictures / "list.txt", "00.png a", "01.png a", "02.png b", "03.png b", *refused)
    found = scanned(source, allowed=[pictures])
    assert [row.reason for row in found.files[4:]] == ["outside of the folders that the server may read"] * 5
    assert [row.reason for row in scanned(source).files[4:]] == [None, None, "no such file", None, None]
    spec = DatasetSpec(source=source, width=8, height=8)
    made = build(spec, tmp_path / "x", id="1", name="n", progress=lambda *_: None, allowed=[pictures])
    assert (made.used, made.rejected) == (4, 5)
    assert scanned(source, allowed=[tmp_path]).files[4].reason is None
    nothing = lists.read_lines(source, pictures, allowed=[])
    assert {line.reason for line in nothing} == {"outside of the folders that the server may read"}
