"""The process that trains, or that watches over the several that do.

Started as `python -m vizsla.training.worker FOLDER` on the folder of a run. A folder that holds `run.json` goes on
from its last checkpoint; one that holds only `request.json` begins.
"""

from __future__ import annotations

from pathlib import Path

from vizsla import records, work
from vizsla.events import EventLog
from vizsla.machine import usage
from vizsla.training.run import Request


def do(folder: Path, log: EventLog, stop: work.Stop) -> str:
    """Train the run in `folder` to its end, or until asked to stop; returns "done" or "stopped"."""
    request = records.read(folder / work.REQUEST, Request, remedy="Ask for it again.")
    if request.num_processes > 1:
        from vizsla.training import ranks

        return ranks.supervise(folder, log, stop, request)
    with work.loading():
        from vizsla.training import sitting

    return sitting.train_run(folder, log, stop, request)


if __name__ == "__main__":
    work.leave(work.main(do, stop_at_once=False, beside=usage.watching))
