"""Speed of the pass that head-only training spends its time on: the features of every picture.

    python benchmarks/head_only.py --data PICTURES

PICTURES has one sub-folder a class. Pictures a second, all on the same files, the best of some rounds in turns:

  limit   the same forward passes on batches that are in memory already
  ours    `compute_features`: from the pixel store through the frozen body, in the arithmetic that Vizsla chooses
  timm    timm's own loader (2 workers, decoding JPEG) and model in fp32, as its `validate.py` runs
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import common
import numpy as np
import timm
import torch
from torch import nn

import vizsla
from vizsla.api import datasets
from vizsla.datasets.dataset import split_arrays
from vizsla.datasets.store import PixelStore
from vizsla.networks import catalogue
from vizsla.networks.classifier import Classifier
from vizsla.training import arithmetic
from vizsla.training.distributed import Group
from vizsla.training.inputs import FEATURE_BATCH, Pictures, Stored, compute_features
from vizsla.training.spec import TrainingSpec


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one sub-folder of pictures a class")
    parser.add_argument("--net", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=160, help="px")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, help="default: results/head_only-MACHINE.json")
    return parser.parse_args()


def stored(data: Path, size: int, scratch: Path) -> Stored:
    """All the pictures, in a dataset of this size."""
    with vizsla.open(scratch / "workspace") as ws:
        spec = vizsla.DatasetSpec(source=data, width=size, height=size, resize="crop", val_percent=0)
        dataset = datasets.create(ws, "pictures", spec)
        folder = ws.folder("dataset", dataset.id)
    arrays = split_arrays(folder, "train")
    return Stored(PixelStore.open(folder / "pixels"), arrays.indices, torch.from_numpy(arrays.labels))


def rate(num_pictures: int, work: Callable[[], object]) -> float:
    """Pictures a second."""
    began = time.perf_counter()
    work()
    return num_pictures / (time.perf_counter() - began)


def main() -> None:
    options = arguments()
    machine = common.machine(options.device)
    device, size = torch.device(options.device), (options.size, options.size)
    spec = TrainingSpec(net=options.net, tune="head")
    network = catalogue.build(options.net, num_classes=10, in_channels=3, size=size)
    arithmetic.settle(device)
    trial = arithmetic.Trial(network, size, 3, spec, device, FEATURE_BATCH, 10_000)

    with tempfile.TemporaryDirectory() as folder:
        chosen = arithmetic.choose(trial, Path(folder) / "arithmetic.json")
        classifier = Classifier(network, size=size, mean=(0.5,) * 3, std=(0.5,) * 3).to(device).eval()
        classifier.to(memory_format=arithmetic.layout(chosen))
        split = stored(options.data, options.size, Path(folder))
        num = len(split.labels)
        pictures = Pictures(split, classifier, spec, device, chosen)
        spans = [np.arange(i, min(num, i + FEATURE_BATCH)) for i in range(0, num, FEATURE_BATCH)]
        batches = [pictures.plain(split.read(span)) for span in spans]

        def ours() -> None:
            compute_features(
                split,
                classifier,
                mirror=False,
                device=device,
                arithmetic=chosen,
                group=Group(),
                scratch=Path(folder),
                progress=lambda done, total: None,
            )

        def limit() -> None:
            with torch.inference_mode(), arithmetic.autocast(chosen, device):
                for batch in batches:
                    catalogue.features(network, batch).float().cpu()

        candidates = {"limit": limit, "ours": ours, "timm": _timm(options, device)}
        raw: dict[str, list[float]] = {name: [] for name in candidates}
        for _ in range(options.repeats):
            for name, work in candidates.items():
                raw[name].append(round(rate(num, work), 2))

    best = {name: max(found) for name, found in raw.items()}
    result = {
        "benchmark": "head_only",
        "machine": machine,
        "device": options.device,
        "net": options.net,
        "size": options.size,
        "num_pictures": num,
        "arithmetic": chosen.model_dump(mode="json"),
        "pictures_per_s": best,
        "ratios": {f"ours_to_{name}": common.ratio(best["ours"], best[name]) for name in best if name != "ours"},
        "raw": raw,
    }
    ratios = result["ratios"]
    print(common.table(["network", *best, *ratios], [[options.net, *best.values(), *ratios.values()]]))
    common.save(result, options.out, "head_only")


def _timm(options: argparse.Namespace, device: torch.device) -> Callable[[], None]:
    loader = timm.data.create_loader(
        timm.data.create_dataset("", str(options.data)),
        input_size=(3, options.size, options.size),
        batch_size=FEATURE_BATCH,
        use_prefetcher=False,
        num_workers=2,
        crop_pct=1.0,
    )
    network: nn.Module = timm.create_model(options.net, num_classes=10).to(device).eval()

    def work() -> None:
        with torch.inference_mode():
            for pictures, _ in loader:
                network.forward_head(network.forward_features(pictures.to(device)), pre_logits=True).cpu()

    return work


if __name__ == "__main__":
    main()
