"""The process that builds: `python -m vizsla.datasets.worker FOLDER`, on the folder of the dataset to be."""

from __future__ import annotations

import time
from pathlib import Path

from vizsla import records, work
from vizsla.datasets import upload
from vizsla.datasets.build import build
from vizsla.datasets.sources import named_uploads
from vizsla.datasets.spec import Request
from vizsla.events import EventLog
from vizsla.machine import usage

PROGRESS_EVERY_S = 0.2


def do(folder: Path, log: EventLog, stop: work.Stop) -> str:
    """Build the dataset; `dataset.json` is written last."""
    request = records.read(folder / work.REQUEST, Request, remedy="Ask for it again.")
    told = ("", 0.0)

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal told
        if stage != told[0] or done == total or time.monotonic() - told[1] > PROGRESS_EVERY_S:
            told = (stage, time.monotonic())
            log.write("progress", stage=stage, done=done, total=total)

    uploads = folder.parents[1] / upload.UPLOADS  # of the workspace in which the folder lies
    build(
        request.spec,
        folder,
        id=request.id,
        name=request.name,
        progress=progress,
        uploads=uploads,
        allowed=request.allowed,
    )
    for id in named_uploads(request.spec):  # a dataset has pictures of its own
        upload.remove(uploads / id)
    return "done"


if __name__ == "__main__":
    work.leave(work.main(do, stop_at_once=True, beside=usage.watching))
