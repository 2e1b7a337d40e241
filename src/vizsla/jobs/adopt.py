"""Trainings that go on although no job is known of them, as after the loss of the database."""

from __future__ import annotations

import contextlib
from pathlib import Path

from vizsla import events, files, records, work
from vizsla.errors import Conflict, VizslaError
from vizsla.jobs.schedule import CPU, Need
from vizsla.jobs.spec import JobSpec
from vizsla.store.rows import Thing
from vizsla.store.workspace import Workspace
from vizsla.training.run import Request, open_run


def adopt(ws: Workspace) -> int:
    """Give each such training a job, so that nobody else gets its devices and it is looked after; returns how many.

    The job has no owner, needs the whole of its devices, and goes on after kills as often as is usual.
    """
    known = {job.thing for job in ws.store.jobs.live()}
    found = 0
    for entry in ws.store.all("run"):
        folder = ws.folder("run", entry.id)
        if entry.id in known or files.lock_holder(folder) is None or not _trains(folder):
            continue
        held = _devices(folder)
        with contextlib.suppress(Conflict):  # another process has found it too
            ws.store.jobs.found(
                Thing("run", entry.id, entry.name),
                owner=entry.owner,
                need=Need(held, len(held)).as_dict(),
                held=held,
                retries=JobSpec().retries,
            )
            found += 1
    return found


def _trains(folder: Path) -> bool:
    """Whether it is a worker that holds the folder, and not one who deletes or renames what is at rest."""
    last = events.last(folder / work.EVENTS)
    return last is not None and last["event"] not in events.FINAL


def _devices(folder: Path) -> tuple[str, ...]:
    """Those that a run at work is on: those that it began on, unless it goes on on others."""
    with contextlib.suppress(VizslaError):
        request = records.read(folder / work.REQUEST, Request, remedy="Start a new run.")
        return (CPU,) if request.device == CPU else tuple(request.named_devices or open_run(folder).devices)
    return (CPU,)
