"""What a training will be, before it begins: its steps, learning rate, memory, and pictures as they are trained on.

Started as `python -m vizsla.training.preview`; see `vizsla.jobs.launch.ask`. Pretrained weights are not looked for.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from vizsla import files, work
from vizsla.datasets.dataset import Dataset, open_dataset, split_arrays
from vizsla.datasets.scan import Split
from vizsla.datasets.store import PixelStore
from vizsla.errors import VizslaError
from vizsla.training.spec import AUGMENTS_EACH_PASS, TrainingSpec

with work.loading():
    import torch
    import torch.nn.functional as F
    from torch import nn

    from vizsla.networks import catalogue, memory, own, weights
    from vizsla.training import arithmetic, augment, charts, optimizers, probe, schedules, setup
    from vizsla.training.batches import Plan, Positions, step_seed
    from vizsla.training.charts import Tile
    from vizsla.training.inputs import RESIDENT_SHARE

SCHEDULE_CHART, SCHEDULE, AUGMENTED = "schedule.png", "schedule.json", "augmented.png"

MAX_POINTS = 1000
PICTURES, VERSIONS = 6, 7
PARTS_A_LINE = 7
TRAINED_BY: tuple[Split, ...] = ("train", "val")


def preview(dataset_folder: Path, asked: TrainingSpec, net: str, out: Path, cache: Path) -> dict[str, Any]:
    """Write the charts into the folder `out`, and return a summary that goes into JSON.

    Args:
        net: what builds the network: its name in the catalogue, or the path of a user's own.
        cache: see `arithmetic.choose`.

    Raises:
        NotFound: there is no such network.
        InvalidInput: the settings, the dataset and the network do not go together.
    """
    dataset = open_dataset(dataset_folder)
    has_weights = weights.has_weights(net)
    spec = asked.resolved(has_weights=has_weights)
    optimizers.check(spec)
    size, channels = setup.input_size(spec, dataset), dataset.preprocess.channels
    network = catalogue.build(net, num_classes=len(dataset.labels), in_channels=channels, size=size)
    setup.require_head(spec, network, size, channels)
    plan = setup.plan_of(spec, split_arrays(dataset_folder, "train").labels)
    setup.require_shares(spec, plan, arithmetic.choose_devices(spec.device, spec.num_processes))
    rates = _rates(spec, plan)
    sheet = _contact_sheet(dataset_folder, dataset, spec, size)
    out.mkdir(parents=True, exist_ok=True)
    with files.disk_errors(out):
        files.write_json(out / SCHEDULE, {"format": "vizsla.schedule/1", "rates": rates})
        for name, image in ((SCHEDULE_CHART, _schedule_chart(spec, plan, rates)), (AUGMENTED, sheet)):
            with files.atomic(out / name) as path:
                image.save(path, "PNG")
    return {
        "dataset": dataset.name,
        "network": own.title(spec.net),
        "settings": spec.model_dump(mode="json"),
        "changed": _changed(spec, has_weights),
        "unused": spec.unused(num_val=sum(dataset.counts["val"].values()), channels=channels),
        "pictures": {split: sum(counts.values()) for split, counts in dataset.counts.items()},
        "classes": len(dataset.labels),
        "input": {"height": size[0], "width": size[1], "channels": channels},
        "num_parameters": sum(parameter.numel() for parameter in network.parameters()),
        "pictures_per_step": min(plan.step_size, plan.num_pictures),
        "steps_per_epoch": plan.steps_per_epoch,
        "total_steps": plan.total_steps,
        "memory": _memory(spec, network, size, channels, plan.num_pictures),
        "largest_batch": _largest_batch(spec, network, plan, dataset, cache),
        "files": {name: str(out / name) for name in (SCHEDULE_CHART, SCHEDULE, AUGMENTED)},
    }


def _changed(spec: TrainingSpec, has_weights: bool) -> dict[str, dict[str, Any]]:
    """The settings that differ from the defaults."""
    usual = spec.usual(has_weights=has_weights)
    return {
        name: {"value": value, "default": usual[name]}
        for name, value in spec.model_dump(mode="json").items()
        if value != usual[name]
    }


def _rates(spec: TrainingSpec, plan: Plan) -> list[tuple[float, float]]:
    """Pairs of epochs done and the learning rate of the step that follows, for all steps or 1000 among them."""
    steps = np.unique(np.linspace(0, plan.total_steps - 1, min(plan.total_steps, MAX_POINTS)).round().astype(int))
    return [
        (step / plan.steps_per_epoch, schedules.learning_rate(spec, (step + 0.5) / plan.total_steps))
        for step in steps.tolist()
    ]


def _schedule_chart(spec: TrainingSpec, plan: Plan, rates: list[tuple[float, float]]) -> Image:
    parts = [f"{spec.schedule}", f"highest {charts.number(spec.learning_rate or 0)}", f"{spec.optimizer}"]
    if spec.warmup_percent:
        parts.append(f"warm-up {spec.warmup_percent:g} %")
    parts.append(f"{plan.total_steps:,} steps of up to {min(plan.step_size, plan.num_pictures):,} pictures")
    frozen = (spec.freeze_epochs, "from here on all layers") if 0 < spec.freeze_epochs < plan.epochs else None
    return charts.curve(
        [*rates, (float(plan.epochs), rates[-1][1])],
        title="Learning rate",
        subtitle="  ·  ".join(parts),
        x_name="epochs",
        mark=frozen,
    )


def _contact_sheet(folder: Path, dataset: Dataset, spec: TrainingSpec, size: augment.Size) -> Image:
    arrays = split_arrays(folder, "train")
    chosen = _choose(arrays.labels, np.random.default_rng(spec.seed))
    pixels = torch.from_numpy(PixelStore.open(folder / "pixels").read(arrays.indices[chosen]))
    top, left = (pixels.shape[1] - size[0]) // 2, (pixels.shape[2] - size[1]) // 2
    centre = pixels[:, top : top + size[0], left : left + size[1]]
    if spec.tune == "head":
        pixels = centre
    num = len(chosen) * VERSIONS
    random = torch.Generator().manual_seed(step_seed(spec.seed, 0))
    stored, channels = (pixels.shape[1], pixels.shape[2]), pixels.shape[3]
    draws = augment.draw(spec, num, stored=stored, size=size, channels=channels, random=random)
    # All pictures, then all again: neighbours, which are mixed, are two different ones.
    seen = augment.pictures(pixels.repeat(VERSIONS, 1, 1, 1), draws, spec, size=size)
    labels = torch.from_numpy(arrays.labels[chosen])
    seen, targets = augment.mix(seen, F.one_hot(labels, len(dataset.labels)).repeat(VERSIONS, 1).float(), draws)
    versions = (seen * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    rows = []
    for row, label in enumerate(labels.tolist()):
        numbers = range(row, num, len(chosen))
        mixed = draws.weight is not None
        captions = [_shares(targets[number].tolist(), dataset.labels) if mixed else () for number in numbers]
        tiles = [Tile(versions[number], caption) for number, caption in zip(numbers, captions, strict=True)]
        rows.append([Tile(centre[row].numpy(), (dataset.labels[label],)), *tiles])
    title = f"Pictures of {dataset.name} as they are trained on"
    heads = ("as they are", f"as they are trained on, {VERSIONS} times by chance")
    return charts.contact_sheet(rows, title=title, subtitle=_augmentation(spec, stored, size), heads=heads)


def _choose(labels: Positions, random: np.random.Generator) -> Positions:
    """Positions of a few pictures, of as many classes as can be, in the order of the classes."""
    classes = np.unique(labels)
    classes = np.sort(random.permutation(classes)[:PICTURES])
    drawn = [random.permutation(np.flatnonzero(labels == label))[:PICTURES] for label in classes]
    rounds = [positions[turn] for turn in range(PICTURES) for positions in drawn if turn < len(positions)]
    found = np.array(rounds[:PICTURES])
    return found[np.argsort(labels[found], kind="stable")]


def _shares(target: list[float], labels: list[str]) -> tuple[str, ...]:
    """The classes that a mixed picture counts for, the largest share first."""
    shares = sorted(((share, label) for share, label in zip(target, labels, strict=True) if share), reverse=True)
    return tuple(f"{100 * share:.0f} % {label}" for share, label in shares)


def _augmentation(spec: TrainingSpec, stored: augment.Size, size: augment.Size) -> list[str]:
    """What is done to the pictures, in a line or two."""
    parts = [f"{size[1]} x {size[0]} px"]
    if stored != size:
        parts[0] += f" cut at random out of {stored[1]} x {stored[0]}"
    fields = TrainingSpec.model_fields
    for name in ("flip", *sorted(AUGMENTS_EACH_PASS, key=list(fields).index)):
        value = getattr(spec, name)
        if value and value != "none":
            parts.append(name.replace("_", " ") if value is True else f"{name.replace('_', ' ')} {value}")
    lines = [parts[i : i + PARTS_A_LINE] for i in range(0, len(parts), PARTS_A_LINE)]
    return ["  ·  ".join(line) for line in lines] if len(parts) > 1 else [f"{parts[0]}, not augmented"]


def _memory(
    spec: TrainingSpec, network: nn.Module, size: augment.Size, channels: int, num_pictures: int
) -> dict[str, int]:
    """Bytes that each process needs on its device, by `memory.estimate`. With precision=auto those of 32-bit floats."""
    processes = max(spec.processes, spec.device.count(",") + 1)
    batch_size = math.ceil(min(spec.batch_size or 1, num_pictures) / processes)
    found = memory.estimate(
        network,
        size,
        channels,
        batch_size,
        optimizer_states_per_parameter=_states_per_parameter(spec),
        bytes_per_activation=2 if spec.precision in ("bf16", "fp16") else 4,
        trained="head" if spec.tune == "head" else "full",
        ema=spec.ema > 0,
    )
    return {f"{name}_bytes": count for name, count in found._asdict().items()}


def _largest_batch(spec: TrainingSpec, network: nn.Module, plan: Plan, dataset: Dataset, cache: Path) -> int | None:
    """The largest --batch-size that fits into the GPUs, which is tried; None on a CPU, and where a head is trained."""
    devices = arithmetic.choose_devices(spec.device, spec.num_processes)
    if devices[0].type != "cuda" or spec.tune == "head":
        return None
    trial = arithmetic.Trial(
        network,
        setup.input_size(spec, dataset),
        dataset.preprocess.channels,
        spec,
        devices[0],
        batch_size=math.ceil((spec.batch_size or 1) / len(devices)),
        num_passes=plan.num_pictures * plan.epochs,
    )
    at_most = math.ceil(plan.num_pictures / len(devices))
    chosen, aside = arithmetic.choose(trial, cache), _aside(spec, network, dataset, devices[0])
    return len(devices) * probe.largest_batch(trial, chosen, at_most, aside_bytes=aside)


def _aside(spec: TrainingSpec, network: nn.Module, dataset: Dataset, device: torch.device) -> int:
    """Bytes on a GPU that do not depend on the batch: the averaged weights, and the splits that are kept there."""
    free, _ = torch.cuda.mem_get_info(device)
    about = dataset.preprocess
    counts = (sum(dataset.counts[split].values()) for split in TRAINED_BY)
    splits = [count * about.height * about.width * about.channels for count in counts]
    average = sum(tensor.nbytes for tensor in network.state_dict().values()) if spec.ema else 0
    return average + sum(num_bytes for num_bytes in splits if num_bytes < RESIDENT_SHARE * free)


def _states_per_parameter(spec: TrainingSpec) -> float:
    """Numbers that the optimiser keeps for each that it trains, counted on a small layer."""
    layer = nn.Linear(64, 64, bias=False)
    optimizer = optimizers.make_optimizer(spec.model_copy(update={"layer_decay": 1.0}), layer)
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizer.step()
    kept = (value for state in optimizer.state.values() for value in state.values())
    total = sum(value.numel() for value in kept if isinstance(value, torch.Tensor) and value.numel() > 1)
    return total / layer.weight.numel()


def main() -> None:
    """Answer the one question on standard input: {"dataset_folder", "spec", "net", "out", "cache"}."""
    question = json.load(sys.stdin)
    try:
        spec = TrainingSpec(**question["spec"])
        folder, out, cache = (Path(question[name]) for name in ("dataset_folder", "out", "cache"))
        found = preview(folder, spec, question["net"], out, cache)
        reply: dict[str, Any] = {"answer": found}
    except VizslaError as error:
        reply = {"error": error.as_dict()}
    print(json.dumps(reply))


if __name__ == "__main__":
    main()
    work.leave(0)
