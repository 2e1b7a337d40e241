"""The curves of a run, from its events: read once and then only what was added, also while the run goes on.

Columns of numbers stay in memory, bounded over all runs; the file is never read again from its beginning unless it is
another file.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import orjson
import pyarrow
import pyarrow.compute
import pyarrow.json

from vizsla import events
from vizsla.errors import InvalidInput
from vizsla.metrics import Bools, Floats, Ints, downsample

OF_STEPS = (
    "loss",
    "learning_rate",
    "pictures_per_s",
    "data_wait",
    "memory_mb",
    "device_use",
    "device_memory_mb",
    "device_temperature_c",
    "device_power_w",
)
OF_VALIDATIONS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_balanced_accuracy")
NAMES = (*OF_STEPS, *OF_VALIDATIONS)
"""the curves there are, by the fields of the events (see docs/formats.md)"""

AXES = ("step", "epoch", "elapsed_s")
PIECE_BYTES = 4_000_000
MAX_BYTES = 256_000_000
# Many ask for the same at a time: all who watch a run.
ANSWERS_KEPT, MAX_POINTS_KEPT = 4, 1000
# Of long logs: more at a time would each take longer, and none of those who ask would be answered sooner.
_reading = threading.BoundedSemaphore(2)
# Of curves, one after the other: each takes a moment, and threads that take theirs together hold each other up.
_drawing = threading.Lock()


class Series(NamedTuple):
    """A curve: arrays of n, by rising step."""

    name: str
    step: Ints
    epoch: Floats
    elapsed_s: Floats
    """time spent training, without pauses"""
    value: Floats
    num_points: int
    """before some of them were chosen"""


@dataclass(frozen=True)
class Curves:
    """Some of the points of a run."""

    series: list[Series]
    next: int
    """the place in the events from which on there may be more"""
    undone_after: int | None
    """points of later steps that were told before are undone: the run has gone on from this step"""

    @cached_property
    def json(self) -> bytes:
        """The same as a JSON document. The place to go on from is a text there, as it is in a query."""
        series = [one._asdict() for one in self.series]
        document = {"series": series, "next": str(self.next), "undone_after": self.undone_after}
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


class _Rows:
    """Columns that grow. What was appended is kept in arrays with room to spare."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._columns = {name: np.empty(0) for name in ("place", *AXES, *names)}
        self.length = 0

    def __getitem__(self, name: str) -> Floats:
        return self._columns[name][: self.length]

    @property
    def num_bytes(self) -> int:
        return sum(column.nbytes for column in self._columns.values())

    def append(self, columns: dict[str, Floats], which: Ints) -> None:
        end = self.length + len(which)
        for name, column in self._columns.items():
            if end > len(column):
                self._columns[name] = np.empty(max(end, 64, len(column) * 3 // 2))
                self._columns[name][: self.length] = column[: self.length]
            self._columns[name][self.length : end] = columns[name][which]
        self.length = end

    def undo(self, step: float) -> None:
        self.length = int(np.searchsorted(self["step"], step, side="right"))


class History:
    """What is known of the curves of one run. Safe to be asked by several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._inode, self._offset = -1, 0
        self._steps, self._validations = _Rows(OF_STEPS), _Rows(OF_VALIDATIONS)
        self._told: dict[tuple[int, int, tuple[str, ...]], Curves] = {}  # until there is more
        self._undone: list[tuple[int, int]] = []  # the place after a `resumed`, and the step that it goes on from

    @property
    def num_bytes(self) -> int:
        """Memory that it takes."""
        return self._steps.num_bytes + self._validations.num_bytes

    def curves(self, *, points: int, since: int, names: tuple[str, ...]) -> Curves:
        """See `api.history.get`."""
        with self._lock:
            self._read_on()
            if not 0 <= since <= self._offset:
                raise InvalidInput("This is no place to go on from.", where="since", remedy="Begin without it.")
            asked = (points, since, names)
            if asked in self._told:
                return self._told[asked]
            undone = [step for place, step in self._undone if place > since]
            with _drawing:
                series = [_series(self._of(name), name, since, points) for name in names]
            undone_after = min(undone) if undone and since else None
            found = Curves([one for one in series if one.num_points], self._offset, undone_after)
            if points <= MAX_POINTS_KEPT and len(self._told) < ANSWERS_KEPT:
                self._told[asked] = found
            return found

    def _of(self, name: str) -> _Rows:
        return self._steps if name in OF_STEPS else self._validations

    def _read_on(self) -> None:
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            self._forget()
            return
        with file:
            stat = os.fstat(file.fileno())
            if stat.st_ino != self._inode or stat.st_size < self._offset:
                self._forget()
                self._inode = stat.st_ino
            with _reading if stat.st_size - self._offset > PIECE_BYTES else contextlib.nullcontext():
                while stat.st_size > self._offset and self._take_piece(file):
                    pass

    def _take_piece(self, file: BinaryIO) -> bool:
        """Take what follows in a file; false where that is no whole line."""
        file.seek(self._offset)
        data = file.read(PIECE_BYTES)
        if len(data) == PIECE_BYTES and not data.endswith(b"\n"):
            data += file.readline()
        end = data.rfind(b"\n") + 1
        if end:
            self._take(data[:end])
            self._offset += end
            self._told = {}
        return end > 0

    def _take(self, data: bytes) -> None:
        is_kind, columns = _parsed(data, self._path)
        steps, end = columns["step"], len(columns["step"])
        place: Floats
        columns["place"] = place = (
            np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1 + self._offset
        ).astype(np.float64)
        if end != len(place):
            raise _damaged(self._path)
        begin = 0
        for at in [*np.flatnonzero(is_kind["resumed"]).tolist(), end]:
            self._steps.append(columns, begin + np.flatnonzero(is_kind["step"][begin:at]))
            looked = is_kind["validation"][begin:at] | is_kind["epoch"][begin:at]
            self._validations.append(columns, begin + np.flatnonzero(looked))
            if at < end:
                self._steps.undo(steps[at])
                self._validations.undo(steps[at])
                self._undone.append((int(place[at]), int(steps[at])))
            begin = at


def _series(rows: _Rows, name: str, since: int, points: int) -> Series:
    first = int(np.searchsorted(rows["place"], since, side="right"))
    value = rows[name][first:]
    which = np.flatnonzero(np.isfinite(value))
    num_points = len(which)
    which = which[downsample(rows["step"][first:][which], value[which], points)]
    step, epoch, elapsed_s = (rows[axis][first:][which] for axis in AXES)
    return Series(name, step.astype(np.int64), epoch, elapsed_s, value[which], num_points)


def _parsed(data: bytes, path: Path) -> tuple[dict[str, Bools], dict[str, Floats]]:
    """Which events are of which kind, and what they say of each curve: NaN where that is nothing."""
    options = pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1)
    try:
        table = pyarrow.json.read_json(pyarrow.BufferReader(data), options, _FORMAT)
    except pyarrow.ArrowInvalid as error:
        raise _damaged(path) from error
    columns = {name: table[name].to_numpy() for name in (*AXES, *NAMES) if name != "val_accuracy"}
    columns["val_accuracy"] = pyarrow.compute.struct_field(table["val_accuracy"], "value").to_numpy()
    kinds = pyarrow.compute.fill_null(table["event"], "")
    is_kind = {kind: pyarrow.compute.equal(kinds, kind).to_numpy() for kind in ("resumed", *events.CURVE)}
    if not np.isfinite(columns["step"][np.logical_or.reduce(list(is_kind.values()))]).all():
        raise _damaged(path)
    return is_kind, columns


def _damaged(path: Path) -> InvalidInput:
    return InvalidInput("A line is no event.", where=str(path), remedy="The file was damaged.")


_FORMAT = pyarrow.json.ParseOptions(
    explicit_schema=pyarrow.schema(
        [
            ("event", pyarrow.string()),
            *((name, pyarrow.float64()) for name in (*AXES, *NAMES) if name != "val_accuracy"),
            ("val_accuracy", pyarrow.struct([("value", pyarrow.float64())])),
        ]
    ),
    unexpected_field_behavior="ignore",
)


class Histories:
    """What is known of the curves of several runs: those asked for last, as far as there is memory for them."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Path, History] = OrderedDict()

    def of(self, path: Path) -> History:
        """The history in the events at `path`."""
        with self._lock:
            found = self._kept.setdefault(path, History(path))
            self._kept.move_to_end(path)
            # One that is new takes its memory when it is asked; the next one to come makes room.
            while len(self._kept) > 1 and self.num_bytes > self._max_bytes:
                self._kept.popitem(last=False)
            return found

    @property
    def num_bytes(self) -> int:
        """Memory that all of them take."""
        return sum(one.num_bytes for one in list(self._kept.values()))
