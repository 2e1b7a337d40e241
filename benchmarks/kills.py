"""Kills the processes of running trainings at random moments, and compares what comes of it with an undisturbed one.

    python benchmarks/kills.py [--kills 50] [--processes 1 2]

LeNet trains on drawn pictures (or on `--data`), started by the command line as a user would. At moments drawn uniformly
over the time that a whole run takes, `kill -9` hits one of the run's processes: the worker that holds the run's lock,
or one of those that it started. A run whose worker is gone is resumed; where a process of several is killed, the worker
goes on by itself. When the run is done, its last checkpoint must have the SHA-256 of the undisturbed run's, of weights
and optimiser, and its curve the same steps with the same figures: no step lost, none done twice. No process may be left
behind. New runs are started until `--kills` were made.

Needs psutil. Ends with status 1 when anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
import numpy as np
import psutil
from PIL import Image

import vizsla
from vizsla import events, files
from vizsla.api import datasets
from vizsla.datasets.spec import DatasetSpec
from vizsla.errors import VizslaError
from vizsla.store.workspace import Workspace
from vizsla.training.run import find_checkpoint

CURVE = ("step", "validation", "epoch")
# What was measured, not computed: it differs between any two runs.
MEASURED = ("at", "elapsed_s", "eta_s", "pictures_per_s", "data_wait", "memory_mb", "device_use")
HASHED = ("weights.safetensors", "optimizer.safetensors")
PATIENCE_S = 60
MAX_SITTINGS = 100


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="in all, shared between the numbers of processes")
    parser.add_argument("--processes", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--data", type=Path, help="folder with one sub-folder of pictures a class. Default: drawn")
    parser.add_argument("--pictures", type=int, default=600, help="how many are drawn")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--net", default="lenet")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--out", type=Path, help="default: results/kills-MACHINE.json")
    return parser.parse_args()


@dataclass
class Trial:
    """One run that is disturbed, or the one that is not."""

    ws: Workspace
    name: str
    processes: int
    options: argparse.Namespace
    kills: list[dict[str, Any]] = field(default_factory=list)
    num_sittings: int = 0
    orphans: int = 0

    def start(self) -> subprocess.Popen[bytes]:
        """Start the run by the command line, or go on with it once it was accepted."""
        self.num_sittings += 1
        if self.num_sittings > MAX_SITTINGS:
            raise SystemExit(f"{self.name} is not done after {MAX_SITTINGS} sittings: nothing is gained between kills.")
        command = [sys.executable, "-m", "vizsla"]
        if self.folder() is not None:
            command += ["run", "resume", self.name, "--retries", "0"]
        else:
            command += [
                "train",
                "pictures",
                "--retries",
                "0",
                "--name",
                self.name,
                "--net",
                self.options.net,
                "--batch-size",
                "16",
            ]
            command += ["--epochs", str(self.options.epochs), "--processes", str(self.processes), "--device", "cpu"]
            # Checkpoints within epochs too, at moments that differ from sitting to sitting.
            command += ["--tune", "scratch", "--checkpoint-every-s", "0.5", "--val-every", "0.5"]
            # Not left to a measurement, which may come out otherwise for another run.
            command += ["--precision", "fp32", "--compile", "off"]
        with (self.ws.root.parent / f"{self.name}.txt").open("ab") as log:
            return subprocess.Popen([*command, "--workspace", str(self.ws.root)], stdout=log, stderr=log)

    def claimed(self) -> Path | None:
        """The folder of the run, accepted or not yet."""
        try:
            return self.ws.folder("run", self.ws.store.find(self.name, "run").id)
        except VizslaError:
            return None

    def folder(self) -> Path | None:
        """The folder of the run once it was accepted, so that it can be resumed."""
        found = self.claimed()
        return found if found is not None and (found / "run.json").exists() else None

    def worker(self) -> psutil.Process | None:
        """The process that holds the run's lock, unless that is still the command that starts it."""
        folder = self.claimed()
        pid = files.lock_holder(folder) if folder is not None else None
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid) if pid else None
            if process is not None and "vizsla.training.worker" in process.cmdline():
                return process
        return None

    def events(self) -> list[events.Event]:
        """All events of the run so far, with those that were undone."""
        folder = self.claimed()
        return events.read(folder / "events.jsonl")[0] if folder is not None else []


def family(worker: psutil.Process) -> list[psutil.Process]:
    """A worker and all that it started."""
    with contextlib.suppress(psutil.Error):
        return [worker, *worker.children(recursive=True)]
    return []


