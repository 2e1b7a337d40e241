"""From a request to a task: device, network, weights and inputs. Everything that can be refused is refused here."""

from __future__ import annotations

import copy
import dataclasses
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vizsla import files
from vizsla.datasets.dataset import Dataset, open_dataset, split_arrays
from vizsla.datasets.store import PixelStore
from vizsla.errors import InvalidInput
from vizsla.networks import catalogue, weights
from vizsla.networks.classifier import Classifier
from vizsla.training import arithmetic, optimizers
from vizsla.training.batches import Plan, Positions
from vizsla.training.inputs import Stored
from vizsla.training.run import MEAN_PICTURE, DatasetRef, Input, Request, Run, WeightsRef, origin_weights
from vizsla.training.spec import TrainingSpec

LIBRARIES = ("vizsla", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "onnx", "onnxruntime")

OWN_LICENCE = "trained from scratch: yours"


@dataclass(frozen=True)
class Prepared:
    """What a run needs before its first step, whether it is new or goes on."""

    run: Run
    classifier: Classifier
    device: torch.device
    train: Stored
    val: Stored | None
    plan: Plan


def prepare(
    request: Request, announce: Callable[[str], None], *, cache: Path, on_progress: arithmetic.OnProgress
) -> Prepared:
    """Check a request, build its network, find its weights and measure how to compute; of the run nothing is written.

    Of several processes only the first does this; the others do what `again` does.

    Args:
        announce: told in one sentence before anything is fetched from a network.
        cache, on_progress: see `arithmetic.choose`.

    Raises:
        NotFound: there is no such network.
        InvalidInput: the settings, the dataset and the network do not go together.
        Unavailable: the weights or the device are not to be had.
    """
    catalogue.check(request.net)
    dataset = open_dataset(request.dataset_folder)
    spec = request.spec.resolved(has_weights=weights.has_weights(request.net))
    optimizers.check(spec)
    devices = arithmetic.choose_devices(request.device or spec.device, request.num_processes)
    size, channels = input_size(spec, dataset), dataset.preprocess.channels
    torch.manual_seed(spec.seed)  # the initial weights
    network = catalogue.build(request.net, num_classes=len(dataset.labels), in_channels=channels, size=size)
    require_head(spec, network, size, channels)
    found = None if spec.tune == "scratch" else _begin_with_weights(network, channels, request, spec, announce)
    arithmetic.settle(devices[0])
    arithmetic.choose_threads(devices[0], network, len(devices))
    train, val = _splits(request.dataset_folder, dataset)
    plan = plan_of(spec, train.labels.numpy())
    require_shares(spec, plan, devices)
    _require_single_pictures(spec, plan, network, (channels, *size))
    batch_size = -(-(spec.batch_size or 1) // len(devices))
    trial = arithmetic.Trial(network, size, channels, spec, devices[0], batch_size, plan.num_pictures * plan.epochs)
    run = Run(
        id=request.id,
        name=request.name,
        created_at=request.created_at,
        asked=request.spec,
        spec=spec,
        dataset=DatasetRef(id=dataset.id, name=dataset.name, fingerprint=dataset.fingerprint),
        labels=tuple(dataset.labels),
        preprocess=dataset.preprocess,
        input=_input(size, dataset, found, spec),
        weights=WeightsRef(source=found.source, licence=found.licence, sha256=found.sha256) if found else None,
        num_parameters=sum(p.numel() for p in network.parameters()),
        multiply_accumulates=work_of(copy.deepcopy(network) if request.network_file else network, size, channels),
        devices=tuple(map(str, devices)),
        arithmetic=arithmetic.choose(trial, cache, on_progress),
        num_train=len(train.labels),
        num_val=len(val.labels) if val else 0,
        num_test=sum(dataset.counts["test"].values()),
        threads=torch.get_num_threads(),
        steps_per_epoch=plan.steps_per_epoch,
        network_sha256=files.sha256(request.network_file) if request.network_file else None,
        vizsla_version=version("vizsla"),
    )
    return Prepared(run, classifier_of(run, network), devices[0], train, val, plan)


def work_of(network: torch.nn.Module, size: tuple[int, int], channels: int) -> int | None:
    """Multiply-accumulates for one picture of `size` (height, width); None: the counter cannot follow a network."""
    try:
        return catalogue.summary(network, size, channels).multiply_accumulates
    # What its forward does is the user's; a figure for people is no reason not to train.
    except Exception:
        return None


def _begin_with_weights(
    network: torch.nn.Module, channels: int, request: Request, spec: TrainingSpec, announce: Callable[[str], None]
) -> weights.Weights:
    """Give the body of a network its pretrained weights; its classifier begins anew."""
    found = _weights(request, spec, announce)
    _clear_classifier(network)
    weights.load(network, found, in_channels=channels)
    return found


def _weights(request: Request, spec: TrainingSpec, announce: Callable[[str], None]) -> weights.Weights:
    """The weights to begin with; those of a run or a model of the workspace take their licence and input along."""
    workspace = request.dataset_folder.parents[1]
    ours = origin_weights(spec.weights, workspace)
    if ours is None:
        return weights.find(request.net, spec.weights, announce=announce)
    found = weights.find(request.net, str(ours.path), announce=announce)
    licence = ours.origin.weights.licence if ours.origin.weights else OWN_LICENCE
    before = ours.origin.input
    return dataclasses.replace(found, source=ours.source, licence=licence, mean=before.mean, std=before.std)


def again(run: Run, folder: Path, request: Request, *, rank: int = 0) -> Prepared:
    """What a run that was interrupted needs to go on: as `prepare`, with everything decided as it was then.

    Raises:
        InvalidInput: the dataset is not the one that the run began with, or the devices cannot share its steps.
    """
    dataset_folder = request.dataset_folder
    dataset = open_dataset(dataset_folder)
    if dataset.fingerprint != run.dataset.fingerprint:
        raise InvalidInput(
            "The dataset has changed since the run began.", where=str(dataset_folder), remedy="Start a new run."
        )
    devices = arithmetic.devices_again(run.devices, request.device, request.num_processes)
    device = devices[rank]
    arithmetic.settle(device)
    torch.set_num_threads(run.threads)
    size = (run.input.height, run.input.width)
    net = run.net(folder)
    network = catalogue.build(net, num_classes=len(run.labels), in_channels=run.preprocess.channels, size=size)
    train, val = _splits(dataset_folder, dataset)
    plan = plan_of(run.spec, train.labels.numpy())
    require_shares(run.spec, plan, devices)
    return Prepared(run, classifier_of(run, network, folder), device, train, val, plan)


def plan_of(spec: TrainingSpec, labels: Positions) -> Plan:
    """The steps of a resolved spec on training pictures with these labels."""
    assert spec.batch_size is not None, "the spec must be resolved"
    assert spec.epochs is not None, "the spec must be resolved"
    step_size = min(spec.batch_size * spec.accumulate, len(labels))
    balanced = labels if spec.imbalance == "sample" else None
    return Plan(len(labels), step_size, spec.epochs, spec.seed, balanced)


def classifier_of(run: Run, network: torch.nn.Module, folder: Path | None = None) -> Classifier:
    """The network of a run with its input attached; `folder` is the run's, which holds the mean picture."""
    size = (run.input.height, run.input.width)
    classifier = Classifier(network, size=size, mean=run.input.mean, std=run.input.std)
    if run.input.mean_picture and folder is not None:
        classifier.mean = mean_picture(folder)
    return classifier


def mean_picture(folder: Path) -> torch.Tensor:
    """What a run subtracts from every picture: float32 (1, C, h, w) in 0..1."""
    return torch.from_numpy(np.load(folder / MEAN_PICTURE, allow_pickle=False))[None]


def _require_single_pictures(
    spec: TrainingSpec, plan: Plan, network: torch.nn.Module, shape: tuple[int, int, int]
) -> None:
    """Raise `InvalidInput` where single pictures pass through the network and something needs several."""
    smallest = min(spec.batch_size or 1, plan.smallest_step) // spec.num_processes
    if smallest > 1 or spec.tune == "head":
        return
    reason = "mixup and cutmix need pairs" if spec.mixup or spec.cutmix else ""
    try:
        copy.deepcopy(network).train()(torch.zeros(1, *shape))
    except ValueError as error:  # batch normalisation's
        reason = str(error)
    if reason:
        raise InvalidInput(
            f"Single pictures cannot be trained on: {reason}.",
            where="batch_size",
            remedy="Use a --batch-size of 3 or more for each process.",
        )


def require_shares(spec: TrainingSpec, plan: Plan, devices: list[torch.device]) -> None:
    """Raise `InvalidInput` unless every process has a part in every step, and synchronised batch norm can be had.

    Args:
        devices: one for each process.
    """
    if len(devices) > 1 and plan.smallest_step < 2 * len(devices):
        raise InvalidInput(
            f"Steps of {plan.smallest_step} pictures cannot be shared by {len(devices)} processes.",
            where="batch_size",
            remedy="Use a larger --batch-size, or fewer --processes: each needs two pictures a step.",
        )
    if spec.sync_batch_norm and len(devices) > 1 and devices[0].type == "cpu":
        raise InvalidInput(
            "Batch statistics over several processes are only to be had on GPUs.",
            where="sync_batch_norm",
            remedy="Leave out --sync-batch-norm, or use a network without batch normalisation.",
        )


def environment(device: torch.device, seed: int) -> dict[str, Any]:
    """What the run runs on: versions, device, threads and the commit of the working folder, if it has one."""
    return {
        "format": "vizsla.environment/1",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in LIBRARIES},
        "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "git_commit": _git_commit(),
        "seed": seed,
    }


