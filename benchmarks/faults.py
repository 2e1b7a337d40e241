"""Kill whatever looks after the queue, works in it or keeps it, and fill its disk, at random moments.

    python benchmarks/faults.py --data PICTURES --rounds 100
    python benchmarks/faults.py --data PICTURES --rounds 100 --postgres

PICTURES has one sub-folder a class. In each round some jobs go into the queue (datasets, trainings on them,
evaluations), `vizsla jobs keep` or `vizsla serve` looks after it, and after a random time one or two of these happen:
the keeper is killed with SIGKILL, or a worker; a job is asked to stop; the PostgreSQL server is killed, and comes back
a moment later; the disk has no room any more, for a moment. Now and then more work is asked for meanwhile. At the end
a keeper works off what is left, and every job is held against its history.

The disk is a file system in memory that is made small; it needs the right to mount one, else no disk is filled. The
PostgreSQL server is started from Debian's packages, with its files on the same disk.

Reported: jobs by how they ended, attempts, and each rule that was broken: a job that is not at its end, that was done
twice, whose states do not follow each other, that holds a device after its end; a job that failed for another reason
than the true one; a finished job without its thing or a stopped one with half a thing; a folder without a row, a row
without a folder; a lock that is held, a process that is left.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import common
import psutil

sys.path.insert(0, str(common.HERE.parent))

from tests.postgres import Postgres, programs

import vizsla
from vizsla import files
from vizsla.api import datasets, evaluations, runs, workspace
from vizsla.datasets.spec import DatasetSpec
from vizsla.errors import DatabaseUnavailable, DiskFull, NotFound, VizslaError
from vizsla.jobs import queue
from vizsla.jobs.spec import JobSpec
from vizsla.store.rows import Job
from vizsla.store.workspace import FINAL_FILE, QUEUE, Workspace
from vizsla.training.spec import TrainingSpec

PATIENT = JobSpec(retries=100)
TRAINING = TrainingSpec(net="lenet", tune="scratch", epochs=3, batch_size=16, crop=28, checkpoint_every_s=0.2)
FOLLOWS = {
    "queued": {"starting", "stopped", "failed"},
    "starting": {"running", "stopping", "done", "failed", "stopped", "lost", "queued"},
    "running": {"stopping", "done", "failed", "stopped", "lost", "queued"},
    "stopping": {"done", "failed", "stopped", "lost"},
}
FAULTS = (DatabaseUnavailable, DiskFull)
"""what may be answered while there is no database, or no room"""
STUCK_S = 300
"""after so long without any change, what is not at its end never will be"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one sub-folder of pictures a class")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--span", type=float, default=4.0, help="seconds of a round at most")
    parser.add_argument("--seed", type=int, default=0, help="of what is asked for, killed and stopped")
    parser.add_argument("--postgres", action="store_true", help="with a PostgreSQL server, which is killed too")
    parser.add_argument("--out", type=Path, help="default: results/faults-MACHINE.json")
    return parser.parse_args()


class Disk:
    """A file system in memory, whose size can be what is in it."""

    SIZE = "4g"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self.SIZE},mode=755", "tmpfs", str(folder)]
        allowed = os.geteuid() == 0 and shutil.which("mount") is not None
        self.mounted = allowed and subprocess.run(mount, check=False).returncode == 0

    def fill(self) -> None:
        """Leave no room."""
        while not self._resize(str(shutil.disk_usage(self.folder).used)):
            pass  # more was written meanwhile

    def free(self) -> None:
        """Give the room back."""
        assert self._resize(self.SIZE)

    def _resize(self, size: str) -> bool:
        command = ["mount", "-o", f"remount,size={size}", str(self.folder)]
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


