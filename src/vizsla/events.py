"""What happened, one JSON object a line: written by the process that does the work, read by everybody else.

An event is a dict with `event` (its kind), `at` (ISO time, UTC) and its own fields. Lines are appended and flushed;
a reader takes only lines that end in a newline, so it never sees half of one. No whole line is ever taken away, so a
reader can go on from where it was: what a training undid by going on from a checkpoint is left out by `surviving`.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from vizsla import files
from vizsla.errors import InvalidInput

Event = dict[str, Any]
Skip = Callable[[bytes], bool]

# The kinds that end a piece of work. A log without one of them, and without a living process, was lost.
FINAL = ("done", "stopped", "failed")

# The kinds that tell of a step of a training; going on from a checkpoint undoes those of later steps.
CURVE = ("step", "validation", "epoch")


def now() -> str:
    """The time now in UTC, to the millisecond, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ignore_event(event: Event) -> None:
    """Take no notice of an event."""


class Part(NamedTuple):
    """Some of what happened."""

    events: list[Event]
    next: int
    """the place to go on from"""


class EventLog:
    """Appends events to a file. Only whole lines: what a kill or a full disk cut short is taken away again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with files.disk_errors(path):
            self._file = path.open("ab", buffering=0)
        if path.is_file():
            self._file.truncate(end(path))

    def write(self, event: str, **fields: Any) -> Event:
        """Append one event.

        Raises:
            DiskFull: there was no room for it.
        """
        line = {"event": event, "at": now(), **fields}
        data = (json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode()
        with files.disk_errors(self.path):
            before = self._file.seek(0, 2)
            try:
                while data:
                    data = data[self._file.write(data) :]
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(before)
                raise
        return line

    def notice(self, text: str) -> None:
        """Append a sentence that people should read."""
        self.write("notice", text=text)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Append how far a stage is."""
        self.write("progress", stage=stage, done=done, total=total)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(path: Path, offset: int = 0, *, at_least: int = -1) -> tuple[list[Event], int]:
    """The whole events from byte `offset` on, and the offset to go on from. A missing file holds no events.

    Args:
        at_least: bytes after which no further event is begun; -1 for all there are.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(at_least)
            if at_least >= 0 and not data.endswith(b"\n"):
                data += file.readline()
    except FileNotFoundError:
        return [], offset
    end = data.rfind(b"\n") + 1
    return [_parsed(line, path) for line in data[:end].splitlines() if line.strip()], offset + end


def is_place(path: Path, offset: int) -> bool:
    """Whether an event begins, or is going to begin, at byte `offset`."""
    if offset == 0:
        return True
    try:
        with path.open("rb") as file:
            file.seek(offset - 1)
            return file.read(1) == b"\n"
    except FileNotFoundError:
        return False


def part(path: Path, after: int, *, at_least: int) -> Part:
    """The whole events from the place `after` on, as `read` gives them.

    Raises:
        InvalidInput: no event begins there.
    """
    if not path.exists():  # it has not begun, or all that is left of it is what it made
        return Part([], after)
    if not is_place(path, after):
        raise InvalidInput("This is no place to go on from.", where="after", remedy="Begin without it.")
    return Part(*read(path, after, at_least=at_least))


def _parsed(line: bytes, path: Path) -> Event:
    try:
        event = json.loads(line)
        if isinstance(event, dict) and isinstance(event["event"], str):
            return event
    except (ValueError, KeyError):
        pass
    raise InvalidInput(f"A line is no event: {line[:80]!r}.", where=str(path), remedy="The file was damaged.")


def end(path: Path) -> int:
    """The place behind the last whole event; 0 where there is no file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return 0
    with file:
        end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


def surviving(lines: Iterable[Event]) -> list[Event]:
    """The events that still hold: `resumed` at step S undoes the steps, validations and epochs after S before it."""
    return list(_surviving_backwards(reversed(list(lines))))[::-1]


def surviving_backwards(path: Path, skip: Skip | None = None) -> Iterator[Event]:
    """As `surviving`, of a log from its last event to its first; see `backwards`."""
    return _surviving_backwards(backwards(path, skip=skip))


def _surviving_backwards(lines: Iterable[Event]) -> Iterator[Event]:
    lowest = math.inf
    for line in lines:
        if line["event"] == "resumed":
            lowest = min(lowest, line["step"])
        if line["event"] not in CURVE or line["step"] <= lowest:
            yield line


def last(path: Path) -> Event | None:
    """The last whole event."""
    return next(backwards(path), None)


def is_step(line: bytes) -> bool:
    """Whether a line is known for a step as `EventLog` writes it, without being parsed. Nearly all of a log are."""
    return line.startswith(b'{"event": "step"')


def backwards(path: Path, chunk_bytes: int = 65536, *, skip: Skip | None = None) -> Iterator[Event]:
    """The whole events from the last to the first, read piece by piece so that the end of a long log costs nothing.

    Args:
        skip: asked of each line when it is its turn, whether it is left out without being read.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        end = file.seek(0, 2)
        rest: bytes | None = None  # the beginning of a line whose start lies in an earlier piece
        while end > 0:
            start = max(0, end - chunk_bytes)
            file.seek(start)
            data = file.read(end - start)
            if rest is None:
                data = data[: data.rfind(b"\n") + 1]  # what follows the last newline is unfinished
            lines = (data + (rest or b"")).split(b"\n")
            rest = lines[0]
            for line in reversed(lines[1:] if start else lines):
                if line.strip() and not (skip and skip(line)):
                    yield _parsed(line, path)
            end = start
