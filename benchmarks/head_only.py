"""Speed of the pass that head-only training spends its time on: the features of every picture.

Compares, in one run and on the same photos, pictures a second of
  ours     `compute_features`: from the pixel store through the frozen body, in the precision that Vizsla chooses
  limit    the same forward passes on batches that are in memory already
  timm     timm's own loader (2 workers, decoding JPEG) and model in fp32, as its `validate.py` runs

Usage: python benchmarks/head_only.py PHOTOS [--size 160] [--net tf_efficientnet_lite0]
PHOTOS has one sub-folder a class. Prints a JSON document; ratios are what to compare between machines.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch

import vizsla
from vizsla.api import datasets
from vizsla.datasets.dataset import split_arrays
from vizsla.datasets.store import PixelStore
from vizsla.networks import catalogue
from vizsla.networks.classifier import Classifier, as_float
from vizsla.training import precision
from vizsla.training.inputs import FEATURE_BATCH, Stored, compute_features

ROUNDS = 3


def best_rate(num_pictures: int, work: Callable[[], object]) -> float:
    """Pictures a second of the fastest of some rounds: the one that the rest of the machine disturbed least."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return num_pictures / min(seconds)


def stored_photos(photos: Path, size: int, scratch: Path) -> Stored:
    """All the photos, in a dataset of this size."""
    with vizsla.open(scratch / "workspace") as ws:
        spec = vizsla.DatasetSpec(source=photos, width=size, height=size, resize="crop", val_percent=0)
        dataset = datasets.create(ws, "photos", spec)
        folder = ws.folder("dataset", dataset.id)
    arrays = split_arrays(folder, "train")
    return Stored(PixelStore.open(folder / "pixels"), arrays.indices, torch.from_numpy(arrays.labels))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--net", default="tf_efficientnet_lite0")
    options = parser.parse_args()
    size = (options.size, options.size)
    device = precision.choose_device("auto")
    network = catalogue.build(options.net, num_classes=10, in_channels=3, size=size)
    classifier = Classifier(network, size=size, mean=(0.5,) * 3, std=(0.5,) * 3).to(device).eval()
    classifier.to(memory_format=torch.channels_last)
    chosen = precision.choose("auto", device, network)

    with tempfile.TemporaryDirectory() as folder:
        split = stored_photos(options.photos, options.size, Path(folder))
        num = len(split.labels)
        batches = [
            classifier.standardise(as_float(split.read(np.arange(i, min(num, i + FEATURE_BATCH))).to(device)))
            for i in range(0, num, FEATURE_BATCH)
        ]

        def ours() -> None:
            compute_features(
                split,
                classifier,
                mirror=False,
                device=device,
                precision=chosen,
                scratch=Path(folder),
                progress=lambda done, total: None,
            )

        def limit() -> None:
            with torch.inference_mode(), chosen.autocast(device):
                for batch in batches:
                    catalogue.features(network, batch).float().cpu()

        loader = timm.data.create_loader(
            timm.data.create_dataset("", str(options.photos)),
            input_size=(3, *size),
            batch_size=FEATURE_BATCH,
            use_prefetcher=False,
            num_workers=2,
            crop_pct=1.0,
        )
        plain = timm.create_model(options.net, num_classes=10).to(device).eval()

        def peer() -> None:
            with torch.inference_mode():
                for pictures, _ in loader:
                    plain.forward_head(plain.forward_features(pictures.to(device)), pre_logits=True).cpu()

        rates = {"limit": best_rate(num, limit), "ours": best_rate(num, ours), "timm": best_rate(num, peer)}

    result = {
        "machine": {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "device": str(device),
        "torch": torch.__version__,
        "net": options.net,
        "size": options.size,
        "num_pictures": num,
        "precision": chosen.name,
        "pictures_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "ours_to_limit": round(rates["ours"] / rates["limit"], 3),
        "ours_to_timm": round(rates["ours"] / rates["timm"], 2),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