def _git_commit() -> str | None:
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def require_head(spec: TrainingSpec, network: torch.nn.Module, size: tuple[int, int], channels: int) -> None:
    """Raise `InvalidInput` unless the network's last layer can be trained alone, where that is asked for."""
    if spec.tune == "head":
        with catalogue.evaluating(network):
            catalogue.features(network, torch.zeros(2, channels, *size))
    if spec.freeze_epochs:
        catalogue.head(network)


def _clear_classifier(network: torch.nn.Module) -> None:
    """Start the new last layer of a pretrained network at zero (Kolesnikov et al. 2020, "Big Transfer").

    timm's EfficientNets draw it so wide for few classes that its noise outlives a training of that layer alone.
    """
    if not hasattr(network, "get_classifier"):
        return  # a user's own; its weights have to fit as a whole
    found = network.get_classifier()  # type: ignore[operator]
    for layer in found if isinstance(found, tuple) else (found,):
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)


def input_size(spec: TrainingSpec, dataset: Dataset) -> tuple[int, int]:
    """(height, width) of what the network sees.

    Raises:
        InvalidInput: the crop is larger than the pictures.
    """
    height, width = dataset.preprocess.height, dataset.preprocess.width
    if spec.crop is None:
        return height, width
    if spec.crop > min(height, width):
        raise InvalidInput(
            f"A crop of {spec.crop} px does not fit into the dataset's pictures of {width} x {height} px.",
            where="crop",
            remedy="Use a smaller --crop, or build the dataset with a larger --size.",
        )
    return spec.crop, spec.crop


