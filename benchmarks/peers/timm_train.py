"""timm as its train.py uses it: its dataset, loader, augmentation, loss and loop, in fp32 NCHW (bf16 on a GPU).

Settings: `mode` is "speed", or "accuracy" with `parts` "full" or "head".
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import timm
import torch
from clock import Window
from safetensors.torch import load_file
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.loss import LabelSmoothingCrossEntropy
from torch import nn

WARMUP_SHARE = 0.1


def loader(asked: dict[str, Any], network: nn.Module, folder: str, *, training: bool, plain: bool = False) -> Any:
    """Pictures of a folder with timm's defaults for training (`plain`: without augmentation) or validation."""
    config = resolve_data_config({}, model=network)
    return create_loader(
        create_dataset("", folder, is_training=training),
        input_size=(3, asked["size"], asked["size"]),
        batch_size=asked["batch"],
        is_training=training,
        no_aug=plain,
        interpolation="random" if training and not plain else config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        crop_pct=config["crop_pct"],
        num_workers=asked["workers"],
        device=torch.device(asked["device"]),
    )


def autocast(asked: dict[str, Any]) -> contextlib.AbstractContextManager[object]:
    """What `--amp --amp-dtype bfloat16` does on a GPU; nothing on a CPU."""
    if asked["device"].startswith("cuda"):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def steps(
    asked: dict[str, Any], network: nn.Module, batches: Any, optimizer: torch.optim.Optimizer
) -> Iterator[torch.Tensor]:
    """One epoch of train.py's loop; yields the loss after each step."""
    loss_of = LabelSmoothingCrossEntropy(smoothing=0.1)
    for pictures, labels in batches:
        with autocast(asked):
            loss = loss_of(network(pictures), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield loss.detach()


def speed(asked: dict[str, Any]) -> dict[str, Any]:
    """Pictures a second in the middle of an epoch."""
    network = timm.create_model(asked["net"], num_classes=asked["num_classes"]).to(asked["device"]).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    window = Window(warm=asked["warm"], timed=asked["timed"], batch=asked["batch"], device=asked["device"])
    for _ in steps(asked, network, loader(asked, network, asked["train"], training=True), optimizer):
        if window.step_ended():
            return {"pictures_per_s": window.pictures_per_s}
    raise SystemExit("there are too few pictures for the timed steps")


def accuracy(asked: dict[str, Any]) -> dict[str, Any]:
    """Fine-tune from given weights; [time, accuracy] after each epoch, to the target or the time limit."""
    head_only = asked["parts"] == "head"
    network = timm.create_model(asked["net"])
    network.load_state_dict(load_file(asked["weights"]))
    network.reset_classifier(asked["num_classes"])
    network.to(asked["device"])
    if head_only:
        network.requires_grad_(False)
        network.get_classifier().requires_grad_(True)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=asked["lr"], weight_decay=0.05)
    train = loader(asked, network, asked["train"], training=True, plain=head_only)
    val = loader(asked, network, asked["val"], training=False)
    total = asked["epochs"] * len(train)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _factor(step / total))
    curve: list[tuple[float, float]] = []
    for _ in range(asked["epochs"]):
        network.train(not head_only)  # a frozen body keeps its batch statistics
        for _loss in steps(asked, network, train, optimizer):
            schedule.step()
            if time.time() > asked["until"]:
                return {"curve": curve, "timed_out": True}
        reached = evaluate(asked, network, val)
        curve.append((time.time(), reached))
        if reached >= asked["target"]:
            break
    return {"curve": curve}


def _factor(progress: float) -> float:
    """Linear warm-up, then half a cosine."""
    if progress < WARMUP_SHARE:
        return progress / WARMUP_SHARE
    return 0.5 * (1 + math.cos(math.pi * (progress - WARMUP_SHARE) / (1 - WARMUP_SHARE)))


def evaluate(asked: dict[str, Any], network: nn.Module, batches: Any) -> float:
    """The share of right answers."""
    network.eval()
    right = num = 0
    with torch.inference_mode(), autocast(asked):
        for pictures, labels in batches:
            right += int((network(pictures).argmax(1) == labels).sum())
            num += len(labels)
    return right / num


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    result = speed(asked) if asked["mode"] == "speed" else accuracy(asked)
    print(json.dumps(result | {"versions": {"torch": torch.__version__, "timm": timm.__version__}}))


if __name__ == "__main__":
    main()
