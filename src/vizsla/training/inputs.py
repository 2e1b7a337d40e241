"""What a step trains on: pictures through the whole network, or stored features through its last layer."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vizsla.datasets.store import PixelStore
from vizsla.files import disk_errors, require_space
from vizsla.networks.catalogue import features
from vizsla.networks.classifier import Classifier, as_float
from vizsla.training import augment
from vizsla.training.batches import Positions
from vizsla.training.precision import Precision
from vizsla.training.spec import TrainingSpec

FEATURE_BATCH = 64


class Inputs(Protocol):
    """One split, as the loop sees it."""

    labels: Tensor
    """int64 (num_pictures,), on the CPU"""

    def load(self, positions: Positions) -> Tensor:
        """The batch at these positions, on the CPU; runs in a thread ahead of the loop."""

    def logits(self, batch: Tensor, random: torch.Generator | None) -> Tensor:
        """Logits of a loaded batch on the device; augmented when `random` is given, for training."""


@dataclass(frozen=True)
class Stored:
    """A split in the pixel store: where each picture lies, and its label."""

    pixels: PixelStore
    indices: Positions
    labels: Tensor

    def read(self, positions: Positions) -> Tensor:
        """uint8 (n, H, W, C)."""
        return torch.from_numpy(self.pixels.read(self.indices[positions]))


class Pictures:
    """Pictures, augmented in training, through the whole classifier."""

    def __init__(self, split: Stored, classifier: Classifier, spec: TrainingSpec, device: torch.device) -> None:
        self.labels = split.labels
        self.load = split.read
        self._classifier = classifier
        self._spec = spec
        self._device = device

    def logits(self, batch: Tensor, random: torch.Generator | None) -> Tensor:
        """See `Inputs.logits`. In training the result may carry auxiliary logits, as the network gives them."""
        pixels = batch.to(self._device)
        if random is None:
            return self._classifier(pixels)
        spec = self._spec
        pixels = augment.geometry(
            pixels, size=self._classifier.size, shift=spec.shift, flip=bool(spec.flip), random=random
        )
        pictures = augment.colour(as_float(pixels), strength=spec.jitter or 0.0, random=random)
        return self._classifier.network(self._classifier.standardise(pictures))


class Features:
    """Features of every picture, computed once by the frozen body, through the head."""

    def __init__(self, table: Tensor, labels: Tensor, head: nn.Module, device: torch.device) -> None:
        """`table` is float32 (views, num_pictures, num_features); view 0 is the picture, view 1 its mirror image."""
        self.labels = labels
        self._table = table
        self._head = head
        self._device = device

    def load(self, positions: Positions) -> Tensor:
        """float32 (views, n, num_features)."""
        return self._table[:, torch.from_numpy(positions)]

    def logits(self, batch: Tensor, random: torch.Generator | None) -> Tensor:
        """See `Inputs.logits`; in training each picture is seen plain or mirrored by chance."""
        if random is None or len(batch) == 1:
            chosen = batch[0]
        else:
            view = torch.randint(len(batch), (batch.shape[1],), generator=random)
            chosen = batch[view, torch.arange(batch.shape[1])]
        return self._head(chosen.to(self._device))


def compute_features(
    split: Stored,
    classifier: Classifier,
    *,
    mirror: bool,
    device: torch.device,
    precision: Precision,
    scratch: Path,
    progress: Callable[[int, int], None],
) -> Tensor:
    """The features of every picture of a split, by the classifier's frozen body.

    Args:
        mirror: also of each picture mirrored left to right.
        scratch: folder for a file that has no name, so that memory stays flat and nothing is left behind.
        progress: called with pictures done and pictures in all; it may raise to stop.

    Returns:
        float32 (views, num_pictures, num_features), backed by the file.
    """
    num, views = len(split.labels), 2 if mirror else 1
    classifier.eval()
    table: np.ndarray | None = None
    for start in range(0, num, FEATURE_BATCH):
        positions = np.arange(start, min(num, start + FEATURE_BATCH))
        pixels = classifier.centre(split.read(positions).to(device))
        for view in range(views):
            seen = pixels.flip(2) if view else pixels
            with torch.inference_mode(), precision.autocast(device):
                found = features(classifier.network, classifier.standardise(as_float(seen)))
            if table is None:
                table = _table(scratch, (views, num, found.shape[1]))
            table[view, positions] = found.float().cpu().numpy()
        progress(len(positions) + start, num)
    assert table is not None, "a split that is trained on is not empty"
    return torch.from_numpy(table)


def _table(folder: Path, shape: tuple[int, int, int]) -> np.ndarray:
    num_bytes = 4 * int(np.prod(shape))
    require_space(folder, num_bytes)
    with tempfile.TemporaryFile(dir=folder) as file, disk_errors(folder):
        # Without its blocks at hand, a disk that fills up later would end this process by a signal.
        os.posix_fallocate(file.fileno(), 0, num_bytes)
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
