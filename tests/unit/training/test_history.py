"""The curves of a run: what its events say, read once, also while it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vizsla import events
from vizsla.errors import InvalidInput
from vizsla.training import history
from vizsla.training.history import NAMES, Curves, Histories, History


def _write(path: Path, *lines: dict[str, Any]) -> int:
    with path.open("a") as file:
        file.writelines(json.dumps({"at": events.now()} | line) + "\n" for line in lines)
    return path.stat().st_size


def _steps(*steps: int, loss: float = 1.0) -> list[dict[str, Any]]:
    return [
        {"event": "step", "step": s, "epoch": s // 10, "loss": loss / s, "memory_mb": 5, "elapsed_s": s / 2}
        for s in steps
    ]


def _epoch(step: int, accuracy: float | None) -> dict[str, Any]:
    interval = None if accuracy is None else {"value": accuracy, "low": 0.0, "method": "Wilson score"}
    return {
        "event": "epoch",
        "step": step,
        "epoch": step / 10,
        "val_accuracy": interval,
        "train_loss": 2,
        "elapsed_s": 3,
    }


def _values(curves: Curves) -> dict[str, list[tuple[int, float]]]:
    return {one.name: list(zip(one.step.tolist(), one.value.tolist(), strict=True)) for one in curves.series}


def _all(found: History, since: int = 0) -> Curves:
    return found.curves(points=1000, since=since, names=NAMES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_each_field_is_a_curve(path: Path) -> None:
    _write(path, {"event": "started", "total_steps": 30}, *_steps(10, 20), _epoch(20, 0.5), _epoch(30, None))
    found = _all(History(path))
    assert _values(found) == {
        "loss": [(10, 0.1), (20, 0.05)],
        "memory_mb": [(10, 5), (20, 5)],
        "train_loss": [(20, 2), (30, 2)],
        "val_accuracy": [(20, 0.5)],
    }
    assert [one.epoch.tolist() for one in found.series] == [[1, 2], [1, 2], [2, 3], [2]]
    assert found.series[0].elapsed_s.tolist() == [5, 10]


def test_what_was_added_is_told_alone(path: Path) -> None:
    asked = History(path)
    assert _all(asked) == Curves([], 0, None)
    first = _write(path, *_steps(1, 2))
    assert _all(asked).next == first
    _write(path, *_steps(3))
    with path.open("a") as file:
        file.write('{"event": "step", "ste')
    found = _all(asked, since=first)
    assert _values(found)["loss"] == [(3, 1 / 3)]
    assert _values(_all(asked))["loss"] == [(1, 1), (2, 0.5), (3, 1 / 3)]
    assert _all(asked, since=found.next) == Curves([], found.next, None)
    with path.open("a") as file:
        file.write('p": 4, "loss": 7}\n')
    assert _values(_all(asked, since=found.next))["loss"] == [(4, 7)]
    for wrong in (-1, path.stat().st_size + 1):
        with pytest.raises(InvalidInput, match="no place"):
            _all(asked, since=wrong)


def test_undone_steps_are_left_out_however_they_are_read(path: Path) -> None:
    """As `events.surviving` has it, read at once or line by line."""
    random = np.random.default_rng(0)
    growing, places, step = History(path), [], 0
    for _ in range(300):
        if step > 5 and random.random() < 0.05:
            step = int(random.integers(0, step))
            places.append(_write(path, {"event": "resumed", "step": step, "after": "lost"}))
        else:
            step += int(random.integers(1, 3))
            lines = _steps(step, loss=float(random.random()))
            places.append(_write(path, *lines, *([_epoch(step, 0.5)] if random.random() < 0.2 else [])))
        if random.random() < 0.3:
            _all(growing)
    lines = events.read(path)[0]
    holding = {
        "loss": [(e["step"], e["loss"]) for e in events.surviving(lines) if e["event"] == "step"],
        "train_loss": [(e["step"], 2.0) for e in events.surviving(lines) if e["event"] == "epoch"],
    }
    for asked in (growing, History(path)):
        found = _values(_all(asked))
        assert {name: found[name] for name in holding} == holding
        # Who knew the curve at any place, forgets what was undone and adds what is new, knows it now.
        for place in places:
            before = events.surviving([e for e in _until(path, place) if e["event"] in ("step", "resumed")])
            new = _all(asked, since=place)
            limit = new.undone_after if new.undone_after is not None else step + 1000
            known = [(e["step"], e["loss"]) for e in before if e["event"] == "step" and e["step"] <= limit]
            assert known + _values(new).get("loss", []) == holding["loss"]


def _until(path: Path, place: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes()[:place].splitlines()]


def test_it_is_not_read_twice(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = _write(path, *_steps(*range(1, 1000)))
    read: list[int] = []
    real = history._parsed
    monkeypatch.setattr(history, "_parsed", lambda data, path: (read.append(len(data)), real(data, path))[1])
    asked = History(path)
    for _ in range(3):
        _all(asked)
    assert read == [size]
    added = _write(path, *_steps(1000)) - size
    _all(asked)
    assert read == [size, added]


def test_another_file_is_read_anew(path: Path) -> None:
    _write(path, *_steps(1, 2, 3))
    asked = History(path)
    _all(asked)
    path.rename(path.with_suffix(".old"))
    _write(path, *_steps(4))
    assert _values(_all(asked))["loss"] == [(4, 0.25)]
    path.unlink()
    assert _all(asked).series == []


def test_pieces_make_no_difference(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(path, *_steps(*range(1, 200)), _epoch(199, 0.25))
    whole = _values(_all(History(path)))
    monkeypatch.setattr(history, "PIECE_BYTES", 100)
    assert _values(_all(History(path))) == whole


@pytest.mark.parametrize("line", ["{", "[1]", '{"event": "step"}', '{"event": "step", "step": "x"}', "{} {}"])
def test_damage_is_told(path: Path, line: str) -> None:
    path.write_text(line + "\n")
    with pytest.raises(InvalidInput, match="no event"):
        _all(History(path))


def test_memory_is_bounded(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(5)]
    for path in paths:
        _write(path, *_steps(*range(1, 500)))
    one = History(paths[0])
    _all(one)
    kept = Histories(max_bytes=one.num_bytes * 2)
    for path in paths:
        assert len(_values(_all(kept.of(path)))["loss"]) == 499
    assert kept.of(paths[4]) is kept.of(paths[4])
    assert kept.num_bytes <= one.num_bytes * 2
