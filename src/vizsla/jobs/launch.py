"""Starts worker processes and follows them. A worker outlives the process that started it, unless it is stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vizsla import events, files, work
from vizsla.errors import DiskFull, WorkerDied, from_dict
from vizsla.events import Event

POLL_S = 0.1
LOG_LINES_SHOWN = 8


def start(module: str, folder: Path, lock: files.Lock) -> subprocess.Popen[bytes]:
    """Start `module` on `folder`, in a process group of its own, and hand the folder's lock over to it."""
    with (folder / work.LOG).open("ab") as log:
        process = subprocess.Popen(
            [*_python(), module, str(folder), str(lock.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lock.fileno()],
        )
    lock.release()
    return process


def finish(process: subprocess.Popen[bytes], folder: Path, on_event: Callable[[Event], None], offset: int = 0) -> Event:
    """Follow a worker to its end, passing its events on; returns the final one, "done" or "stopped".

    Ctrl-C here asks the worker to stop at its next safe point, waits for that, and tells `on_event` by an event
    `stopping`; a second one kills it.

    Raises:
        VizslaError: what the worker failed with.
        WorkerDied: it ended without a last word.
        KeyboardInterrupt: it ended without a last word because it was interrupted before it was ready to stop well.
    """
    final: Event | None = None
    interrupted = False
    path = folder / work.EVENTS
    while True:
        try:
            ended = process.poll() is not None  # looked at before the events, so that none is missed at the end
            new, offset = events.read(path, offset)
            for event in new:
                final = event if event["event"] in events.FINAL else final
                on_event(event)
            if ended:
                break
            time.sleep(POLL_S)
        except KeyboardInterrupt:
            _signal(process.pid, signal.SIGKILL if interrupted else signal.SIGTERM)
            interrupted = True
            on_event({"event": "stopping", "at": events.now()})
    if final is None and interrupted:
        raise KeyboardInterrupt
    if final is None:
        raise _death(process.returncode, folder)
    if final["event"] == "failed":
        raise from_dict(final["error"])
    return final


def finish_whole(process: subprocess.Popen[bytes], folder: Path, on_event: Callable[[Event], None]) -> None:
    """As `finish`, for work of which nothing is kept when it is stopped: that is a KeyboardInterrupt here."""
    if finish(process, folder, on_event)["event"] == "stopped":
        raise KeyboardInterrupt


def stop(pid: int) -> None:
    """Ask the worker whose process group is `pid` to stop at its next safe point."""
    _signal(pid, signal.SIGTERM)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _death(status: int, folder: Path) -> Exception:
    if status == work.EXIT_DISK_FULL:
        return DiskFull("The disk is full.", where=str(folder), remedy="Free some space, then go on.")
    cause = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return WorkerDied(
        f"The worker process {cause} without a last word.",
        where=str(folder / work.LOG),
        remedy=_tail(folder / work.LOG) or "The kernel kills processes when memory runs out: try smaller batches.",
    )


def _tail(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(lines[-LOG_LINES_SHOWN:])


def ask(module: str, question: dict[str, Any]) -> Any:
    """Ask a worker module one question, as JSON on its standard input, and return its JSON answer.

    For answers that need torch, which the asking process must not load.

    Raises:
        VizslaError: what the module answered with.
        WorkerDied: it gave no answer.
    """
    done = subprocess.run([*_python(), module], input=json.dumps(question), capture_output=True, text=True, check=False)
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise WorkerDied(
            f"{module} gave no answer (status {done.returncode}).", remedy=done.stderr.strip()[-2000:]
        ) from None
    if "error" in answer:
        raise from_dict(answer["error"])
    return answer["answer"]


def _python() -> list[str]:
    # -P: a file of the user's that is called random.py must not stand in for Python's.
    return [sys.executable, "-P", "-m"]
