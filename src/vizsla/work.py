"""The main of every worker process: one folder, one lock, one event log, one way to stop and to fail.

A worker is started as `python -m MODULE FOLDER [LOCK [DEVICES]]`, reads what to do from a JSON file in that folder, and
says how it goes in the folder's `events.jsonl`. LOCK is the descriptor of a lock on the folder that the parent hands
over, and DEVICES are those that it was given, such as cuda:0,cuda:1.
SIGTERM and SIGINT ask the worker to stop at the next safe point.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

from vizsla import files
from vizsla.errors import DiskFull, TrainingFailed, VizslaError
from vizsla.events import EventLog

REQUEST = "request.json"
EVENTS = "events.jsonl"
LOG = "log.txt"
PARTS = "parts"
"""a folder of what is done, for who is started again after a kill; it goes when the work is whole"""

LESS_MEMORY = "Use smaller pictures, a smaller network or a smaller --batch-size, or --device cpu."

EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_DISK_FULL = 4  # with a full disk the event that says so may not be written, so the exit code says it too


_held: list[files.Lock] = []


class Stopped(BaseException):
    """Leaves work that was asked to stop, when there is nothing to save. Not an error that a library might handle."""


class Stop:
    """Whether this process was asked to stop; true from the first SIGTERM or SIGINT on."""

    def __init__(self, *, at_once: bool) -> None:
        """`at_once` leaves the work right there, by `Stopped`; else it goes on until it looks."""
        self.asked = False
        self._at_once = at_once
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def check(self) -> None:
        """Raise `Stopped` when this process was asked to stop."""
        if self.asked:
            raise Stopped

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self._at_once:
            raise Stopped


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Import large libraries inside: the collector looks for garbage only afterwards, and not among what they made.

    They make hundreds of thousands of objects and next to no garbage; looking for it takes a quarter of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def leave(status: int) -> NoReturn:
    """End this process, and not through the interpreter's end.

    That would take large libraries apart, object by object, for a second; those for collective work would even wait
    for processes that are gone. Whatever is to be kept has to be on the disk before.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a full disk, a reader that has gone
            stream.flush()
    os._exit(status)


Beside = Callable[[Path, Sequence[str]], contextlib.AbstractContextManager[None]]


class Line(NamedTuple):
    """A line of a log, or a part of one that is very long."""

    text: str
    """without its end"""
    next: int
    """the place in the log after it"""
    goes_on: bool
    """whether it is a part, and the next one belongs to the same line"""


def main(do: Callable[[Path, EventLog, Stop], str], *, stop_at_once: bool, beside: Beside) -> int:
    """Run `do(folder, log, stop)` for the folder in `sys.argv[1]`; it returns the final event, "done" or "stopped".

    Work of which nothing is kept when it is stopped is left at once; other work looks at `stop` at its safe points.

    What `beside(folder, devices)` begins goes on meanwhile.

    Expected errors become a `failed` event with what, where and remedy; any other also carries its traceback.
    Returns the exit status of the process.
    """
    folder = Path(sys.argv[1])
    inherited = int(sys.argv[2]) if len(sys.argv) > 2 else None
    stop = Stop(at_once=stop_at_once)
    lock = files.Lock(folder, inherited)
    try:
        lock.acquire()
        _held.append(lock)  # let go by the kernel, when this process has ended and its device is free
        log = EventLog(folder / EVENTS)
    except DiskFull as error:
        with contextlib.suppress(OSError):
            print(error, file=sys.stderr)
        return EXIT_DISK_FULL
    devices = sys.argv[3].split(",") if len(sys.argv) > 3 else []
    with log, beside(folder, devices):
        try:
            log.write(_outcome(do, folder, log, stop))
        except VizslaError as error:
            _failed(log, error, error.trace)
            return EXIT_DISK_FULL if isinstance(error, DiskFull) else EXIT_REFUSED
        except Exception as error:
            with contextlib.suppress(OSError):
                traceback.print_exc()
            _failed(log, found := expected(error, folder), found.trace)
            return EXIT_FAILED if found.kind == "defect" else EXIT_REFUSED
    return 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, has no memory left. torch's is known by its name."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    signs = ("can't allocate memory", "not enough memory", "std::bad_alloc", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def expected(error: Exception, folder: Path) -> VizslaError:
    """What is said of an exception that no code foresaw: a lack of memory, or else a defect with its traceback."""
    if is_out_of_memory(error):
        return TrainingFailed(f"The device is out of memory: {error}", remedy=LESS_MEMORY)
    found = VizslaError(
        f"{type(error).__name__}: {error}",
        where=str(folder / LOG),
        remedy="This is a defect of Vizsla or of a library; the log has the traceback.",
    )
    found.kind = "defect"
    found.trace = "".join(traceback.format_exception(error))
    return found


def _outcome(do: Callable[[Path, EventLog, Stop], str], folder: Path, log: EventLog, stop: Stop) -> str:
    try:
        return do(folder, log, stop)
    except Stopped:
        return "stopped"


def _failed(log: EventLog, error: VizslaError, trace: str = "") -> None:
    fields = {"error": error.as_dict()} | ({"traceback": trace} if trace else {})
    try:
        log.write("failed", **fields)
    except (DiskFull, OSError):
        with contextlib.suppress(OSError):  # the log lies on the same full disk
            print(error, file=sys.stderr)