@dataclass
class Site:
    """What there is to disturb."""

    ws: Workspace
    data: Path
    disk: Disk
    database: Postgres | None
    chance: random.Random
    keeper: subprocess.Popen[bytes] | None = None
    kept_by: str = ""
    asked: list[Job] = field(default_factory=list)
    number: int = 0
    done: Counter[str] = field(default_factory=Counter)

    def keep(self) -> None:
        """See that somebody looks after the queue."""
        if self.keeper is not None and self.keeper.poll() is None:
            return
        self.kept_by = self.chance.choice(("keeper", "server"))
        words = ["jobs", "keep"] if self.kept_by == "keeper" else ["serve", "--port", "0"]
        command = [sys.executable, "-m", "vizsla", *words, "--workspace", str(self.ws.root)]
        self.keeper = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def leave(self) -> None:
        """Let nobody look after the queue any more."""
        if self.keeper is not None:
            self.keeper.terminate()
            self.keeper.wait()

    def ask(self) -> None:
        """Put some jobs into the queue."""
        ws, chance, number = self.ws, self.chance, self.number
        self.number += 1
        spec = DatasetSpec(source=self.data, width=32, height=32, val_percent=20, max_per_class=20, seed=number)
        dataset = datasets.submit(ws, f"d{number}", spec, job=PATIENT)
        self.asked.append(dataset)
        if chance.random() < 0.5:
            with contextlib.suppress(NotFound):  # when the dataset has just failed for want of room
                self.asked.append(runs.submit(ws, dataset.thing, TRAINING, name=f"r{number}", job=PATIENT))
        trained = [status.run for status in runs.list_all(ws) if status.progress.state == "done"]
        if trained and chance.random() < 0.5:
            self.asked.append(evaluations.submit(ws, chance.choice(trained).id, split="val", job=PATIENT))

    def try_to_ask(self) -> None:
        """Ask while it may be refused."""
        if self.chance.random() < 0.5:
            try:
                self.ask()
            except FAULTS as error:
                self.done[f"refused: {error.kind}"] += 1

    def disturb(self) -> None:
        """Let one or two things happen."""
        kinds = ["keeper", "worker", "stop"]
        kinds += ["database"] if self.database else []
        kinds += ["disk"] if self.disk.mounted else []
        first, *then = self.chance.sample(kinds, self.chance.choice((1, 2)))
        with self._during(first):
            for other in then:
                with self._during(other):
                    pass
        self.done[" and ".join(sorted((first, *then))).replace("keeper", self.kept_by)] += 1

    @contextlib.contextmanager
    def _during(self, kind: str) -> Iterator[None]:
        chance = self.chance
        if kind == "database":
            assert self.database is not None
            self.database.kill()
            self.try_to_ask()
            yield
            time.sleep(chance.uniform(0, 2))
            if not self.database.alive:
                self.database.start()
        elif kind == "disk":
            self.disk.fill()
            self.try_to_ask()
            yield
            time.sleep(chance.uniform(0, 2))
            self.disk.free()
            if self.database and not self.database.alive:  # it gives up where it cannot write
                self.database.start()
        else:
            with contextlib.suppress(*FAULTS):
                self._kill_or_stop(kind)
            yield

    def _kill_or_stop(self, kind: str) -> None:
        if kind == "keeper":
            assert self.keeper is not None
            self.keeper.kill()
            self.keeper.wait()
            return
        live = self.ws.store.jobs.live()
        if kind == "stop" and live:
            queue.stop(self.ws, self.chance.choice(live))
        workers = [pid for job in live if (pid := files.lock_holder(self.ws.folder(job.kind, job.thing)))]
        if kind == "worker" and (workers := [pid for pid in workers if pid != os.getpid()]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(workers), signal.SIGKILL)


def broken(ws: Workspace, job: Job, disk_was_full: bool) -> list[str]:
    """The rules that a job breaks after everything has ended."""
    states = [change.state for change in ws.store.jobs.history(job.id)]
    finished = ws.is_finished(job.kind, job.thing)
    full = disk_was_full and job.failure == "disk" and bool(job.error) and job.error["kind"] == "disk-full"
    rules = {
        "not at its end": not job.live,
        "done more than once": states.count("done") <= 1,
        "a state without the one before": all(b in FOLLOWS.get(a, set()) for a, b in pairwise(states)),
        "attempts that were not told": states.count("starting") == job.attempt,
        "holds a device": not job.held,
        "is still locked": files.lock_holder(ws.folder(job.kind, job.thing)) is None,
        "done without its thing": job.state != "done" or finished,
        "failed without a reason": job.state != "failed" or bool(job.error),
        "left half a thing": finished or not ws.folder(job.kind, job.thing).exists(),
        "failed for another reason": job.state in ("done", "stopped") or job.failure == "parent" or full,
    }
    return [rule for rule, holds in rules.items() if not holds]


