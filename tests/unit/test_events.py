from pathlib import Path

import pytest

from vizsla import events
from vizsla.errors import DiskFull


def _fill(path: Path, num: int) -> None:
    with events.EventLog(path) as log:
        for i in range(num):
            log.write("step", step=i, text="é" * (i % 50))


def test_events_are_read_in_increments(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert events.read(path) == ([], 0)
    _fill(path, 3)
    first, offset = events.read(path)
    assert [e["step"] for e in first] == [0, 1, 2]
    assert events.read(path, offset) == ([], offset)
    _fill(path, 1)
    again, _ = events.read(path, offset)
    assert [e["step"] for e in again] == [0]


def test_half_a_line_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    _fill(path, 2)
    size = path.stat().st_size
    with path.open("a") as file:
        file.write('{"event": "st')
    found, offset = events.read(path)
    assert len(found) == 2
    assert offset == size
    last = events.last(path)
    assert last is not None
    assert last["step"] == 1
    with events.EventLog(path):
        pass
    assert path.stat().st_size == size


def _events(*kinds_and_steps: tuple[str, int]) -> list[events.Event]:
    return [{"event": kind, "step": step} for kind, step in kinds_and_steps]


def test_what_was_undone_does_not_survive(tmp_path: Path) -> None:
    lines = [
        *_events(("step", 10), ("epoch", 10), ("step", 20), ("validation", 20), ("epoch", 20), ("step", 30)),
        {"event": "notice", "text": "stays"},
        *_events(("resumed", 20), ("step", 30), ("epoch", 30), ("resumed", 10), ("step", 20), ("resumed", 20)),
        *_events(("step", 30)),
    ]
    kept = events.surviving(lines)
    curve = [(line["event"], line["step"]) for line in kept if line["event"] in events.CURVE]
    assert curve == [("step", 10), ("epoch", 10), ("step", 20), ("step", 30)]
    assert [line["event"] for line in kept if line["event"] not in events.CURVE] == ["notice"] + 3 * ["resumed"]
    assert events.surviving([]) == []
    with events.EventLog(tmp_path / "events.jsonl") as log:
        for line in lines:
            log.write(line["event"], **{key: value for key, value in line.items() if key != "event"})
    backwards = [(line["event"], line.get("step")) for line in events.surviving_backwards(log.path)]
    assert backwards == [(line["event"], line.get("step")) for line in reversed(kept)]


@pytest.mark.parametrize("chunk_bytes", [1, 7, 100, 1000, 10**6])
def test_backwards_is_the_reverse_of_forwards(tmp_path: Path, chunk_bytes: int) -> None:
    path = tmp_path / "events.jsonl"
    _fill(path, 120)
    forwards, _ = events.read(path)
    assert list(events.backwards(path, chunk_bytes)) == forwards[::-1]


def test_no_log_has_no_last_event(tmp_path: Path) -> None:
    assert events.last(tmp_path / "none.jsonl") is None


def test_a_full_disk_is_said_clearly() -> None:
    with pytest.raises(DiskFull), events.EventLog(Path("/dev/full")) as log:
        log.write("step", text="x" * 100)


def test_a_part_of_a_long_log_ends_with_a_whole_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with events.EventLog(path) as log:
        for number in range(100):
            log.write("step", step=number)
    seen, offset, parts = [], 0, 0
    while True:
        some, offset = events.read(path, offset, at_least=500)
        if not some:
            break
        seen += [line["step"] for line in some]
        parts += 1
    assert seen == list(range(100))
    assert 8 < parts < 15
    assert offset == path.stat().st_size
