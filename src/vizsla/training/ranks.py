"""Watches over the processes that train one run together: starts them, and begins again when one is killed. No torch.

Each process is `python -m vizsla.training.rank FOLDER RANK WORLD`. It leaves a last word in the folder unless it is
killed. When one ends badly the others are ended too: they would wait for it for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

from pydantic import BaseModel, ConfigDict

from vizsla import files, records, work
from vizsla.errors import DiskFull, WorkerDied, from_dict
from vizsla.events import EventLog
from vizsla.training import run
from vizsla.training.run import Request

RENDEZVOUS = ".rendezvous"
POLL_S = 0.05
# How long the others have to say what they died of, once one has ended badly.
GRACE_S = 2.0
# Beginnings from the same checkpoint before it is given up.
TRIES = 3


class Outcome(BaseModel):
    """`rank-N.json`: the last word of one process."""

    model_config = ConfigDict(frozen=True)

    format: Literal["vizsla.rank/1"] = "vizsla.rank/1"
    ended: Literal["done", "stopped", "failed", "out-of-memory", "left-alone"]
    error: dict[str, str] | None = None
    traceback: str = ""
    micro_batch: int = 0


class Ended(NamedTuple):
    """How the processes of one try ended."""

    outcomes: list[Outcome | None]
    """None: without a last word"""
    statuses: list[int]
    """of those that ended by themselves; 0 of those that were ended from here"""


def supervise(folder: Path, log: EventLog, stop: work.Stop, request: Request) -> str:
    """Train a run by several processes, to its end or a stop; returns "done" or "stopped".

    Raises:
        VizslaError: what a process failed with. That is not tried again: it would happen again.
        WorkerDied: processes were killed `TRIES` times without getting any further.
    """
    tries, reached = 1, _reached(folder)
    while True:
        ended = _run_ranks(folder, request.num_processes, stop)
        files.fsync(log.path)
        outcomes = [outcome for outcome in ended.outcomes if outcome is not None]
        if len(outcomes) == len(ended.outcomes) and {outcome.ended for outcome in outcomes} <= {"done", "stopped"}:
            return outcomes[0].ended
        failed = next((outcome for outcome in outcomes if outcome.ended == "failed"), None)
        if failed is not None:
            _fail(failed)
        if work.EXIT_DISK_FULL in ended.statuses:
            raise DiskFull("The disk is full.", where=str(folder), remedy="Free some space, then go on.")
        if stop.asked:
            return "stopped"
        tries = 1 if _reached(folder) != reached else tries + 1
        reached = _reached(folder)
        smaller = next((outcome for outcome in outcomes if outcome.ended == "out-of-memory"), None)
        if smaller is not None and smaller.micro_batch == 0:
            _fail(smaller)
        if smaller is not None:
            request = _with_micro_batch(folder, request, smaller.micro_batch)
            tries = 1
        if tries > TRIES:
            raise _gave_up(ended, folder)
        _say_again(folder, ended, smaller)


def _run_ranks(folder: Path, world: int, stop: work.Stop) -> Ended:
    """Start all processes, wait until all have ended, and end them all when one ends badly."""
    for path in (*folder.glob("rank-*.json"), folder / RENDEZVOUS):
        path.unlink(missing_ok=True)
    processes = [_start(folder, rank, world) for rank in range(world)]
    deadline: float | None = None
    signalled = False
    ended_here: set[int] = set()
    try:
        while any(process.poll() is None for process in processes):
            bad = any(process.poll() not in (None, 0) for process in processes)
            if stop.asked and not signalled:
                signalled = True
                _signal(processes, signal.SIGTERM)
            if bad and deadline is None:
                deadline = time.monotonic() + GRACE_S
            if deadline is not None and time.monotonic() > deadline:
                ended_here |= {rank for rank, process in enumerate(processes) if process.poll() is None}
                _signal(processes, signal.SIGKILL)
            time.sleep(POLL_S)
    finally:
        _signal(processes, signal.SIGKILL)
        for process in processes:
            process.wait()
    paths = [folder / f"rank-{rank}.json" for rank in range(world)]
    outcomes = [records.read(path, Outcome, remedy="") if path.exists() else None for path in paths]
    for path in paths:
        path.unlink(missing_ok=True)
    statuses = [0 if rank in ended_here else process.returncode for rank, process in enumerate(processes)]
    return Ended(outcomes, statuses)


def _start(folder: Path, rank: int, world: int) -> subprocess.Popen[bytes]:
    # Rank 0, which writes, holds the run's lock too: nobody goes on with the run while it lives.
    lock = [int(sys.argv[2])] if rank == 0 and len(sys.argv) > 2 else []
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "vizsla.training.rank", str(folder), str(rank), str(world), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        pass_fds=lock,
    )


def _signal(processes: list[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in processes:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)


def _reached(folder: Path) -> int | None:
    found = run.checkpoints(folder) if (folder / "run.json").exists() else []
    return found[-1].step if found else None


def _with_micro_batch(folder: Path, request: Request, micro_batch: int) -> Request:
    request = request.model_copy(update={"micro_batch": micro_batch})
    files.write_json(folder / work.REQUEST, request.model_dump(mode="json"))
    return request


def _say_again(folder: Path, ended: Ended, smaller: Outcome | None) -> None:
    """Say in the events why the processes begin again, and from where; repairs a line that was cut short."""
    if smaller is not None:
        why = f"Out of memory: from here on {smaller.micro_batch} pictures at a time go through each process"
    else:
        why = f"{_deaths(ended)}; all processes begin again from the last checkpoint"
    if _reached(folder) is not None:
        run.rewind(folder)
    with EventLog(folder / work.EVENTS) as log:
        log.notice(f"{why}.")


def _deaths(ended: Ended) -> str:
    killed = [
        f"number {rank} was killed by {signal.Signals(-status).name}"
        for rank, (status, outcome) in enumerate(zip(ended.statuses, ended.outcomes, strict=True))
        if status < 0 and outcome is None
    ]
    if killed:
        return f"Of {len(ended.statuses)} processes, {' and '.join(killed)}"
    errors = [outcome.error["what"] for outcome in ended.outcomes if outcome is not None and outcome.error]
    return " ".join(["The processes lost each other", *(f"({error})" for error in errors[:1])])


def _gave_up(ended: Ended, folder: Path) -> WorkerDied:
    return WorkerDied(
        f"{_deaths(ended)}, {TRIES} times at the same place.",
        where=str(folder / work.LOG),
        remedy="The kernel kills processes when memory runs out: try a smaller --batch-size or fewer --processes.",
    )


def _fail(outcome: Outcome) -> NoReturn:
    """Raise what a process failed with."""
    assert outcome.error is not None, "a failure has a reason"
    error = from_dict(outcome.error)
    error.trace = outcome.traceback
    raise error
