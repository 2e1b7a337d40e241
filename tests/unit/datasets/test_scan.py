"""Finding files: both layouts, each reason, and each error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vizsla.datasets.scan import Found, Scan, location, scan
from vizsla.datasets.spec import DatasetSpec
from vizsla.errors import InvalidInput


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def scanned(source: Path, **fields: Any) -> Scan:
    return scan(DatasetSpec(source=source, **fields))


def reasons(found: Scan) -> dict[str, str | None]:
    return {row.path: row.reason for row in found.files}


def refusal(source: Path, **fields: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        scanned(source, **fields)
    assert caught.value.remedy
    return caught.value


def test_one_folder_a_class_searched_to_the_bottom(tmp_path: Path) -> None:
    found = scanned(touch(tmp_path, "old_dog/b.png", "old_dog/deep/er/a.png", "cat/1.png"))
    assert found.labels == ["cat", "old_dog"]
    assert found.given == frozenset()
    assert found.files == [
        Found("source", "cat/1.png", "cat", None, None),
        Found("source", "old_dog/b.png", "old_dog", None, None),
        Found("source", "old_dog/deep/er/a.png", "old_dog", None, None),
    ]


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/x.png" for name in ("10", "9", "grade 2", "grade 10", "b", "Ä", "a1b")))
    assert scanned(tmp_path).labels == ["9", "10", "a1b", "b", "grade 2", "grade 10", "Ä"]


def test_split_folders(tmp_path: Path) -> None:
    found = scanned(touch(tmp_path, "Train/a/1.png", "Train/b/1.png", "VALID/a/2.png", "test/b/3.png", "test/c/4.png"))
    assert found.labels == ["a", "b"]
    assert found.given == {"val", "test"}
    assert {(row.path, row.label, row.split, row.reason) for row in found.files} == {
        ("Train/a/1.png", "a", None, None),
        ("Train/b/1.png", "b", None, None),
        ("VALID/a/2.png", "a", "val", None),
        ("test/b/3.png", "b", "test", None),
        ("test/c/4.png", "c", "test", "class not in train"),
    }


def test_a_train_folder_alone_and_files_beside_split_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "train/list.txt", "README.txt")
    found = scanned(tmp_path)
    assert found.given == frozenset()
    assert reasons(found)["train/list.txt"] == reasons(found)["README.txt"] == "not in a class folder"
    touch(tmp_path, "val/a/1.png", "extra/a/1.png", ".git/x")
    found = scanned(tmp_path)
    assert found.given == {"val"}
    assert reasons(found)["extra/a/1.png"] == "outside of train, val and test"
    assert reasons(found)[".git/"] == "hidden"


@pytest.mark.parametrize(
    "paths",
    [
        ("train/1.png", "car/1.png", "bus/1.png"),  # a class of railway pictures
        ("train/old/1.png", "car/1.png", "bus/1.png"),
        ("train/1.png", "test/1.png"),  # no folders within train
        ("val/a/1.png", "test/b/1.png"),  # no train
    ],
)
def test_classes_that_are_called_like_splits(tmp_path: Path, paths: tuple[str, ...]) -> None:
    found = scanned(touch(tmp_path, *paths))
    assert set(found.labels) == {path.split("/")[0] for path in paths}


def test_val_and_test_folders_of_the_spec(tmp_path: Path) -> None:
    source = touch(tmp_path / "pictures", "a/1.png", "b/1.png")
    val = touch(tmp_path / "more", "a/1.png", "zebra/1.png", "loose.png")
    spec = DatasetSpec(source=source, val_folder=val)
    found = scan(spec)
    assert found.given == {"val"}
    assert [(row.path, row.split, row.reason) for row in found.files if row.root == "val"] == [
        ("a/1.png", "val", None),
        ("loose.png", "val", "not in a class folder"),
        ("zebra/1.png", "val", "class not in train"),
    ]
    assert [location(spec, row) for row in found.files if row.path == "a/1.png"] == [
        source / "a/1.png",
        val / "a/1.png",
    ]


def test_a_split_is_not_given_twice_nor_from_a_strange_folder(tmp_path: Path) -> None:
    source = touch(tmp_path / "pictures", "train/a/1.png", "train/b/1.png", "test/a/1.png")
    other = touch(tmp_path / "other", "cat/1.png")
    assert "given twice" in refusal(source, test_folder=other).what
    assert "None of the folders here is a class" in refusal(source, val_folder=other).what
    assert "a, b" in refusal(source, val_folder=other).remedy
    assert "no such folder" in refusal(source, val_folder=tmp_path / "absent").what
    touch(source, "TEST/a/1.png")
    assert "Two folders are for test" in refusal(source).what


def test_clutter_is_listed_and_not_entered(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png", "a/.DS_Store", "a/.ipynb_checkpoints/1.png", "a/Thumbs.db", "b/desktop.ini")
    touch(tmp_path, "__MACOSX/a/1.png", ".hidden/1.png", "README.txt")
    found = scanned(tmp_path)
    assert found.labels == ["a", "b"]
    assert reasons(found) == {
        ".hidden/": "hidden",
        "README.txt": "not in a class folder",
        "__MACOSX/": "hidden",
        "a/.DS_Store": "hidden",
        "a/.ipynb_checkpoints/": "hidden",
        "a/1.png": None,
        "a/Thumbs.db": "hidden",
        "b/1.png": None,
        "b/desktop.ini": "hidden",
    }


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    source = touch(tmp_path / "pictures", "a/1.png", "b/1.png")
    elsewhere = touch(tmp_path / "elsewhere", "2.png", "sub/3.png")
    (source / "a" / "linked").symlink_to(elsewhere)
    (source / "c").symlink_to(elsewhere)
    (source / "a" / "up").symlink_to(source / "a")
    (source / "b" / "root").symlink_to("/")
    (source / "b" / "gone.png").symlink_to(tmp_path / "gone.png")
    (source / "b" / "same.png").symlink_to(source / "b" / "1.png")
    (elsewhere / "sub" / "back").symlink_to(elsewhere)
    found = scanned(source)
    assert found.labels == ["a", "b", "c"]
    assert reasons(found) == {
        "a/1.png": None,
        "a/linked/2.png": None,
        "a/linked/sub/3.png": None,
        "a/linked/sub/back/": "a link to a folder above it",
        "a/up/": "a link to a folder above it",
        "b/1.png": None,
        "b/gone.png": "a link that leads nowhere",
        "b/root/": "a link to a folder above it",
        "b/same.png": None,
        "c/2.png": None,
        "c/sub/3.png": None,
        "c/sub/back/": "a link to a folder above it",
    }


def test_only_regular_files(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "b" / "null.png").symlink_to("/dev/null")
    found = reasons(scanned(tmp_path))
    assert found["a/pipe.png"] == found["pipe"] == found["b/null.png"] == "not a regular file"


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    try:
        (tmp_path / "a" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
        (tmp_path / os.fsdecode(b"gr\xfcn")).mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (tmp_path / os.fsdecode(b"gr\xfcn") / "1.png").write_bytes(b"x")
    found = scanned(tmp_path)
    assert found.labels == ["a", "b"]
    rejected = {row.path: (row.label, row.reason) for row in found.files if row.reason}
    assert rejected == {
        "a/caf\\xe9.png": ("a", "the name is not valid UTF-8"),
        "gr\\xfcn/1.png": (None, "the name is not valid UTF-8"),
    }


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "absent").what
    touch(tmp_path, "file")
    assert refusal(tmp_path / "file").what == "None of the lines can be used."  # of a text list
    os.mkfifo(tmp_path / "pipe")
    assert "not a folder" in refusal(tmp_path / "pipe").what
    (tmp_path / "pipe").unlink()
    assert "no class folders" in refusal(tmp_path).what
    touch(tmp_path, "only/1.png")
    error = refusal(tmp_path)
    assert "one class only, 'only'" in error.what
    assert "Did you mean" not in error.remedy
    touch(tmp_path, "only/cat/1.png", "only/dog/1.png")
    assert f"Did you mean {tmp_path / 'only'}, which has 2 folders?" in refusal(tmp_path).remedy


def test_folders_without_permission(unprivileged: Path) -> None:
    touch(unprivileged, "a/1.png", "b/1.png", "b/secret/2.png")
    (unprivileged / "b" / "secret").chmod(0)
    assert reasons(scanned(unprivileged))["b/secret/"] == "the folder cannot be read: Permission denied"
    assert "cannot be read" in refusal(unprivileged / "b" / "secret").what
    (unprivileged / "b" / "secret").chmod(0o755)


def test_real_folders(shared: Callable[[str], Path]) -> None:
    dogs = scanned(shared("dogs10"))
    assert (len(dogs.labels), dogs.given, len(dogs.files)) == (10, {"val"}, 1500)
    digits = scanned(shared("mnist_2500"))
    assert (digits.labels, digits.given) == ([str(digit) for digit in range(10)], {"test"})
    assert all(row.reason is None for row in dogs.files + digits.files)
