"""What happens, told as it happens: one reader for each thing that is watched, however many watch it.

A reader knows how far its thing has come, and gives what lies after a place. Each client has a place of its own in
what it watches, and gets what follows as fast as it takes it: nothing waits for it in memory but one message, nothing
is left out and nothing told twice. See docs/rest.md for the messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson

from vizsla import events, work
from vizsla.api import logs
from vizsla.errors import InvalidInput
from vizsla.store.rows import Kind
from vizsla.store.workspace import Workspace
from vizsla.web.schema import JobAnswer

POLL_S = 0.25
PIECE_BYTES = 65_536
PIECE_JOBS = 200
# Clients that keep up ask for the same piece, within a moment.
PIECES_KEPT = 4

log = logging.getLogger("vizsla.web")

Key = tuple[str, str]
"""what is watched: ("run", its id), ("job", its id), ("log", the id of either) or ("jobs", "")"""


class Piece(NamedTuple):
    """What lies after a place."""

    message: str
    next: int


class Source(Protocol):
    """Something that can be watched. Its methods read files or the database, and are called in threads."""

    def end(self) -> int | None:
        """How far it has come; None: it is gone."""

    def after(self, place: int) -> Piece:
        """Some of what lies after a place, with `next` = `place` where that is nothing yet."""

    def place(self, asked: int | None) -> int:
        """The place that is asked for, or None: where it is now.

        Raises:
            InvalidInput: there is no such place.
        """


class EventsSource:
    """The events of a run or a job, which lie in a folder."""

    def __init__(self, key: Key, folder: Path) -> None:
        self._what, self._id = key
        self._folder = folder

    def end(self) -> int | None:
        """How long the file is; the last line may not be whole."""
        try:
            return (self._folder / work.EVENTS).stat().st_size
        except FileNotFoundError:
            return 0 if self._folder.exists() else None

    def after(self, place: int) -> Piece:
        """The next events."""
        lines, following = events.read(self._folder / work.EVENTS, place, at_least=PIECE_BYTES)
        return Piece(message("events", what=self._what, id=self._id, items=lines, next=str(following)), following)

    def place(self, asked: int | None) -> int:
        """Where an event begins, or will begin."""
        path = self._folder / work.EVENTS
        if asked is None:
            return events.end(path)
        if not events.is_place(path, asked):
            raise _no_place()
        return asked


class LogSource:
    """The log of what works on a thing."""

    def __init__(self, key: Key, ws: Workspace, kind: Kind, id: str) -> None:
        self._what, self._id = key
        self._ws = ws
        self._log = kind, id

    def end(self) -> int | None:
        """How long the log is, and one more when it grows no more: what there is of a last line is a line then."""
        size = logs.size(self._ws, *self._log)
        return None if size is None else size + (not logs.is_live(self._ws, *self._log))

    def after(self, place: int) -> Piece:
        """The next lines."""
        live = logs.is_live(self._ws, *self._log)  # before the log: no line is missed
        with logs.Tail(self._ws, *self._log, after=place) as tail:
            lines = [line._asdict() | {"next": str(line.next)} for line in tail.read(ended=not live)]
            following = tail.place
        return Piece(message("lines", what=self._what, id=self._id, items=lines, next=str(following)), following)

    def place(self, asked: int | None) -> int:
        """A place that the log has reached."""
        size = logs.size(self._ws, *self._log) or 0
        if asked is not None and asked > size:
            raise _no_place()
        return size if asked is None else asked


class JobsSource:
    """The changes of all jobs' states."""

    def __init__(self, ws: Workspace) -> None:
        self._jobs = ws.store.jobs

    def end(self) -> int | None:
        """The number of the last change."""
        return self._jobs.last_change()

    def after(self, place: int) -> Piece:
        """The next changes, each with its job as it is now."""
        changes = self._jobs.changes(place, PIECE_JOBS)
        items = [
            {**one.change._asdict(), "job": JobAnswer.model_validate(one.job).model_dump(mode="json")}
            for one in changes
        ]
        following = changes[-1].number if changes else place
        return Piece(message("jobs", items=items, next=str(following)), following)

    def place(self, asked: int | None) -> int:
        """The number of a change."""
        last = self._jobs.last_change()
        if asked is not None and asked > last:
            raise _no_place()
        return last if asked is None else asked


def _no_place() -> InvalidInput:
    return InvalidInput("This is no place to go on from.", where="after", remedy="Begin without it.")


def message(told: str, /, **fields: Any) -> str:
    """A message to a client: what it tells, and its fields."""
    return orjson.dumps({"is": told, **fields}).decode()


class Reader:
    """The one reader of a thing that is watched."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.end: int | None = 0
        self.wakes: set[Callable[[], None]] = set()
        """what is called when there is more"""
        self._pieces: OrderedDict[int, asyncio.Task[Piece]] = OrderedDict()

    async def after(self, place: int) -> Piece:
        """Some of what lies after a place, read once for all who want it now."""
        task = self._pieces.get(place)
        if task is None:
            task = self._pieces[place] = asyncio.create_task(asyncio.to_thread(self.source.after, place))
            if len(self._pieces) > PIECES_KEPT:
                self._pieces.popitem(last=False)
        try:
            piece = await asyncio.shield(task)
        except Exception:
            self._pieces.pop(place, None)
            raise
        if piece.next == place:
            self._pieces.pop(place, None)
        return piece


class Live:
    """The readers of all that is watched on a server, and the task that looks whether there is more."""

    def __init__(self) -> None:
        self._readers: dict[Key, Reader] = {}

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Look, as long as this lasts."""
        task = asyncio.create_task(self._look())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def num_readers(self) -> int:
        """How many things are watched."""
        return len(self._readers)

    def watch(self, key: Key, source: Source, wake: Callable[[], None]) -> Reader:
        """The reader of a thing, of `source` unless it has one; `wake` is called when there is more, until `leave`."""
        reader = self._readers.get(key)
        if reader is None:
            reader = self._readers[key] = Reader(source)
        reader.wakes.add(wake)
        return reader

    def leave(self, key: Key, wake: Callable[[], None]) -> None:
        """Watch no more. What nobody watches is not read."""
        reader = self._readers[key]
        reader.wakes.discard(wake)
        if not reader.wakes:
            del self._readers[key]

    async def _look(self) -> None:
        while True:
            readers = list(self._readers.values())
            if readers:
                ends = await asyncio.to_thread(_ends, readers)
                for reader, end in zip(readers, ends, strict=True):
                    if end != reader.end:
                        reader.end = end
                        for wake in list(reader.wakes):
                            wake()
            await asyncio.sleep(POLL_S)


def _ends(readers: list[Reader]) -> list[int | None]:
    found: list[int | None] = []
    for reader in readers:
        try:
            found.append(reader.source.end())
        except Exception:  # a database that is busy: the others go on, and this one is asked again
            log.exception("what is watched cannot be looked at")
            found.append(reader.end)
    return found
