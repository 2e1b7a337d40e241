"""Ultralytics' classification trainer with its default augmentation, on the very same network as everybody else.

Ultralytics is AGPL-3.0: it is installed and run for comparison only, in an environment of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import timm
import torch
import ultralytics
from clock import Window
from torch import nn
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.nn.tasks import ClassificationModel
from ultralytics.utils import torch_utils


class Enough(Exception):
    """All that is to be known is known."""


class Trainer(ClassificationTrainer):
    """The trainer, but for the network: Ultralytics offers few that others have too."""

    network = ""

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
        """A classification model of Ultralytics whose only layer is the network."""
        model = ClassificationModel(cfg, nc=self.data["nc"], ch=3, verbose=False)
        network = timm.create_model(self.network, num_classes=self.data["nc"])
        network.i, network.f, network.type, network.np = 0, -1, self.network, 0
        model.model, model.save = nn.Sequential(network), []
        return model.requires_grad_(True)


def main() -> None:
    asked = json.loads(sys.argv[1])
    # On a CPU it takes one thread less than there are cores; the others take them all.
    torch_utils.NUM_THREADS = asked["threads"]
    window = Window(warm=asked["warm"], timed=asked["timed"], batch=asked["batch"], device=asked["device"])
    on_gpu = asked["device"].startswith("cuda")
    Trainer.network = asked["net"]
    trainer = Trainer(
        overrides={
            "model": "yolo11n-cls.yaml",  # replaced in get_model; a .yaml needs no download
            "data": asked["root"],
            "imgsz": asked["size"],
            "batch": asked["batch"],
            "nbs": asked["batch"],  # a step of the optimiser each batch
            "workers": asked["workers"],
            "epochs": 2,
            "optimizer": "AdamW",
            "lr0": 1e-3,
            "pretrained": False,
            "amp": "bf16" if on_gpu else False,
            "device": "0" if on_gpu else "cpu",
            "deterministic": False,
            "val": False,
            "save": False,
            "plots": False,
            "verbose": False,
            "project": str(Path.cwd()),
        }
    )

    def step_ended(_: Any) -> None:
        if window.step_ended():
            raise Enough

    trainer.add_callback("on_train_batch_end", step_ended)
    try:
        trainer.train()
    except Enough:
        versions = {"torch": torch.__version__, "ultralytics": ultralytics.__version__}
        answer = {"pictures_per_s": window.pictures_per_s, "threads": torch.get_num_threads(), "versions": versions}
        print("\n" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
