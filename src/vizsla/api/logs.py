"""What workers print: the log of a piece of work, line by line, also while it grows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

from vizsla import files, work
from vizsla.api.served import served
from vizsla.errors import InvalidInput
from vizsla.store.rows import Kind
from vizsla.store.workspace import Workspace
from vizsla.work import Line

MAX_LINE_BYTES = 8192
"""see `work.Line`"""
PIECE_BYTES = 65_536
POLL_S = 0.2


def _paths(ws: Workspace, kind: Kind, id: str) -> tuple[Path, Path]:
    """Where a log may lie: of work of which nothing is left, it is kept elsewhere."""
    return ws.folder(kind, id) / work.LOG, ws.root / "cache" / f"{id}-{work.LOG}"


def size(ws: Workspace, kind: Kind, id: str) -> int | None:
    """How many bytes the log of what works on a thing has; None: there is neither thing nor log."""
    for path in _paths(ws, kind, id):
        with contextlib.suppress(FileNotFoundError):
            return path.stat().st_size
    return 0 if ws.folder(kind, id).exists() else None


class Tail:
    """The log of what works on a thing. It stays open: one that is tidied away meanwhile is read to its end."""

    def __init__(self, ws: Workspace, kind: Kind, id: str, after: int = 0) -> None:
        """`after` is the `next` of the line before.

        Raises:
            InvalidInput: the log has not come so far.
        """
        self._paths = _paths(ws, kind, id)
        self._file: IO[bytes] | None = None
        self.place = after
        """behind the last line that was read"""
        if after and (self._open() is None or not self._has(after)):
            self.close()
            raise InvalidInput("This is no place to go on from.", where="after", remedy="Begin without it.")

    def read(self, *, ended: bool) -> list[Line]:
        """The next lines, some 64 KB of them at most; none where there are no more for now.

        Args:
            ended: nothing is going to be added, so what there is of a last line is a line.
        """
        file = self._open()
        if file is None:
            return []
        file.seek(self.place)
        data = file.read(PIECE_BYTES)
        whole = ended and len(data) < PIECE_BYTES
        found: list[Line] = []
        begin = 0
        while begin < len(data):
            end = data.find(b"\n", begin, begin + MAX_LINE_BYTES)
            cut = end < 0 and len(data) - begin >= MAX_LINE_BYTES
            if end < 0 and not cut and not whole:
                break
            after = end + 1 if end >= 0 else _cut(data, begin, begin + MAX_LINE_BYTES) if cut else len(data)
            text = data[begin:after].decode("utf-8", errors="replace").rstrip("\r\n")
            found.append(Line(text, self.place + after, cut))
            begin = after
        self.place += begin
        return found

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> IO[bytes] | None:
        for path in self._paths:
            if self._file is None:
                try:
                    self._file = path.open("rb")
                except FileNotFoundError:
                    continue
        return self._file

    def _has(self, place: int) -> bool:
        assert self._file is not None
        return place <= self._file.seek(0, 2)


def _cut(data: bytes, begin: int, end: int) -> int:
    """Where a long line is cut: not within a character of UTF-8."""
    for place in range(min(end, len(data) - 1), max(begin, end - 4), -1):
        if data[place] & 0xC0 != 0x80:
            return place
    return end


def is_live(ws: Workspace, kind: Kind, id: str) -> bool:
    """Whether something may still be added to the log of what works on a thing."""
    return files.lock_holder(ws.folder(kind, id)) is not None or ws.store.jobs.live_of(id) is not None


@served
def lines(ws: Workspace, reference: str, *, follow: bool = False) -> Iterator[Line]:
    """The log of a job, by its id or the beginning of it, or that of a thing by its name or id.

    Args:
        follow: go on until the job has ended.

    Raises:
        NotFound: there is no such job.
    """
    job = ws.store.jobs.find(reference)
    with Tail(ws, job.kind, job.thing) as tail:
        while True:
            live = is_live(ws, job.kind, job.thing)  # looked at before the log, so that no line is missed
            while found := tail.read(ended=not live):
                yield from found
            if not (live and follow):
                return
            time.sleep(POLL_S)
