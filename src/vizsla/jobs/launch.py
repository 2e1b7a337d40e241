"""Starts worker processes and follows them. A worker outlives the process that started it, unless it is stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vizsla import events, files, work
from vizsla.errors import Busy, DiskFull, VizslaError, WorkerDied, from_dict
from vizsla.events import Event
from vizsla.jobs.schedule import HOST

POLL_S = 0.1
LOG_LINES_SHOWN = 8


def start(module: str, folder: Path, lock: files.Lock, devices: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start `module` on `folder`, in a process group of its own, and hand the folder's lock over to it.

    Args:
        devices: those that it was given, which it watches; with a place beside the trainings it sees no GPU.
    """
    with files.disk_errors(folder / work.LOG):
        log = (folder / work.LOG).open("ab")
    with log:
        process = subprocess.Popen(
            [*python(), module, str(folder), str(lock.fileno()), *([",".join(devices)] if devices else [])],
            env=_environment(devices),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lock.fileno()],
        )
    with contextlib.suppress(DiskFull):  # it says so itself in a moment, and works already
        lock.say_holder(process.pid)
    lock.release()
    return process


def follow(folder: Path, on_event: Callable[[Event], None]) -> None:
    """Tell `on_event` everything that happened in a folder, and what happens until nobody is at work in it any more.

    What was undone by then is left out. The work is left alone, whatever becomes of the one who follows.
    """
    offset = 0
    working = True
    while working:
        working = files.lock_holder(folder) is not None  # looked at before the events, so that none is missed
        new, offset = events.read(folder / work.EVENTS, offset)
        for event in events.surviving(new):
            on_event(event)
        if working:
            time.sleep(POLL_S)


_caught: list[int] | None = None
"""the signals that came since the outermost `interruptions` began"""


@contextlib.contextmanager
def interruptions() -> Iterator[list[int]]:
    """Collect Ctrl-C, and SIGTERM where the program handles it, instead of raising in the middle of anything.

    Within another one it goes on with the list of that.
    """
    global _caught  # noqa: PLW0603 - handlers of signals are global, and so is what they collect
    if threading.current_thread() is not threading.main_thread():
        yield []  # only the main thread gets signals
        return
    if _caught is not None:
        yield _caught
        return
    caught = _caught = []
    numbers = [signal.SIGINT]
    if signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN, None):
        numbers.append(signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, frame: caught.append(number)) for number in numbers}
    try:
        yield caught
    finally:
        _caught = None
        for number, handler in before.items():
            signal.signal(number, handler)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a worker's group of processes; harmless when it has ended, or is no worker but this process."""
    if pid <= 1 or pid in (os.getpid(), os.getpgrp()):
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def death(status: int | None, folder: Path) -> VizslaError:
    """What is said of a worker that ended without a last word.

    Args:
        status: its exit status, or minus the number of the signal that killed it; None: nobody was there to see it.
    """
    if status == work.EXIT_DISK_FULL:
        return DiskFull("The disk is full.", where=str(folder), remedy="Free some space, then go on.")
    if status is None:
        cause = "ended, nobody knows how,"
    else:
        cause = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    advice = _tail(folder / work.LOG) or "The kernel kills processes when memory runs out."
    if (folder / "run.json").exists():
        advice += " Try smaller batches."
        advice += f"\nThe run is kept: `vizsla run resume {folder.name}` goes on from its last checkpoint."
    return WorkerDied(
        f"The worker process {cause} without a last word.",
        where=str(folder / work.LOG),
        remedy=advice,
    )


def _tail(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(lines[-LOG_LINES_SHOWN:])


_left: list[subprocess.Popen[bytes]] = []
"""the processes that were left to themselves: one that has ended is a zombie until its parent looks"""


def leave(module: str, argument: str, log: Path) -> None:
    """Start `module` as a process that goes on by itself, whatever becomes of this one."""
    _left[:] = [process for process in _left if process.poll() is None]
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*python(), module, argument],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _left.append(process)


ASKED_AT_ONCE, ASKED_AT_MOST = 2, 8
PATIENCE_S = 60.0
_answering = threading.BoundedSemaphore(ASKED_AT_ONCE)
_asking = threading.BoundedSemaphore(ASKED_AT_MOST)


def ask(module: str, question: dict[str, Any], *, timeout_s: float | None = None) -> Any:
    """Ask a worker module one question, as JSON on its standard input, and return its JSON answer.

    For answers that need torch, which the asking process must not load. Two are asked at once, and six more wait.

    Raises:
        VizslaError: what the module answered with.
        WorkerDied: it gave no answer.
        Busy: many others are asking, or were still after `PATIENCE_S`, or the answer took longer than `timeout_s`.
    """
    with _places():
        try:
            done = subprocess.run(
                [*python(), module],
                env=_environment(),
                input=json.dumps(question),
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            raise Busy(f"The answer took longer than {timeout_s:g} seconds.", remedy="Ask again later.") from None
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise WorkerDied(
            f"{module} gave no answer (status {done.returncode}).", remedy=done.stderr.strip()[-2000:]
        ) from None
    if "error" in answer:
        raise from_dict(answer["error"])
    return answer["answer"]


@contextlib.contextmanager
def _places() -> Iterator[None]:
    if not _asking.acquire(blocking=False):
        raise Busy(f"{ASKED_AT_MOST} such questions are being answered.", remedy="Ask again in a few seconds.")
    try:
        if not _answering.acquire(timeout=PATIENCE_S):
            raise Busy("Other questions take long to be answered.", remedy="Ask again in a minute.")
        try:
            yield
        finally:
            _answering.release()
    finally:
        _asking.release()


def _environment(devices: Sequence[str] = ()) -> dict[str, str]:
    # CUDA would put the fastest card first, and the driver's library, which names who holds what, would not.
    found = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **os.environ}
    # Libraries take memory of the first card that they see, also where everything is computed on the processor.
    return found | {"CUDA_VISIBLE_DEVICES": ""} if HOST in devices else found


def python() -> list[str]:
    """The beginning of a command that runs a module."""
    # -P: a file of the user's that is called random.py must not stand in for Python's.
    return [sys.executable, "-P", "-m"]
