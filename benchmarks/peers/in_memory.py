"""The limit: forward, loss, backward and optimiser on random pictures that are in memory already.

Freed memory stays with the process, as in Vizsla's workers, unless a variant says "released": see `keep_freed_memory`.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import timm
import torch
from clock import Window
from torch.nn import functional as F

from vizsla.training.arithmetic import keep_freed_memory


def rate(asked: dict[str, Any], variant: str) -> float:
    """Pictures a second in one variant, such as "bf16 channels_last" or "bf16 channels_last released"."""
    number_format, layout, *released = variant.split()
    if not released:
        keep_freed_memory()
    device = asked["device"]
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    network = timm.create_model(asked["net"], num_classes=asked["num_classes"]).to(device, memory_format=memory).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    pictures = torch.randn(asked["batch"], 3, asked["size"], asked["size"]).to(device, memory_format=memory)
    labels = torch.randint(asked["num_classes"], (asked["batch"],), device=device)
    window = Window(warm=asked["warm"], timed=asked["timed"], batch=asked["batch"], device=device)
    half = torch.autocast(torch.device(device).type, dtype=torch.bfloat16)
    while True:
        with half if number_format == "bf16" else contextlib.nullcontext():
            logits = network(pictures)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if window.step_ended():
            return window.pictures_per_s


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    print(json.dumps({"pictures_per_s": {variant: rate(asked, variant) for variant in asked["variants"]}}))


if __name__ == "__main__":
    main()
