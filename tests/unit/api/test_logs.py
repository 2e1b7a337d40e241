"""Logs, line by line, while they grow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import vizsla
from vizsla.api.logs import MAX_LINE_BYTES, Line, Tail
from vizsla.errors import InvalidInput
from vizsla.store.workspace import Workspace


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with vizsla.open(tmp_path / "workspace") as opened:
        yield opened


@pytest.fixture
def log(ws: Workspace) -> Path:
    folder = ws.folder("run", "1aaaaaaaaa")
    folder.mkdir()
    return folder / "log.txt"


def test_only_whole_lines_are_told_until_the_end(ws: Workspace, log: Path) -> None:
    with Tail(ws, "run", "1aaaaaaaaa") as tail:
        assert tail.read(ended=False) == []
        log.write_bytes(b"one\r\ntw")
        assert tail.read(ended=False) == [Line("one", 5, False)]
        with log.open("ab") as file:
            file.write("ö\n\nthree".encode())
        assert tail.read(ended=False) == [Line("twö", 10, False), Line("", 11, False)]
        assert tail.read(ended=True) == [Line("three", 16, False)]
        assert tail.read(ended=True) == []
    with Tail(ws, "run", "1aaaaaaaaa", after=10) as tail:
        assert [line.text for line in tail.read(ended=True)] == ["", "three"]
    with pytest.raises(InvalidInput, match="no place"):
        Tail(ws, "run", "1aaaaaaaaa", after=17)
    with pytest.raises(InvalidInput, match="no place"):
        Tail(ws, "run", "1bbbbbbbbb", after=1)


@pytest.mark.parametrize("length", [MAX_LINE_BYTES - 1, MAX_LINE_BYTES, 3 * MAX_LINE_BYTES + 1, 200_000])
def test_long_lines_come_in_parts_and_lose_nothing(ws: Workspace, log: Path, length: int) -> None:
    text = "é" * (length // 2) + "x" * (length % 2)
    log.write_text(f"{text}\nend\n")
    found: list[Line] = []
    with Tail(ws, "run", "1aaaaaaaaa") as tail:
        while lines := tail.read(ended=False):
            found += lines
    assert all(len(line.text.encode()) <= MAX_LINE_BYTES for line in found)
    assert "".join(line.text + ("" if line.goes_on else "\n") for line in found) == f"{text}\nend\n"
    assert found[-1].next == log.stat().st_size


def test_a_log_that_is_tidied_away_is_read_to_its_end(ws: Workspace, log: Path) -> None:
    log.write_text("one\n")
    with Tail(ws, "run", "1aaaaaaaaa") as tail:
        assert len(tail.read(ended=False)) == 1
        with log.open("a") as file:
            file.write("two\n")
            log.unlink()
        assert [line.text for line in tail.read(ended=True)] == ["two"]


def test_the_log_of_what_is_gone_is_found(ws: Workspace) -> None:
    (ws.root / "cache").mkdir(exist_ok=True)
    (ws.root / "cache" / "1ccccccccc-log.txt").write_text("why\n")
    with Tail(ws, "dataset", "1ccccccccc") as tail:
        assert [line.text for line in tail.read(ended=True)] == ["why"]
