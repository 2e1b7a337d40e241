"""Folders of made pictures, and real ones where the shared data is at hand."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vizsla.datasets.build import build
from vizsla.datasets.dataset import Dataset
from vizsla.datasets.spec import DatasetSpec

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """The folder of a shared data set, or the test is skipped."""

    def find(name: str) -> Path:
        if not (DATA / name).is_dir():
            pytest.skip(f"the shared data set {name} is not here")
        return DATA / name

    return find


@pytest.fixture
def draw() -> Callable[..., Path]:
    """Writes a colourful PNG; its pixels depend on `content` only."""

    def write(path: Path, content: str | None = None, *, size: tuple[int, int] = (12, 9)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = zlib.crc32((content or str(path)).encode())
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, "PNG")
        return path

    return write


@pytest.fixture
def classes(draw: Callable[..., Path]) -> Callable[..., Path]:
    """Fills a folder with so many pictures a class: classes(root, cat=10, dog=8)."""

    def fill(root: Path, **numbers: int) -> Path:
        for label, number in numbers.items():
            (root / label).mkdir(parents=True, exist_ok=True)
            for index in range(number):
                draw(root / label / f"{index:03d}.png", f"{root.name}/{label}/{index}")
        return root

    return fill


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Dataset]:
    """Builds a small dataset: make(source, folder=..., **spec)."""

    def run(source: Path, folder: Path | None = None, **fields: Any) -> Dataset:
        spec = DatasetSpec(**({"source": source, "width": 8, "height": 6} | fields))
        return build(spec, folder or tmp_path / "built", id="1abc", name="a name", progress=lambda *_: None)

    return run
