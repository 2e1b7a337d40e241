"""Preprocess: exact sizes, and the pixels that each way of fitting must give."""

from __future__ import annotations

import io
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from vizsla.errors import InvalidInput
from vizsla.images.preprocess import Interpolation, Preprocess, Resize, parse_size

RESIZES = get_args(Resize)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def preprocess(width: int, height: int, **fields: Any) -> Preprocess:
    return Preprocess(**({"width": width, "height": height, "channels": 3, "resize": "squash"} | fields))


def thirds() -> np.ndarray:
    """90 x 30 px: a red, a green and a blue square side by side."""
    picture = np.zeros((30, 90, 3), np.uint8)
    for place in range(3):
        picture[:, place * 30 : place * 30 + 30, place] = 255
    return picture


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_of_the_right_size_is_unchanged(resize: str, interpolation: str, channels: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)[:, :, :channels]
    stored = picture[:, :, 0] if channels == 1 else picture
    how = preprocess(30, 20, resize=resize, interpolation=interpolation, channels=channels)
    array = how.to_array(png(np.ascontiguousarray(stored)))
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert (array == picture).all()


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 1000), (1000, 1), (3, 7), (7, 3), (500, 499), (2, 3000)])
@pytest.mark.parametrize("target", [(1, 1), (32, 32), (33, 20), (20, 33), (1, 40)])
def test_the_size_is_exact_and_a_white_picture_stays_white(
    resize: str, shape: tuple[int, int], target: tuple[int, int]
) -> None:
    array = preprocess(*target, resize=resize).to_array(png(np.full((*shape, 3), 255, np.uint8)))
    assert array.shape == (target[1], target[0], 3)
    if resize in ("squash", "crop"):
        assert (array == 255).all()
    else:
        # White, with nothing but black at the edges, and of equal width there.
        assert set(np.unique(array)) <= {0, 255}
        seen = array[:, :, 0] == 255
        rows, columns = seen.any(axis=1).nonzero()[0], seen.any(axis=0).nonzero()[0]
        assert seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 0 <= (target[1] - 1 - rows[-1]) - rows[0] <= 1
        assert 0 <= (target[0] - 1 - columns[-1]) - columns[0] <= 1


def test_squash_shows_everything_stretched() -> None:
    array = preprocess(30, 30).to_array(png(thirds()))
    assert [array[15, column].tolist() for column in (4, 15, 25)] == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_crop_shows_the_middle() -> None:
    array = preprocess(30, 30, resize="crop").to_array(png(thirds()))
    assert (array == thirds()[:, 30:60]).all()
    upright = np.ascontiguousarray(thirds().transpose(1, 0, 2))
    assert (preprocess(30, 30, resize="crop").to_array(png(upright)) == (0, 255, 0)).all()


def test_fill_shows_everything_between_black_bars() -> None:
    array = preprocess(90, 90, resize="fill").to_array(png(thirds()))
    assert (array[30:60] == thirds()).all()
    assert not array[:30].any()
    assert not array[60:].any()


def test_half_crop_cuts_one_side_and_pads_the_other() -> None:
    # Reductions of 3 and 1 to 30 x 30 px: halfway is 2, so the picture becomes 45 x 15, and 30 x 15 of it are seen.
    array = preprocess(30, 30, resize="half-crop").to_array(png(thirds()))
    assert not array[:7].any()
    assert not array[22:].any()
    assert array[7:22].any(axis=(1, 2)).all()
    middle = array[14]
    assert middle[2].argmax() == 0
    assert (middle[10:20] == (0, 255, 0)).all()
    assert middle[27].argmax() == 2


@pytest.mark.parametrize("resize", RESIZES)
def test_the_same_picture_gives_the_same_array(resize: str) -> None:
    data = png(np.random.default_rng(1).integers(0, 256, (50, 71, 3), dtype=np.uint8))
    how = preprocess(32, 24, resize=resize)
    assert (how.to_array(data) == how.to_array(data)).all()
    assert (Preprocess.model_validate_json(how.model_dump_json()).to_array(data) == how.to_array(data)).all()


def test_channels_are_made_as_asked() -> None:
    colour = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    assert (preprocess(4, 4, channels=1).to_array(png(colour)) == 76).all()
    grey = np.full((4, 4), 9, np.uint8)
    assert (preprocess(4, 4).to_array(png(grey)) == (9, 9, 9)).all()


def test_a_large_jpeg_takes_the_fast_way_to_nearly_the_same_pixels() -> None:
    rng = np.random.default_rng(2)
    smooth = np.asarray(Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((1600, 1200)))
    buffer = io.BytesIO()
    Image.fromarray(smooth).save(buffer, "JPEG", quality=95)
    how = preprocess(100, 80, resize="crop")
    difference = how.to_array(buffer.getvalue()).astype(int) - how.to_array(png(smooth))
    assert np.abs(difference).max() < 10
    assert np.abs(difference).mean() < 1


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not a picture"):
        preprocess(4, 4).to_array(b"hello")


@pytest.mark.parametrize(
    "fields", [{"width": 0}, {"height": 4097}, {"channels": 2}, {"resize": "half_crop"}, {"colour": "grey"}]
)
def test_bounds(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Preprocess(**({"width": 4, "height": 4, "channels": 3, "resize": "squash"} | fields))


def test_sizes_in_words() -> None:
    assert parse_size("224") == (224, 224)
    assert parse_size("320x240") == (320, 240)
    size = parse_size(" 320 X 240 ")
    assert (size.width, size.height) == (320, 240)


@pytest.mark.parametrize("text", ["", "x", "224x", "-3", "1.5", "3x4x5", "0", "4097", "10x0", "99999999999"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_size(text)
    assert caught.value.remedy