def undisturbed(trial: Trial) -> float:
    """Train without a kill; returns the seconds that it took."""
    began = time.monotonic()
    if trial.start().wait() != 0:
        raise SystemExit((trial.ws.root.parent / f"{trial.name}.txt").read_text(encoding="utf-8"))
    return time.monotonic() - began


def disturb(trial: Trial, span_s: float, num_kills: int, chance: random.Random) -> float:
    """Train to the end, with up to `num_kills` kills, each up to `span_s` after a start or the moment drawn before.

    Returns the seconds that a whole run takes, as far as is known now: on a machine that is busy at times, the least.
    """
    began = time.monotonic()
    command = trial.start()
    while True:
        delay = chance.uniform(0, span_s) if len(trial.kills) < num_kills else None
        ended = _wait(command, delay)
        if not ended and delay is not None:
            ended = _kill_one(trial, command, chance)
        if ended:
            if _is_done(trial):
                return span_s if trial.kills else min(span_s, time.monotonic() - began)
            command = trial.start()


def _wait(command: subprocess.Popen[bytes], seconds: float | None) -> bool:
    """Wait so long, or for the end (None); returns whether the command ended."""
    try:
        command.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _is_done(trial: Trial) -> bool:
    last = next(iter(reversed(trial.events())), None)
    return last is not None and last["event"] == "done"


def _kill_one(trial: Trial, command: subprocess.Popen[bytes], chance: random.Random) -> bool:
    """Kill one of the run's processes, if there is one now; returns whether the command has ended with it."""
    worker = trial.worker()
    everyone = family(worker) if worker is not None else []
    if worker is None or not everyone:
        return False
    victim = everyone[chance.randrange(len(everyone))]
    kind = "worker" if victim.pid == worker.pid else _kind(victim)
    phase = _phase(trial)
    try:
        victim.send_signal(signal.SIGKILL)
    except psutil.Error:
        return False  # it ended by itself in this moment
    trial.kills.append({"run": trial.name, "kind": kind, **phase, "alive": len(everyone)})
    print(f"{trial.name}: killed the {kind} {phase['phase']}, step {phase['step']}", flush=True)
    if kind != "worker":
        return False
    command.wait()
    _, left = psutil.wait_procs(everyone, timeout=PATIENCE_S)
    trial.orphans += len(left)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return True