def half_made(ws: Workspace) -> list[str]:
    """Folders without a row, rows without a folder, and what is not finished."""
    found = []
    for kind in FINAL_FILE:
        rows = {row.id for row in ws.store.all(kind)}
        folders = {path.name for path in (ws.root / f"{kind}s").iterdir()}
        found += [f"{kind} {id}" for id in rows ^ folders]
        found += [f"{kind} {id} is not finished" for id in rows & folders if not ws.is_finished(kind, id)]
    return found


def measure(site: Site, options: argparse.Namespace) -> dict[str, Any]:
    """All rounds."""
    ws = site.ws
    site.keep()
    for number in range(options.rounds):
        try:
            site.ask()
        except VizslaError as error:
            raise SystemExit(f"round {number}: {error}") from None
        time.sleep(site.chance.uniform(0, options.span))
        site.disturb()
        time.sleep(site.chance.uniform(0, 0.3))  # what was killed is gone, or not yet
        site.keep()
        if number % 10 == 9:
            print(
                f"round {number + 1}: {len(site.asked)} jobs, {len(ws.store.jobs.live())} not at their end", flush=True
            )
    seen: list[Job] = []
    changed_at = time.monotonic()
    while (live := ws.store.jobs.live()) and time.monotonic() < changed_at + STUCK_S:
        if live != seen:
            seen, changed_at = live, time.monotonic()
        time.sleep(1)
        site.keep()
    site.leave()
    workspace.ORPHAN_AGE_S = 0  # else a sweep leaves for an hour what may be in the making
    workspace.sweep(ws)
    full = any("disk" in what for what in site.done)
    ended = {job.id: job for job in [*ws.store.jobs.newest(1_000_000), *(ws.store.jobs.get(j.id) for j in site.asked)]}
    found = {f"{job.kind} {job.id}": rules for job in ended.values() if (rules := broken(ws, job, full))}
    left = [p.pid for p in psutil.process_iter(["cmdline"]) if str(ws.root) in " ".join(p.info["cmdline"] or [])]
    return {
        "disturbances": dict(sorted(site.done.items())),
        "jobs": len(ended),
        "ended": dict(sorted(Counter(f"{job.kind} {job.state}" for job in ended.values()).items())),
        "failures": dict(Counter(job.failure for job in ended.values() if job.failure)),
        "attempts": sum(job.attempt for job in ended.values()),
        "most_attempts": max(job.attempt for job in ended.values()),
        "broken_rules": found,
        "half_made": half_made(ws),
        "locked": files.lock_holder(ws.root / QUEUE),
        "processes_left": len(left),
    }


@contextlib.contextmanager
def site(options: argparse.Namespace) -> Iterator[Site]:
    """A workspace on a disk of its own."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vizsla-faults-")))
        scratch.chmod(0o755)  # the account of the database has to reach its files
        disk = Disk(scratch / "disk")
        stack.callback(disk.close)
        database = Postgres(disk.folder / "postgres") if options.postgres else None
        url = None
        if database is not None:
            stack.callback(database.stop)
            database.start()
            url = database.create("vizsla")
        ws = stack.enter_context(vizsla.open(disk.folder / "workspace", database=url))
        made = Site(ws, options.data.absolute(), disk, database, random.Random(options.seed))
        stack.callback(made.leave)
        yield made


def main() -> None:
    options = arguments()
    if options.postgres and programs() is None:
        raise SystemExit("There is no PostgreSQL on this machine: apt install postgresql")
    machine = common.machine()
    with site(options) as made:
        began = time.monotonic()
        found = measure(made, options)
        seconds = round(time.monotonic() - began, 1)
        filled = made.disk.mounted
    result = {
        "benchmark": "faults",
        "machine": machine,
        "database": "PostgreSQL" if options.postgres else "SQLite",
        "disk_filled": filled,
        "rounds": options.rounds,
        "seed": options.seed,
        "seconds": seconds,
        **found,
    }
    rows = [[name, str(value)] for name, value in found.items()]
    print(common.table(["what", "found"], rows))
    common.save(result, options.out, "faults-postgres" if options.postgres else "faults")


if __name__ == "__main__":
    main()
