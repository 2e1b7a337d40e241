"""Thumbnails: small, of pixels alone, and never the reason why a request fails."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vizsla.models import warm

ROOM = warm.THUMBNAILS_LENGTH // 64


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    held = io.BytesIO()
    image.save(held, kind, **how)
    return held.getvalue()


def opened(text: str | None) -> Image.Image:
    assert text is not None
    return Image.open(io.BytesIO(base64.b64decode(text)))


@pytest.mark.parametrize(("size", "small"), [((1000, 500), (256, 128)), ((300, 900), (85, 256)), ((20, 10), (20, 10))])
def test_a_large_picture_is_shrunk_and_a_small_one_is_not(size: tuple[int, int], small: tuple[int, int]) -> None:
    for kind in ("PNG", "JPEG"):
        found = opened(warm.thumbnail(encoded(Image.new("RGB", size, "red"), kind), ROOM))
        assert (found.format, found.size, found.mode) == ("JPEG", small, "RGB")
    assert opened(warm.thumbnail(encoded(Image.new("L", size), "PNG"), ROOM)).mode == "L"


@pytest.mark.parametrize("length", [100, 65_533, 65_534, 1_000_000])
def test_what_else_a_file_says_is_not_passed_on(length: int) -> None:
    """A JPEG has no room for a long comment, which Pillow would copy."""
    image, said = Image.new("RGB", (32, 32), "blue"), b"secret" * (length // 6 + 1)
    text = PngInfo()
    text.add_text("comment", said[:length].decode(), zip=True)
    exif = Image.Exif()
    exif[0x010E] = "secret"
    files = [
        encoded(image, "PNG", pnginfo=text, exif=exif, icc_profile=said[:length], dpi=(72, 72)),
        encoded(image.convert("P"), "GIF", comment=said[:length]),
        encoded(image, "JPEG", comment=said[:60_000], exif=exif, icc_profile=said[:length]),
    ]
    plain = opened(warm.thumbnail(encoded(image, "BMP"), ROOM)).info
    for data in files:
        found = warm.thumbnail(data, ROOM)
        assert opened(found).info == plain
        assert b"secret" not in base64.b64decode(found or "")
        assert len(found or "") < 2000


def test_the_thumbnails_of_a_request_fit_into_its_answer() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "PNG")
    found = warm.thumbnail(data, ROOM)
    assert opened(found).size == (256, 256)
    assert 64 * len(found or "") <= warm.THUMBNAILS_LENGTH < warm.MAX_FRAME
    assert warm.thumbnail(data, 1000) is None


def test_one_that_cannot_be_made_fails_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: Any, **how: Any) -> None:
        raise ValueError("no JPEG")

    data = encoded(Image.new("RGB", (9, 9)), "PNG")
    monkeypatch.setattr(Image.Image, "save", broken)
    assert warm.thumbnail(data, ROOM) is None
    assert "no JPEG" in capsys.readouterr().err
    assert warm.thumbnail(b"<html>", ROOM) is None