def _kind(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return "rank" if any("vizsla" in part for part in process.cmdline()) else "helper"
    return "helper"


def _phase(trial: Trial) -> dict[str, Any]:
    """What the run was doing, as far as its folder tells; and the last step that it told of."""
    seen = trial.events()
    folder = trial.folder()
    sitting = 0
    for number, event in enumerate(seen):
        if event["event"] in ("started", "resumed"):
            sitting = number
    here = [event for event in seen[sitting:] if event["event"] in CURVE]
    step = next((event["step"] for event in reversed(seen) if "step" in event), 0)
    if folder is None:
        phase = "before it was accepted"
    elif any(folder.glob("checkpoints/.*.tmp")):
        phase = "while it wrote a checkpoint"
    elif not here:
        phase = "while it got ready"
    else:
        phase = "just after an epoch" if here[-1]["event"] == "epoch" else "within an epoch"
    return {"phase": phase, "step": step}


def curve(lines: list[events.Event]) -> list[dict[str, Any]]:
    """The events that tell of a step, without those that a `resumed` undid, and without what was measured.

    Written here again, not taken from the product: it is what is tested.
    """
    kept: list[dict[str, Any]] = []
    for line in lines:
        if line["event"] == "resumed":
            kept = [one for one in kept if one["step"] <= line["step"]]
        elif line["event"] in CURVE:
            kept.append({name: value for name, value in line.items() if name not in MEASURED})
    return kept


def hashes(folder: Path) -> dict[str, str]:
    """Of the last checkpoint."""
    last = find_checkpoint(folder, "last").folder
    return {name: files.sha256(last / name) for name in HASHED}


def compare(trial: Trial, reference: Trial) -> dict[str, Any]:
    """What differs between a disturbed run and the undisturbed one; nothing should."""
    folder, other = trial.folder(), reference.folder()
    assert folder is not None, "a run that is done was accepted"
    assert other is not None, "a run that is done was accepted"
    own, expected = curve(trial.events()), curve(reference.events())

    def keys(lines: list[dict[str, Any]]) -> Counter[tuple[str, int]]:
        return Counter((line["event"], line["step"]) for line in lines)

    return {
        "run": trial.name,
        "processes": trial.processes,
        "kills": len(trial.kills),
        "sittings": trial.num_sittings,
        "lost_steps": (keys(expected) - keys(own)).total(),
        "repeated_steps": (keys(own) - keys(expected)).total(),
        "curve_equal": own == expected,
        "first_difference": next(([a, b] for a, b in zip(own, expected, strict=False) if a != b), None),
        "weights_equal": hashes(folder)["weights.safetensors"] == hashes(other)["weights.safetensors"],
        "optimizer_equal": hashes(folder)["optimizer.safetensors"] == hashes(other)["optimizer.safetensors"],
        "orphans": trial.orphans,
    }


def draw(folder: Path, num_pictures: int) -> None:
    """Write pictures of stripes in four directions, with noise: a task that LeNet learns in a few epochs."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:28, 0:28]
    for number in range(num_pictures):
        direction = number % 4
        angle = np.pi * direction / 4
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(0.6, 0.9) + rng.uniform(0, 6.3))
        pixels = np.clip(127 + 60 * wave + rng.normal(0, 50, wave.shape), 0, 255).astype(np.uint8)
        target = folder / f"stripes-{45 * direction}"
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(target / f"{number:04d}.png")


def campaign(ws: Workspace, processes: int, num_kills: int, options: argparse.Namespace) -> dict[str, Any]:
    """Runs until so many kills were made, each compared with the undisturbed run."""
    chance = random.Random(f"{options.seed}-{processes}")
    reference = Trial(ws, f"reference-{processes}", processes, options)
    span_s = whole_s = undisturbed(reference)
    print(f"{processes} process(es): undisturbed in {span_s:.1f} s", flush=True)
    trials: list[Trial] = []
    compared = []
    while (made := sum(len(trial.kills) for trial in trials)) < num_kills:
        trial = Trial(ws, f"disturbed-{processes}-{len(trials)}", processes, options)
        span_s = disturb(trial, span_s, num_kills - made, chance)
        trials.append(trial)
        compared.append(compare(trial, reference))
        print(json.dumps(compared[-1]), flush=True)
    folder = reference.folder()
    assert folder is not None, "a run that is done was accepted"
    return {
        "processes": processes,
        "undisturbed_s": round(whole_s, 2),
        "reference": hashes(folder),
        "steps": find_checkpoint(folder, "last").step,
        "runs": compared,
        "kills": [kill for trial in trials for kill in trial.kills],
    }


def main() -> None:
    options = arguments()
    machine = common.machine()
    shares = [len(part) for part in np.array_split(range(options.kills), len(options.processes))]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        source = options.data
        if source is None:
            source = Path(scratch) / "pictures"
            draw(source, options.pictures)
        with vizsla.open(Path(scratch) / "workspace") as ws:
            datasets.create(ws, "pictures", DatasetSpec(source=source, width=28, height=28, val_percent=20))
            campaigns = [campaign(ws, n, share, options) for n, share in zip(options.processes, shares, strict=True)]
    every = [run for one in campaigns for run in one["runs"]]
    result = {
        "benchmark": "kills",
        "machine": machine,
        "net": options.net,
        "epochs": options.epochs,
        "seed": options.seed,
        "seconds": round(time.monotonic() - began, 1),
        "kills_made": sum(run["kills"] for run in every),
        "lost_steps": sum(run["lost_steps"] for run in every),
        "repeated_steps": sum(run["repeated_steps"] for run in every),
        "orphans": sum(run["orphans"] for run in every),
        "all_equal": all(run["curve_equal"] and run["weights_equal"] and run["optimizer_equal"] for run in every),
        "campaigns": campaigns,
    }
    report(result)
    common.save(result, options.out, "kills")
    sys.exit(not result["all_equal"] or result["lost_steps"] + result["repeated_steps"] + result["orphans"] > 0)


def report(result: dict[str, Any]) -> None:
    """Print both tables."""
    rows = [
        [
            one["processes"],
            len(one["kills"]),
            len(one["runs"]),
            *(sum(run[name] for run in one["runs"]) for name in ("lost_steps", "repeated_steps", "orphans")),
            *(sum(run[name] for run in one["runs"]) for name in ("weights_equal", "optimizer_equal", "curve_equal")),
        ]
        for one in result["campaigns"]
    ]
    titles = ["processes", "kills", "runs", "steps lost", "repeated", "processes left"]
    print("\nWhat the kills did; the last three columns count runs:\n")
    print(common.table([*titles, "weights equal", "optimiser equal", "curve equal"], rows))
    counted = Counter(
        (one["processes"], kill["kind"], kill["phase"]) for one in result["campaigns"] for kill in one["kills"]
    )
    print("\nWhat was killed, and when:\n")
    print(common.table(["processes", "killed", "phase", "kills"], [[*key, n] for key, n in sorted(counted.items())]))


if __name__ == "__main__":
    main()
