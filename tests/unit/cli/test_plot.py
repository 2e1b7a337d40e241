"""Curves in the terminal."""

import time

import pytest

from vizsla.cli.plot import MAX_POINTS, Curve, Line, plot


def _rows(points: list[tuple[float, float]], width: int = 29, height: int = 8) -> list[str]:
    drawn = plot([Line("loss", "cyan", points)], width=width, height=height, last_step=100, number="{:.1f}".format)
    return drawn.plain.splitlines()


def _ink(rows: list[str]) -> list[list[int]]:
    """Where each row is drawn on."""
    return [[i for i, character in enumerate(row) if "\u2801" <= character <= "\u28ff"] for row in rows]


def test_a_falling_line_falls() -> None:
    rows = _rows([(step, 100 - step) for step in range(101)])
    assert rows[0].strip() == "loss"
    assert rows[1].split()[0] == "100.0"
    assert rows[5].split()[0] == "0.0"
    assert rows[-1].split() == ["0", "step", "100"]
    assert {len(row) for row in rows[1:6]} == {29}
    ink = _ink(rows[1:6])
    assert all(ink)
    assert ink == sorted(ink), "each row further right than the one above"


@pytest.mark.parametrize("points", [[], [(1, 2.0)], [(0, 1.0), (100, 1.0)], [(50, 1.0), (50, 2.0)]])
def test_little_to_draw_is_drawn(points: list[tuple[float, float]]) -> None:
    rows = _rows(points)
    assert len(rows) == 8
    assert any(_ink(rows)) == bool(points)


def test_a_long_run_takes_little_room_and_time() -> None:
    curve = Curve()
    began = time.perf_counter()
    for step in range(100_001):
        curve.add(step, float(step))
    assert MAX_POINTS / 2 <= len(curve.points) <= MAX_POINTS
    assert all(abs(step - value) < 100 for step, value in curve.points)
    assert curve.points[-1][0] == 100_000
    plot([Line("loss", "cyan", curve.points)], width=120, height=20, last_step=100_000, number=str)
    assert time.perf_counter() - began < 2


def test_what_was_undone_is_forgotten() -> None:
    curve = Curve()
    for step in range(10):
        curve.add(step, 1.0)
    curve.undo(4)
    assert [step for step, _ in curve.points] == [0, 1, 2, 3, 4]
    curve.add(5, 3.0)
    assert curve.points[-1] == (5, 3.0)
