"""Kill whatever looks after the queue, and whatever works in it, at random moments: is every job done exactly once?

    python benchmarks/faults.py --data PICTURES --rounds 100

PICTURES has one sub-folder a class. In each round some jobs go into the queue (datasets, trainings on them,
evaluations), `vizsla jobs keep` looks after it, and after a random time the keeper, a worker, or both are killed with
SIGKILL, or a job is asked to stop. At the end a keeper works off what is left, and every job is held against its
history.

Reported: jobs by how they ended, attempts, and each rule that was broken: a job that is not at its end, that was done
twice, whose states do not follow each other, that holds a device after its end; a finished job without its thing or a
stopped one with half a thing; a process that is left.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import common
import psutil

import vizsla
from vizsla import files
from vizsla.api import datasets, evaluations, runs
from vizsla.datasets.spec import DatasetSpec
from vizsla.errors import VizslaError
from vizsla.jobs import queue
from vizsla.jobs.spec import JobSpec
from vizsla.store.jobs import Job
from vizsla.store.workspace import Workspace
from vizsla.training.spec import TrainingSpec

PATIENT = JobSpec(retries=100)
TRAINING = TrainingSpec(net="lenet", tune="scratch", epochs=3, batch_size=16, crop=28, checkpoint_every_s=0.2)
FOLLOWS = {
    "queued": {"starting", "stopped", "failed"},
    "starting": {"running", "stopping", "done", "failed", "stopped", "lost", "queued"},
    "running": {"stopping", "done", "failed", "stopped", "lost", "queued"},
    "stopping": {"done", "failed", "stopped", "lost"},
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one sub-folder of pictures a class")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--span", type=float, default=4.0, help="seconds of a round at most")
    parser.add_argument("--seed", type=int, default=0, help="of what is asked for, killed and stopped")
    parser.add_argument("--out", type=Path, help="default: results/faults-MACHINE.json")
    return parser.parse_args()


def ask(ws: Workspace, data: Path, number: int, chance: random.Random) -> list[Job]:
    """Put the jobs of a round into the queue."""
    spec = DatasetSpec(source=data, width=32, height=32, val_percent=20, max_per_class=20, seed=number)
    dataset = datasets.submit(ws, f"d{number}", spec, job=PATIENT)
    made = [dataset]
    if chance.random() < 0.5:
        made.append(runs.submit(ws, dataset.thing, TRAINING, name=f"r{number}", job=PATIENT))
    trained = [status.run for status in runs.list_all(ws) if status.progress.state == "done"]
    if trained and chance.random() < 0.5:
        made.append(evaluations.submit(ws, chance.choice(trained).id, split="val", job=PATIENT))
    return made


def disturb(ws: Workspace, keeper: subprocess.Popen[bytes], chance: random.Random) -> str:
    """Kill the keeper, some workers, or both; or ask a job to stop. Says what."""
    what = chance.choice(("keeper", "worker", "both", "stop"))
    live = ws.store.jobs.live()
    workers = [pid for job in live if (pid := files.lock_holder(ws.folder(job.kind, job.thing)))]
    if what == "stop" and live:
        queue.stop(ws, chance.choice(live))
    if what in ("worker", "both") and workers:
        os.kill(chance.choice(workers), signal.SIGKILL)
    if what in ("keeper", "both"):
        keeper.kill()
    return what


def broken(ws: Workspace, job: Job) -> list[str]:
    """The rules that a job breaks after everything has ended."""
    states = [change.state for change in ws.store.jobs.history(job.id)]
    finished = ws.is_finished(job.kind, job.thing)
    rules = {
        "not at its end": not job.live,
        "done more than once": states.count("done") <= 1,
        "a state without the one before": all(b in FOLLOWS.get(a, set()) for a, b in pairwise(states)),
        "attempts that were not told": states.count("starting") == job.attempt,
        "holds a device": not job.held,
        "done without its thing": job.state != "done" or finished,
        "failed without a reason": job.state != "failed" or bool(job.error),
        "left half a thing": finished or not ws.folder(job.kind, job.thing).exists(),
        "failed, though it was only killed": job.state in ("done", "stopped") or job.failure == "parent",
    }
    return [rule for rule, holds in rules.items() if not holds]


def measure(data: Path, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All rounds."""
    chance = random.Random(options.seed)
    asked: list[Job] = []
    done = Counter[str]()
    command = [sys.executable, "-m", "vizsla", "jobs", "keep", "--workspace", str(root)]
    with vizsla.open(root) as ws:
        keeper = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        for number in range(options.rounds):
            try:
                asked += ask(ws, data, number, chance)
            except VizslaError as error:
                raise SystemExit(f"round {number}: {error}") from None
            time.sleep(chance.uniform(0, options.span))
            done[disturb(ws, keeper, chance)] += 1
            time.sleep(chance.uniform(0, 0.3))  # what was killed is gone, or not yet
            if keeper.poll() is not None:
                keeper = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            if number % 10 == 9:
                print(
                    f"round {number + 1}: {len(asked)} jobs, {len(ws.store.jobs.live())} not at their end", flush=True
                )
        while ws.store.jobs.live():
            time.sleep(1)
            if keeper.poll() is not None:
                keeper = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        keeper.terminate()
        keeper.wait()
        ended = [ws.store.jobs.get(job.id) for job in asked]
        found = {job.id: rules for job in ended if (rules := broken(ws, job))}
        left = [p.pid for p in psutil.process_iter(["cmdline"]) if str(root) in " ".join(p.info["cmdline"] or [])]
    return {
        "disturbances": dict(done),
        "jobs": len(ended),
        "ended": dict(Counter(f"{job.kind} {job.state}" for job in ended)),
        "attempts": sum(job.attempt for job in ended),
        "most_attempts": max(job.attempt for job in ended),
        "broken_rules": found,
        "processes_left": len(left),
    }


def main() -> None:
    options = arguments()
    machine = common.machine()
    with tempfile.TemporaryDirectory() as scratch:
        began = time.monotonic()
        found = measure(options.data.absolute(), Path(scratch) / "workspace", options)
        seconds = round(time.monotonic() - began, 1)
    result = {
        "benchmark": "faults",
        "machine": machine,
        "rounds": options.rounds,
        "seed": options.seed,
        "seconds": seconds,
        **found,
    }
    rows = [[name, str(value)] for name, value in found.items()]
    print(common.table(["what", "found"], rows))
    common.save(result, options.out, "faults")


if __name__ == "__main__":
    main()
