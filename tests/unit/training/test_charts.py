import numpy as np
import pytest
from PIL import ImageFont

from vizsla.training.charts import Tile, contact_sheet, curve, fitted, number, ticks


@pytest.mark.parametrize(
    ("end", "at_most", "expected"),
    [
        (10, 12, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (0.0003, 8, [0, 0.00005, 0.0001, 0.00015, 0.0002, 0.00025, 0.0003]),
        (0.9, 8, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (1, 12, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        (0, 8, [0]),
    ],
)
def test_ticks_are_round_and_reach_the_end(end: float, at_most: int, expected: list[float]) -> None:
    assert ticks(end, at_most) == expected


def test_numbers_of_an_axis_have_no_exponent_that_could_be_spared() -> None:
    assert [number(value) for value in (0, 0.00005, 0.3, 10.0, 100.0, 3e-7)] == [
        "0",
        "0.00005",
        "0.3",
        "10",
        "100",
        "3e-07",
    ]


def test_a_long_name_is_shortened_to_its_column() -> None:
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    assert fitted("ring", font, 150) == "ring"
    short = fitted("a name with two\nlines and many more words", font, 150)
    assert short.startswith("a name with")
    assert short.endswith("…")
    assert font.getlength(short) <= 150


def test_a_curve_falls_where_its_points_fall() -> None:
    image = curve([(0, 1.0), (10, 0.0)], title="Rate", subtitle="", x_name="epochs", mark=(5, "half"))
    assert image.size == (1600, 900)
    pixels = np.asarray(image).astype(int)
    blue = pixels[..., 2] - pixels[..., 0] > 60
    heights = [np.flatnonzero(blue[:, column]).mean() for column in (300, 800, 1400)]
    assert heights == sorted(heights)


@pytest.mark.parametrize("shape", [(28, 28, 1), (300, 224, 3), (8, 40, 3)])
def test_a_sheet_holds_every_picture(shape: tuple[int, int, int]) -> None:
    rows = [
        [Tile(np.full(shape, 40 * row + 10 * column, np.uint8), ("a", "b")) for column in range(3)] for row in (1, 2)
    ]
    image = contact_sheet(rows, title="Sheet", subtitle=["one", "two"], heads=("before", "after"))
    values = set(np.unique(np.asarray(image.convert("L"))).tolist())
    assert {40, 50, 60, 80, 90, 100} <= values
