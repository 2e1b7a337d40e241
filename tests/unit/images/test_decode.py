"""Decoding: pixel values of every mode, and a short reason for whatever is no picture."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vizsla.errors import InvalidInput
from vizsla.images import decode as module
from vizsla.images.decode import Size, decode, measure, read


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width: int = 64, height: int = 48) -> np.ndarray:
    down, across = np.mgrid[0:height, 0:width]
    red, green, blue = across * 255 // (width - 1), down * 255 // (height - 1), 255 - across * 255 // (width - 1)
    return np.stack([red, green, blue], axis=2).astype(np.uint8)


def pixels(source: bytes | Path, **options: Any) -> np.ndarray:
    return np.asarray(decode(source, **options))


def outcome(data: bytes) -> np.ndarray | str:
    """The pixels, or the reason why there are none."""
    try:
        measure(data)
        return pixels(data)
    except InvalidInput as error:
        return error.what


def reason(source: bytes | Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        decode(source)
    return caught.value.what


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_exact_formats_give_the_pixels_back(kind: str) -> None:
    assert (pixels(saved(Image.fromarray(gradient()), kind)) == gradient()).all()


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95})])
def test_lossy_formats_come_close(kind: str, options: dict[str, Any]) -> None:
    difference = pixels(saved(Image.fromarray(gradient()), kind, **options)).astype(int) - gradient()
    assert np.abs(difference).mean() < 4


def test_lossless_webp_and_palette_gif() -> None:
    assert (pixels(saved(Image.fromarray(gradient()), "WEBP", lossless=True)) == gradient()).all()
    flat = np.zeros((4, 6, 3), np.uint8)
    flat[:, 3:] = (10, 200, 30)
    assert (pixels(saved(Image.fromarray(flat), "GIF")) == flat).all()


def test_the_content_decides_and_not_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(saved(Image.fromarray(gradient()), "PNG"))
    assert (pixels(path) == gradient()).all()


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "green", "blue")]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (pixels(data) == (255, 0, 0)).all(), kind


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_honoured(kind: str, orientation: int) -> None:
    # An upright picture of 80 x 40 px with a red top left corner, turned as the camera would have stored it.
    upright = np.full((40, 80, 3), 255, np.uint8)
    upright[:20, :20] = (255, 0, 0)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    data = saved(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
    for target in (None, Size(20, 10)):
        found = pixels(data, target=target).astype(int)
        height, width = found.shape[:2]
        assert width == 2 * height
        assert np.abs(found[height // 4, width // 8] - (255, 0, 0)).max() < 12
        assert found[height // 4, -width // 8].min() > 240
        assert found[-height // 4, width // 8].min() > 240
    assert measure(data) == (80, 40)


# Pillow warns of it; outside of tests that warning is silenced, here it would be an error.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_exif_that_cannot_be_read_does_not_matter() -> None:
    data = saved(Image.fromarray(gradient()), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7fgarbage")
    assert pixels(data).shape == (48, 64, 3)


def test_16_bit_grey_is_scaled_to_8_bits() -> None:
    values = np.linspace(0, 65535, 256 * 4).round().astype(np.uint16).reshape(16, 64)
    expected = np.round(values / 257).astype(np.uint8)
    for kind in ("PNG", "TIFF", "PPM"):
        image = decode(saved(Image.fromarray(values), kind))
        assert image.mode == "L"
        assert (np.asarray(image) == expected).all(), kind
    assert (pixels(saved(Image.fromarray(values.astype(np.int32)), "TIFF")) == expected).all()


def test_whole_numbers_beyond_16_bits_and_floating_point_are_refused() -> None:
    assert reason(saved(Image.fromarray(np.full((4, 4), 70000, np.int32)), "TIFF")) == "pixel values beyond 16 bits"
    assert reason(saved(Image.fromarray(np.full((4, 4), -1, np.int32)), "TIFF")) == "pixel values beyond 16 bits"
    assert reason(saved(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF")) == "floating-point pixels"


def test_one_bit_and_grey_stay_grey() -> None:
    bits = np.eye(8, dtype=bool)
    image = decode(saved(Image.fromarray(bits), "PNG"))
    assert image.mode == "L"
    assert (np.asarray(image) == bits * 255).all()
    grey = gradient()[:, :, 0]
    assert (pixels(saved(Image.fromarray(grey), "PNG")) == grey).all()


def test_transparency_is_laid_over_white() -> None:
    picture = Image.new("RGBA", (3, 1))
    picture.putdata([(200, 0, 0, 255), (200, 0, 0, 0), (0, 0, 0, 128)])
    assert pixels(saved(picture, "PNG"))[0].tolist() == [[200, 0, 0], [255, 255, 255], [127, 127, 127]]
    grey = Image.new("LA", (3, 1))
    grey.putdata([(50, 255), (50, 0), (0, 128)])
    image = decode(saved(grey, "PNG"))
    assert image.mode == "L"
    assert np.asarray(image)[0].tolist() == [50, 255, 127]


def test_transparent_colours_of_palette_grey_and_rgb() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([0, 1])
    assert pixels(saved(palette, "PNG"))[0].tolist() == [[255, 0, 0], [0, 0, 255]]
    for transparency in (1, bytes([255, 0])):
        data = saved(palette, "PNG", transparency=transparency)
        assert pixels(data)[0].tolist() == [[255, 0, 0], [255, 255, 255]]
    assert pixels(saved(palette, "GIF", transparency=1))[0].tolist() == [[255, 0, 0], [255, 255, 255]]
    grey = Image.fromarray(np.array([[7, 9]], np.uint8))
    image = decode(saved(grey, "PNG", transparency=9))
    assert (image.mode, np.asarray(image)[0].tolist()) == ("L", [7, 255])
    colour = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert pixels(saved(colour, "PNG", transparency=(4, 5, 6)))[0].tolist() == [[1, 2, 3], [255, 255, 255]]


def test_cmyk_jpeg_becomes_rgb() -> None:
    image = decode(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image).astype(int) - (255, 0, 0)).max() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "PPM", "GIF", "TIFF"])
def test_truncated_files_are_errors(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), kind)
    assert reason(data[: len(data) * 2 // 3]).startswith("truncated")
    assert kind in reason(data[: len(data) * 2 // 3])


def test_a_cut_gives_a_reason_and_never_other_pixels() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for kind in module.FORMATS:
        data = saved(Image.fromarray(noise), kind)
        whole = pixels(data)
        outcomes = [outcome(data[:length]) for length in range(0, len(data), 7)]
        reasons = [found for found in outcomes if isinstance(found, str)]
        assert all(0 < len(text) < 60 for text in reasons)
        # The last bytes of some formats are no pixels.
        assert len(reasons) >= (len(data) - 24) // 7
        assert all((found == whole).all() for found in outcomes if not isinstance(found, str))


def test_damaged_bytes_give_a_picture_or_a_reason() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for kind in module.FORMATS:
        data = saved(Image.fromarray(noise), kind)
        for _ in range(60):
            damaged = np.frombuffer(data, np.uint8).copy()
            damaged[rng.integers(0, len(data), 4)] = rng.integers(0, 256, 4)
            found = outcome(damaged.tobytes())
            assert isinstance(found, np.ndarray) or 0 < len(found) < 80


def test_what_is_no_picture() -> None:
    assert reason(b"") == "empty file"
    assert reason(b"name,label\ncat,0\n") == "not a picture"
    assert reason(b"<svg xmlns='http://www.w3.org/2000/svg'/>") == "not a picture"
    assert reason(b"\x89PNG\r\n\x1a\n") == "truncated or broken PNG"
    # ICO is a format Pillow knows and we do not allow.
    assert reason(saved(Image.new("RGB", (16, 16)), "ICO")) == "not a picture"


@pytest.mark.parametrize(("width", "height", "megapixels"), [(20000, 15000, "300"), (50000, 50000, "2,500")])
def test_too_many_pixels_are_refused_from_the_header(width: int, height: int, megapixels: str) -> None:
    expected = f"{megapixels} megapixels, more than the limit of 200"
    assert reason(png_header(width, height)) == expected
    with pytest.raises(InvalidInput, match=expected):
        measure(png_header(width, height))


def test_pictures_between_the_limit_of_pillow_and_ours_open_without_a_warning() -> None:
    assert measure(png_header(15000, 10000)) == (15000, 10000)


def test_a_large_jpeg_is_decoded_at_a_fraction_at_least_twice_the_target() -> None:
    data = saved(Image.fromarray(gradient(800, 600)), "JPEG", quality=95)
    assert decode(data).size == (800, 600)
    assert decode(data, target=Size(100, 75)).size == (200, 150)
    assert decode(data, target=Size(60, 60)).size == (200, 150)
    assert decode(data, target=Size(300, 30)).size == (800, 600)
    small = pixels(data, target=Size(100, 75)).astype(int)
    exact = np.asarray(Image.fromarray(gradient(800, 600)).resize((200, 150), Image.Resampling.BOX)).astype(int)
    assert np.abs(small - exact).mean() < 2


def test_reading_a_file_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason(tmp_path / "absent.png") == "no such file"
    assert reason(tmp_path) == "not a regular file"
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert reason(tmp_path / "a") == "symbolic links in a circle"
    (tmp_path / "large").write_bytes(b"x" * 100)
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    assert "more than the limit" in reason(tmp_path / "large")


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert reason(tmp_path / "pipe.png") == "not a regular file"


def test_a_file_without_permission(unprivileged: Path) -> None:
    (unprivileged / "secret.png").write_bytes(b"x")
    (unprivileged / "secret.png").chmod(0)
    assert reason(unprivileged / "secret.png") == "no permission to read it"


def test_the_error_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InvalidInput) as caught:
        decode(tmp_path / "notes.txt")
    assert caught.value.where == str(tmp_path / "notes.txt")
    assert read(tmp_path / "notes.txt") == b"hello"


def test_several_threads_decode_alike() -> None:
    data = {kind: saved(Image.fromarray(gradient()), kind) for kind in module.FORMATS}
    expected = {kind: pixels(content) for kind, content in data.items()}
    wrong: list[str] = []

    def work() -> None:
        for _ in range(5):
            wrong.extend(kind for kind, content in data.items() if (pixels(content) != expected[kind]).any())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
