"""The pixel store: what is written is read, in any order, by any thread, and damage is seen."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from vizsla.datasets.spec import Encoding
from vizsla.datasets.store import PixelStore, PixelWriter, choose_encoding
from vizsla.errors import DiskFull, InvalidInput


def smooth(count: int, channels: int) -> np.ndarray:
    down, across, picture = np.ogrid[0:10, 0:14, 0:count]
    grey = (down * 9 + across * 7 + picture * 5).transpose(2, 0, 1) % 256
    return np.stack([grey, 255 - grey, grey // 2], axis=3)[..., :channels].astype(np.uint8)


def write(folder: Path, pictures: np.ndarray, encoding: Encoding) -> PixelStore:
    _, height, width, channels = pictures.shape
    with PixelWriter(folder, height=height, width=width, channels=channels, encoding=encoding) as writer:
        assert [writer.append(picture) for picture in pictures] == list(range(len(pictures)))
    return PixelStore.open(folder)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("encoding", get_args(Encoding))
def test_what_is_written_is_read(tmp_path: Path, encoding: Encoding, channels: int) -> None:
    pictures = smooth(20, channels)
    store = write(tmp_path, pictures, encoding)
    assert store.shape == (20, 10, 14, channels)
    for indices in ([3], [19, 0, 3, 3], [], np.arange(20)[::-1]):
        found = store.read(indices)
        assert found.shape == (len(indices), 10, 14, channels)
        assert found.dtype == np.uint8
        expected = pictures[np.asarray(indices, dtype=int)]
        if encoding == "jpeg":
            assert not expected.size or np.abs(found.astype(int) - expected).mean() < 6
        else:
            assert (found == expected).all()


@pytest.mark.parametrize("encoding", get_args(Encoding))
def test_several_threads_read_alike(tmp_path: Path, encoding: Encoding) -> None:
    store = write(tmp_path, smooth(60, 3), encoding)
    expected = store.read(np.arange(60))
    wrong: list[int] = []

    def work(seed: int) -> None:
        for _ in range(10):
            indices = np.random.default_rng(seed).integers(0, 60, 24)
            if (store.read(indices) != expected[indices]).any():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_an_index_outside_is_refused(tmp_path: Path, encoding: Encoding) -> None:
    store = write(tmp_path, smooth(3, 1), encoding)
    for indices in ([3], [-1], [0, 7]):
        with pytest.raises(IndexError):
            store.read(indices)


@pytest.mark.parametrize("encoding", get_args(Encoding))
def test_an_empty_store_and_an_unfinished_one(tmp_path: Path, encoding: Encoding) -> None:
    assert write(tmp_path / "empty", smooth(0, 3), encoding).read([]).shape == (0, 10, 14, 3)

    def interrupted() -> None:
        with PixelWriter(tmp_path / "half", height=10, width=14, channels=3, encoding=encoding) as writer:
            writer.append(smooth(1, 3)[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(InvalidInput, match="missing"):
        PixelStore.open(tmp_path / "half")


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_a_file_that_was_cut_or_is_gone(tmp_path: Path, encoding: Encoding) -> None:
    write(tmp_path, smooth(5, 3), encoding)
    path = tmp_path / ("pixels.u8" if encoding == "raw" else "pixels.bin")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 7)
    with pytest.raises(InvalidInput, match=f"has {size - 7:,} bytes and should have {size:,}") as caught:
        PixelStore.open(tmp_path)
    assert caught.value.where == str(path)
    assert "Build the dataset again" in caught.value.remedy
    path.unlink()
    with pytest.raises(InvalidInput, match="missing"):
        PixelStore.open(tmp_path)


def test_damaged_records_offsets_and_descriptions(tmp_path: Path) -> None:
    store = write(tmp_path, smooth(5, 3), "png")
    path = tmp_path / "pixels.bin"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(InvalidInput, match="Picture 2 of the store is damaged"):
        PixelStore.open(tmp_path).read([2])
    np.save(tmp_path / "offsets.npy", np.arange(3))
    with pytest.raises(InvalidInput, match="do not fit"):
        PixelStore.open(tmp_path)
    (tmp_path / "offsets.npy").write_bytes(b"junk")
    with pytest.raises(InvalidInput, match="cannot be read"):
        PixelStore.open(tmp_path)
    about = json.loads((tmp_path / "pixels.json").read_text())
    assert about == store.about.model_dump()
    (tmp_path / "pixels.json").write_text(json.dumps(about | {"format": "vizsla.pixels/2"}))
    with pytest.raises(InvalidInput, match="of format"):
        PixelStore.open(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "pixels.u8").symlink_to("/dev/full")
    writer = PixelWriter(tmp_path, height=10, width=14, channels=3, encoding="raw")
    with pytest.raises(DiskFull), writer:
        writer.append(smooth(1, 3)[0])
    assert not (tmp_path / "pixels.json").exists()


def test_auto_takes_raw_up_to_16_gb() -> None:
    assert choose_encoding("auto", 15 * 10**9) == "raw"
    assert choose_encoding("auto", 16 * 10**9) == "jpeg"
    assert choose_encoding("png", 10**12) == "png"
