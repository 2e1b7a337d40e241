"""One of several processes that train a run together; `vizsla.training.ranks` starts and watches it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Literal

from vizsla import files, records, work
from vizsla.errors import DiskFull, VizslaError
from vizsla.events import EventLog
from vizsla.training.ranks import Outcome
from vizsla.training.run import Request, open_run

with work.loading():
    import torch.distributed as dist

    from vizsla.training import arithmetic, distributed, sitting
    from vizsla.training.loop import OutOfMemory

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Train, leave a last word, and return the exit status: 0 when all went well."""
    folder, rank, world, parent = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    _die_with(parent)
    stop = work.Stop(at_once=False)
    try:
        outcome = Outcome(ended=_train(folder, rank, world, stop))
    except work.Stopped:
        outcome = Outcome(ended="stopped")
    except OutOfMemory as error:
        outcome = Outcome(ended="out-of-memory", error=error.as_dict(), micro_batch=error.micro_batch)
    except VizslaError as error:
        outcome = Outcome(ended="failed", error=error.as_dict())
    except Exception as error:
        traceback.print_exc()
        ended: Literal["failed", "left-alone"] = "left-alone" if _is_left_alone(error) else "failed"
        cause = work.expected(error, folder)
        outcome = Outcome(ended=ended, error=cause.as_dict(), traceback=cause.trace)
    status = 0 if outcome.ended in ("done", "stopped") else 1
    try:
        files.write_json(folder / f"rank-{rank}.json", outcome.model_dump())
    except DiskFull:
        status = work.EXIT_DISK_FULL
    return status


def _train(folder: Path, rank: int, world: int, stop: work.Stop) -> str:
    request = records.read(folder / work.REQUEST, Request, remedy="Ask for it again.")
    begun = (folder / "run.json").exists()
    if begun:
        device = arithmetic.devices_again(open_run(folder).devices, request.device, world)[rank]
    else:
        device = arithmetic.choose_devices(request.spec.device, world)[rank]
    group = distributed.join(folder, rank, world, device)
    if rank > 0:
        group.any(False)  # until the first has accepted the run
        own = sitting.resume(folder, None, stop, request, rank)
        own.group = group
        return _leave(sitting.attend(own))
    with EventLog(folder / work.EVENTS) as log:
        own = sitting.resume(folder, log, stop, request) if begun else sitting.begin(folder, log, stop, request)
        own.group = group
        group.any(False)
        return _leave(sitting.attend(own))


def _leave(ended: str) -> str:
    distributed.leave()
    return ended


def _is_left_alone(error: Exception) -> bool:
    """Whether an error only says that another process is gone."""
    signs = ("closed by peer", "reset by peer", "remote process exited", "Timed out", "timed out", "Broken pipe")
    return isinstance(error, dist.DistError | RuntimeError) and any(sign in str(error) for sign in signs)


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when the one that watches over it dies: no orphan holds a GPU."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    work.leave(main())
