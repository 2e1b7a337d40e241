"""Pictures trained on a second, all layers, against the limit of the machine and against the peers.

    python benchmarks/train_speed.py --data PICTURES

PICTURES has one sub-folder a class. Every candidate trains the same network from random weights with AdamW on the
same files, and is timed in the middle of an epoch: from the end of a warm-up step to the end of a later one, while its
loader still has more to load. Candidates take turns, `--repeats` times. A ratio is one of two rates of the same round,
and the median of the rounds counts.

  limit         the same step on random pictures in memory, with a fused optimiser, in the fastest of fp32 and bf16,
                NCHW and channels-last, with freed memory kept for the next step or, as a bare script has it, released;
                the mean of one measurement before and one after ours
  ours          a run of Vizsla with its worker process, log, data and augmentation (mirroring and jitter, the defaults
                of fine-tuning): pictures over seconds between two of the `step` events in its log. They come every ten
                steps, so the first ten are the warm-up. Building the dataset is reported apart
  timm          its dataset, loader, default augmentation and the loop of its train.py
  fastai        ImageDataLoaders with Resize and aug_transforms, and a Learner, as in its tutorial
  ultralytics   its classification trainer with its default augmentation

Peers run in fp32 NCHW, their default on a CPU, and in bf16 on a GPU; each as a program of its own, with as many threads
as there are cores and two loader processes. fastai and Ultralytics (AGPL-3.0; only compared with here) are installed
into environments of their own under `--venvs`, with the torch of this environment unless they refuse it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import common

import vizsla
from vizsla import events
from vizsla.api import datasets, runs
from vizsla.datasets.spec import DatasetSpec
from vizsla.store.workspace import Workspace
from vizsla.training.spec import TrainingSpec

NETS = ("resnet18", "tf_efficientnet_lite0", "resnet50")
PEERS = {"timm": (), "fastai": ("fastai",), "ultralytics": ("ultralytics",)}
VARIANTS = [f"{number} {layout}" for number in ("fp32", "bf16") for layout in ("nchw", "channels_last")]
# As a bare script has it; it comes first, since no process goes back to this.
VARIANTS.insert(0, "bf16 channels_last released")
WARM_STEPS = 10
# More than any loader has in flight, so that all load as fast at the end of the timed steps as before.
SPARE_STEPS = 5
LIMIT_WARM, LIMIT_TIMED = 2, 6
# Rounds of one candidate that differ by more than this factor are pointed out.
NOISY = 1.2


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one sub-folder of pictures a class")
    parser.add_argument("--nets", nargs="+", default=NETS)
    parser.add_argument("--size", type=int, default=224, help="px")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=320, help="timed pictures of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", nargs="*", default=tuple(PEERS), choices=tuple(PEERS))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the limit and the peers")
    parser.add_argument("--workers", type=int, default=2, help="loader processes of the peers")
    parser.add_argument("--venvs", type=Path, default=common.default_venvs(), help="the peers' environments")
    parser.add_argument("--ultralytics-venv", type=Path, help="an environment that has Ultralytics already")
    parser.add_argument("--out", type=Path, help="default: results/train_speed-MACHINE.json")
    return parser.parse_args()


def ours(ws: Workspace, net: str, options: argparse.Namespace) -> dict[str, Any]:
    """One epoch of a real run; what its log says of the timed steps."""
    spec = TrainingSpec(
        net=net,
        tune="scratch",
        epochs=1,
        batch_size=options.batch,
        flip=True,
        jitter=0.2,
        val_every=0,
        checkpoint_every=0,
        device=options.device,
    )
    status = runs.start(ws, "pictures", spec)
    lines, _ = events.read(status.folder / "events.jsonl")
    steps = [line for line in lines if line["event"] == "step"]
    last_timed = WARM_STEPS + options.pictures // options.batch
    began = next(i for i, line in enumerate(steps) if line["step"] >= WARM_STEPS)
    ended = next(i for i, line in enumerate(steps) if line["step"] >= last_timed)
    timed = steps[began + 1 : ended + 1]
    num = (steps[ended]["step"] - steps[began]["step"]) * options.batch
    seconds = steps[ended]["elapsed_s"] - steps[began]["elapsed_s"]
    parts = [num / len(timed) / line["pictures_per_s"] for line in timed]
    return {
        "pictures_per_s": round(num / seconds, 3),
        "data_wait": round(sum(p * line["data_wait"] for p, line in zip(parts, timed, strict=True)) / sum(parts), 4),
        "arithmetic": status.run.arithmetic.model_dump(mode="json"),
        "threads": status.run.threads,
    }


def limit(settings: dict[str, Any], variants: list[str]) -> dict[str, float]:
    """The rate of each variant; none when it failed."""
    asked = settings | {"variants": variants, "warm": LIMIT_WARM, "timed": LIMIT_TIMED}
    return common.ask("in_memory.py", asked).get("pictures_per_s", {})


def peer_interpreters(options: argparse.Namespace) -> dict[str, Path | None]:
    """The interpreter of each peer; None is this one."""
    found: dict[str, Path | None] = {}
    for name in options.peers:
        if name == "ultralytics" and options.ultralytics_venv:
            found[name] = options.ultralytics_venv / "bin" / "python"
        else:
            found[name] = common.peer_python(options.venvs / name, PEERS[name]) if PEERS[name] else None
    return found


def measure(
    net: str,
    ws: Workspace,
    settings: dict[str, Any],
    interpreters: dict[str, Path | None],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """All repetitions of all candidates for one network, in turns."""
    settings = settings | {"net": net}
    variants = limit(settings, VARIANTS)
    fastest = max(variants, key=variants.__getitem__)
    rounds = []
    for repeat in range(options.repeats):
        before = limit(settings, [fastest]).get(fastest)
        found = {"ours": ours(ws, net, options)}
        # The limit is measured on both sides of ours: what else the machine does comes and goes.
        sides = [rate for rate in (before, limit(settings, [fastest]).get(fastest)) if rate]
        found["limit"] = {"pictures_per_s": round(fmean(sides), 3) if sides else None, "sides": sides}
        for name, python in interpreters.items():
            found[name] = common.ask(f"{name}_train.py", settings, python=python)
        rounds.append(found)
        print(f"{net}, round {repeat + 1} of {options.repeats}: {_rates(found)}", flush=True)
    names = ["limit", "ours", *interpreters]
    rates = {name: [_rates(found)[name] for found in rounds] for name in names}
    spread = {
        name: common.ratio(max(filter(None, r), default=None), min(filter(None, r), default=None))
        for name, r in rates.items()
    }
    for name, most in spread.items():
        if most is not None and most > NOISY:
            print(f"{net}: the rounds of {name} differ by a factor of {most}: was the machine quiet?", flush=True)
    ratios = {
        name: [common.ratio(mine, theirs) for mine, theirs in zip(rates["ours"], rates[name], strict=True)]
        for name in names
        if name != "ours"
    }
    return {
        "pictures_per_s": {name: common.middle(found) for name, found in rates.items()},
        "spread": spread,
        "limit_variant": fastest,
        "limit_variants": variants,
        # Of each round, whose candidates ran one after the other; then the middle one.
        "ratios": {f"ours_to_{name}": common.middle(found) for name, found in ratios.items()},
        "ratios_of_rounds": {f"ours_to_{name}": found for name, found in ratios.items()},
        "ours_data_wait": common.middle([found["ours"]["data_wait"] for found in rounds]),
        "raw": rounds,
    }


def _rates(found: dict[str, dict[str, Any]]) -> dict[str, float | None]:
    return {name: result.get("pictures_per_s") for name, result in found.items()}


def main() -> None:
    options = arguments()
    machine = common.machine(options.device)
    interpreters = peer_interpreters(options)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "pictures"
        steps = WARM_STEPS + max(1, options.pictures // options.batch) + SPARE_STEPS
        common.copy_some(options.data, root / "train", steps * options.batch)
        num_classes = len(common.class_folders(root / "train"))
        common.copy_some(options.data, root / "val", 2 * num_classes)  # two peers want some; nobody is timed on them
        settings = {
            "mode": "speed",
            "train": str(root / "train"),
            "root": str(root),
            "num_classes": num_classes,
            "size": options.size,
            "batch": options.batch,
            "warm": WARM_STEPS,
            "timed": max(1, options.pictures // options.batch),
            "device": options.device,
            "threads": options.threads,
            "workers": options.workers,
        }
        with vizsla.open(Path(scratch) / "workspace") as ws:
            began = time.perf_counter()
            spec = DatasetSpec(
                source=root / "train", width=options.size, height=options.size, resize="crop", val_percent=0
            )
            datasets.create(ws, "pictures", spec)
            dataset_s = time.perf_counter() - began
            nets = {net: measure(net, ws, settings, interpreters, options) for net in options.nets}

    result = {
        "benchmark": "train_speed",
        "machine": machine,
        "device": options.device,
        "size": options.size,
        "batch": options.batch,
        "timed_pictures": settings["timed"] * options.batch,
        "repeats": options.repeats,
        "threads": options.threads,
        "loader_workers": options.workers,
        "dataset_s": round(dataset_s, 2),
        "dataset_pictures": steps * options.batch,
        "nets": nets,
    }
    report(result)
    common.save(result, options.out, "train_speed")


def report(result: dict[str, Any]) -> None:
    """Print the table."""
    nets = result["nets"]
    names = list(next(iter(nets.values()))["pictures_per_s"])
    columns = ["network", *names, *(f"ours/{name}" for name in names if name != "ours"), "data wait"]
    rows = [
        [net, *found["pictures_per_s"].values(), *found["ratios"].values(), found["ours_data_wait"]]
        for net, found in nets.items()
    ]
    print(f"\nPictures a second at {result['size']} px, batch {result['batch']}, {result['device']}:\n")
    print(common.table(columns, rows))


if __name__ == "__main__":
    main()
