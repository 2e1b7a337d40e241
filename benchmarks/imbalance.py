"""What each answer to classes of unequal size is worth, on pictures that were held out.

    python benchmarks/imbalance.py --data PICTURES [--full]

PICTURES has one sub-folder a class; skin lesions, 397 benign and 153 malignant, are what this was written for. For each
seed, which draws the splits and the training alike, 30 % of the pictures are kept for the test; each way of training
sees the same splits. Tested is the last epoch, since the ways choose their best one by different rules. Reported are
balanced accuracy, area under the ROC curve (two classes) and the recall of the smallest class, of the test pictures
with 95 % intervals as the product's own report has them; their means; and the difference of each way to `none` on the
same splits, which is less noisy than the difference of two means.

`--full` also trains all layers at 128 px for a few epochs, which takes much longer.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import common

import vizsla
from vizsla.api import datasets, evaluations, runs
from vizsla.datasets.spec import DatasetSpec
from vizsla.evaluation.report import Report
from vizsla.store.workspace import Workspace
from vizsla.training.spec import TrainingSpec

NET = "tf_efficientnet_lite0"
WAYS = ("none", "weights", "sample", "focal")
FIGURES = ("balanced_accuracy", "auc", "recall_of_smallest")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one sub-folder of pictures a class")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--size", type=int, default=224, help="px, of the training of the last layer")
    parser.add_argument("--epochs", type=int, help="of the training of the last layer. Default: the product's")
    parser.add_argument("--full", action="store_true", help="also train all layers")
    parser.add_argument("--full-size", type=int, default=128, help="px")
    parser.add_argument("--full-epochs", type=int, default=8)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--max-per-class", type=int, help="use only so many pictures of each class: a quick trial")
    parser.add_argument("--out", type=Path, help="default: results/imbalance-MACHINE.json")
    return parser.parse_args()


def build(ws: Workspace, size: int, seed: int, options: argparse.Namespace) -> str:
    """The dataset of a size and a seed; returns its name."""
    name = f"size-{size}-seed-{seed}"
    spec = DatasetSpec(
        source=options.data,
        width=size,
        height=size,
        resize="crop",
        val_percent=15,
        test_percent=30,
        seed=seed,
        max_per_class=options.max_per_class,
    )
    datasets.create(ws, name, spec)
    return name


def train_and_test(ws: Workspace, dataset: str, spec: TrainingSpec) -> dict[str, Any]:
    """The figures of one training on the test split."""
    began = time.perf_counter()
    run = runs.start(ws, dataset, spec).run
    seconds = time.perf_counter() - began
    return figures(evaluations.create(ws, run.name, split="test", checkpoint="last")) | {
        "training_s": round(seconds, 1)
    }


def figures(report: Report) -> dict[str, Any]:
    """What is compared, each as value, low and high."""
    smallest = min((one for one in report.per_class if one.support), key=lambda one: one.support)
    found = {
        "balanced_accuracy": report.headline["balanced_accuracy"],
        "auc": report.headline.get("auc"),
        "recall_of_smallest": smallest.recall,
    }
    return {
        "num_test": report.num_pictures,
        "smallest_class": smallest.label,
        "accuracy": round(report.headline["accuracy"].value, 4),
        **{name: _interval(figure) for name, figure in found.items()},
    }


def _interval(figure: Any) -> list[float] | None:
    return None if figure is None else [round(x, 4) for x in (figure.value, figure.low, figure.high)]


def specs(options: argparse.Namespace, way: str, seed: int) -> dict[str, tuple[int, TrainingSpec]]:
    """What is trained, with the size of its pictures."""
    common_part = {"net": NET, "imbalance": way, "seed": seed, "device": options.device}
    found = {"head": (options.size, TrainingSpec(tune="head", epochs=options.epochs, **common_part))}
    if options.full:
        full = TrainingSpec(tune="full", epochs=options.full_epochs, **common_part)
        found["full"] = (options.full_size, full)
    return found


def measure(ws: Workspace, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each training."""
    rows = []
    for seed in options.seeds:
        sizes = {size for size, _ in specs(options, "none", seed).values()}
        built = {size: build(ws, size, seed, options) for size in sorted(sizes)}
        for way in options.ways:
            for tune, (size, spec) in specs(options, way, seed).items():
                row = {"tune": tune, "imbalance": way, "seed": seed} | train_and_test(ws, built[size], spec)
                rows.append(row)
                print(f"{tune}, {way}, seed {seed}: balanced accuracy {row['balanced_accuracy']}", flush=True)
    return rows


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each way of training the mean over the seeds, and the mean difference to `none` of the same seed."""
    found = []
    for tune, way in dict.fromkeys((row["tune"], row["imbalance"]) for row in rows):
        own = {row["seed"]: row for row in rows if (row["tune"], row["imbalance"]) == (tune, way)}
        plain = {row["seed"]: row for row in rows if (row["tune"], row["imbalance"]) == (tune, "none")}
        mean: dict[str, Any] = {"tune": tune, "imbalance": way}
        for name in FIGURES:
            seeds = [seed for seed in own if own[seed][name]]
            mean[name] = round(fmean(own[seed][name][0] for seed in seeds), 4) if seeds else None
            paired = [own[seed][name][0] - plain[seed][name][0] for seed in seeds if seed in plain]
            mean[f"{name}_to_none"] = [round(difference, 4) for difference in paired]
        found.append(mean)
    return found


def main() -> None:
    options = arguments()
    machine = common.machine(options.device)
    with tempfile.TemporaryDirectory() as scratch, vizsla.open(Path(scratch) / "workspace") as ws:
        rows = measure(ws, options)
    result = {
        "benchmark": "imbalance",
        "machine": machine,
        "device": options.device,
        "net": NET,
        "num_pictures": {path.name: len(list(path.iterdir())) for path in common.class_folders(options.data)},
        "head": {"size": options.size, "epochs": options.epochs},
        "full": {"size": options.full_size, "epochs": options.full_epochs} if options.full else None,
        "means": means(rows),
        "rows": rows,
    }
    report(result)
    common.save(result, options.out, "imbalance")


def report(result: dict[str, Any]) -> None:
    """Print both tables."""
    rows = [
        [row["tune"], row["imbalance"], row["seed"], row["num_test"], *(_words(row[name]) for name in FIGURES)]
        for row in result["rows"]
    ]
    print("\nEach training on its test pictures (95 % intervals):\n")
    print(common.table(["tune", "imbalance", "seed", "pictures", *FIGURES], rows))
    rows = [
        [
            mean["tune"],
            mean["imbalance"],
            *(mean[name] for name in FIGURES),
            *(_signed(mean[f"{name}_to_none"]) for name in FIGURES),
        ]
        for mean in result["means"]
    ]
    print("\nMeans over the seeds, and the mean difference to `none` on the same splits:\n")
    print(common.table(["tune", "imbalance", *FIGURES, "Δ balanced", "Δ auc", "Δ recall"], rows))


def _words(interval: list[float] | None) -> str:
    return "-" if interval is None else "{:.3f} ({:.3f} to {:.3f})".format(*interval)


def _signed(differences: list[float]) -> str:
    return f"{fmean(differences):+.3f}" if differences else "-"


if __name__ == "__main__":
    main()