def _input(size: tuple[int, int], dataset: Dataset, found: weights.Weights | None, spec: TrainingSpec) -> Input:
    """Standardisation as the pretrained weights expect it, else by the statistics of the training pictures."""
    mean, std = tuple(dataset.statistics.mean), tuple(dataset.statistics.std)
    if found is not None:
        mean, std = tuple(found.mean), tuple(found.std)
        if dataset.preprocess.channels == 1:
            mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    elif spec.subtract_mean == "none":
        mean = (0.0,) * len(mean)
    # A split of equal pixels has no deviation to divide by.
    std = tuple(max(s, 1e-3) for s in std)
    picture = found is None and spec.subtract_mean == "image"
    return Input(height=size[0], width=size[1], mean=mean, std=std, mean_picture=picture)


def _splits(folder: Path, dataset: Dataset) -> tuple[Stored, Stored | None]:
    pixels = PixelStore.open(folder / "pixels")
    has_val = sum(dataset.counts.get("val", {}).values()) > 0
    return _stored(folder, "train", pixels), _stored(folder, "val", pixels) if has_val else None


def _stored(folder: Path, split: str, pixels: PixelStore) -> Stored:
    arrays = split_arrays(folder, split)
    return Stored(pixels, arrays.indices, torch.from_numpy(arrays.labels))
