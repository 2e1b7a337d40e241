"""fastai as its vision tutorial uses it: ImageDataLoaders with `Resize` and `aug_transforms`, and a Learner, in fp32.

Settings: `mode` is "speed" (the very same network in a Learner) or "accuracy" (`vision_learner` and `fine_tune`).
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import fastai
import timm
import torch
from clock import Window
from fastai.callback.core import Callback
from fastai.callback.schedule import Learner  # the module that gives it fine_tune and fit_one_cycle
from fastai.data.transforms import Normalize
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy as accuracy_metric
from fastai.vision.augment import Resize, aug_transforms
from fastai.vision.data import ImageDataLoaders
from fastai.vision.learner import vision_learner
from safetensors.torch import load_file


class Enough(Exception):
    """All that is to be known is known."""


class Timer(Callback):
    """Tells the window of every step that was trained."""

    def __init__(self, window: Window) -> None:
        self.window = window

    def after_batch(self) -> None:
        """Called by fastai after each batch, of validation too."""
        if self.training and self.window.step_ended():
            raise Enough("enough")


class Curve(Callback):
    """Notes when each epoch ended and with which accuracy."""

    order = 100  # after the Recorder

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked = asked
        self.points: list[tuple[float, float]] = []
        self.timed_out = False

    def after_batch(self) -> None:
        """Called by fastai after each batch."""
        if time.time() > self.asked["until"]:
            self.timed_out = True
            raise Enough("enough")

    def after_epoch(self) -> None:
        """Called by fastai when training and validation of an epoch are done."""
        self.points.append((time.time(), float(self.learn.recorder.values[-1][-1])))
        if self.points[-1][1] >= self.asked["target"]:
            raise Enough("enough")


def loaders(asked: dict[str, Any]) -> Any:
    """Pictures resized in the workers and augmented in batches."""
    return ImageDataLoaders.from_folder(
        asked["root"],
        train="train",
        valid="val",
        bs=asked["batch"],
        item_tfms=Resize(asked["size"]),
        batch_tfms=aug_transforms(size=asked["size"]),
        num_workers=asked["workers"],
        device=torch.device(asked["device"]),
    )


def half_on_gpu(asked: dict[str, Any], learner: Learner) -> Learner:
    """bf16 on a GPU; on a CPU fastai's own default."""
    if asked["device"].startswith("cuda"):
        from fastai.callback.fp16 import MixedPrecision

        learner.add_cb(MixedPrecision(amp_mode="bf16"))
    return learner


def speed(asked: dict[str, Any]) -> dict[str, Any]:
    """Pictures a second in the middle of an epoch."""
    window = Window(warm=asked["warm"], timed=asked["timed"], batch=asked["batch"], device=asked["device"])
    network = timm.create_model(asked["net"], num_classes=asked["num_classes"])
    learner = half_on_gpu(asked, Learner(loaders(asked), network, loss_func=CrossEntropyLossFlat(), cbs=Timer(window)))
    try:
        with learner.no_bar(), learner.no_logging():
            learner.fit(1)
    except Enough:
        return {"pictures_per_s": window.pictures_per_s}
    raise SystemExit("there are too few pictures for the timed steps")


def accuracy(asked: dict[str, Any]) -> dict[str, Any]:
    """`fine_tune`: an epoch of the new head, then all; [time, accuracy] after each epoch."""
    data = loaders(asked)
    data.add_tfms([Normalize.from_stats(asked["mean"], asked["std"])], "after_batch")
    learner = vision_learner(data, asked["net"], pretrained=False, normalize=False, metrics=accuracy_metric)
    state = load_file(asked["weights"])
    body = learner.model[0].model
    body.load_state_dict({name: state[name] for name in body.state_dict()})
    learner = half_on_gpu(asked, learner)
    curve = Curve(asked)
    learner.add_cb(curve)
    try:
        with learner.no_bar(), learner.no_logging():
            learner.fine_tune(asked["epochs"])
    except Enough:
        pass
    return {"curve": curve.points, "timed_out": curve.timed_out}


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    result = speed(asked) if asked["mode"] == "speed" else accuracy(asked)
    print(json.dumps(result | {"versions": {"torch": torch.__version__, "fastai": fastai.__version__}}))


if __name__ == "__main__":
    main()
