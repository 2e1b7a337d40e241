"""Which settings train best on small sets of pictures: the search behind the defaults of the preset `modern`.

    python benchmarks/defaults.py --data PICTURES --tune full --settings learning_rate=0.001 "ema=0.99 mixup=0.2"

PICTURES has one sub-folder a class. For each seed, which draws the split and the training alike, `--val-percent` of the
pictures are kept aside; each way of training sees the same splits, and differs from the defaults as they are now by the
settings of one argument. Compared is the accuracy of the last epoch, so that no way profits from choosing an epoch by
the pictures that it is judged on, as difference to the defaults over all pictures and seeds.

A search by hand: it says what one change does to one kind of pictures. Settings found here are chosen by these
pictures, so a figure of the best way is a little better than fresh pictures would give.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import common

import vizsla
from vizsla.api import datasets, runs
from vizsla.datasets.spec import DatasetSpec
from vizsla.store.workspace import Workspace
from vizsla.training.spec import TrainingSpec


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one sub-folder of pictures a class")
    parser.add_argument("--net", default="tf_efficientnet_lite0")
    parser.add_argument("--tune", default="full", choices=("full", "head", "scratch"))
    parser.add_argument("--size", type=int, default=96, help="px")
    parser.add_argument("--colour", default="auto", choices=("auto", "grey", "colour"))
    parser.add_argument("--val-percent", type=int, default=40)
    parser.add_argument("--max-per-class", type=int, help="use only so many pictures of each class")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1))
    parser.add_argument("--settings", nargs="*", default=(), help='each one way, such as "ema=0.99 mixup=0.2"')
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, help="default: results/defaults-MACHINE.json")
    return parser.parse_args()


def settings(text: str) -> dict[str, Any]:
    """`ema=0.99 net=lenet` as a mapping; values are JSON where they can be."""
    found = {}
    for part in text.split():
        name, _, value = part.partition("=")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def build(ws: Workspace, seed: int, options: argparse.Namespace) -> str:
    """The dataset of a seed; returns its name."""
    spec = DatasetSpec(
        source=options.data,
        width=options.size,
        height=options.size,
        resize="crop",
        colour=options.colour,
        val_percent=options.val_percent,
        max_per_class=options.max_per_class,
        seed=seed,
    )
    return datasets.create(ws, f"seed-{seed}", spec).name


def train(ws: Workspace, dataset: str, way: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The last epoch of one training, whose only validation it is."""
    asked = {"net": options.net, "tune": options.tune, "device": options.device, "val_every": 0} | settings(way)
    began = time.perf_counter()
    status = runs.start(ws, dataset, TrainingSpec(**asked, seed=seed))
    last = status.progress.last_epoch
    assert last is not None, "a run that is done has had an epoch"
    runs.delete(ws, status.run.id)
    return {
        "accuracy": round(last["val_accuracy"]["value"], 4),
        "loss": round(last["val_loss"], 4),
        "num_pictures": last["val_accuracy"]["num_pictures"],
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    options = arguments()
    machine = common.machine(options.device)
    ways = ["", *options.settings]
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as scratch, vizsla.open(Path(scratch) / "workspace") as ws:
        for seed in options.seeds:
            dataset = build(ws, seed, options)
            for way in ways:
                found[way].append(train(ws, dataset, way, seed, options))
                print(f"seed {seed}  {way or 'defaults'}: {found[way][-1]}", flush=True)
    result = {
        "benchmark": "defaults",
        "machine": machine,
        **{name: getattr(options, name) for name in ("net", "tune", "size", "val_percent", "max_per_class")},
        "data": options.data.name,
        "seeds": list(options.seeds),
        "defaults": TrainingSpec(net=options.net, tune=options.tune).resolved(has_weights=True).model_dump(mode="json"),
        "ways": {way or "defaults": _row(found[way], found[""]) | {"raw": found[way]} for way in ways},
    }
    columns = ("way", "accuracy", "difference", "from", "to", "loss", "seconds")
    rows = [[way, *(row[name] for name in columns[1:])] for way, row in result["ways"].items()]
    num = sum(one["num_pictures"] for one in found[""])
    print(f"\nAccuracy of the last epoch in percent, over {num} val pictures of {len(options.seeds)} splits:\n")
    print(common.table(columns, sorted(rows, key=lambda row: -row[1])))
    common.save(result, options.out, "defaults")


def _row(mine: list[dict[str, Any]], base: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the seeds in percent, and the range of the differences to the defaults on the same split."""
    differences = [100 * (a["accuracy"] - b["accuracy"]) for a, b in zip(mine, base, strict=True)]
    return {
        "accuracy": round(100 * fmean(one["accuracy"] for one in mine), 2),
        "difference": round(fmean(differences), 2),
        "from": round(min(differences), 2),
        "to": round(max(differences), 2),
        "loss": round(fmean(one["loss"] for one in mine), 4),
        "seconds": round(fmean(one["seconds"] for one in mine), 1),
    }


if __name__ == "__main__":
    main()
