"""What a step trains on: pictures through the whole network, or stored features through its last layer."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.nn import functional as F

from vizsla.datasets.store import PixelStore
from vizsla.files import disk_errors, require_space
from vizsla.networks.catalogue import features
from vizsla.networks.classifier import Classifier, as_float
from vizsla.training import augment
from vizsla.training.arithmetic import autocast, layout
from vizsla.training.batches import Positions, share
from vizsla.training.distributed import Group
from vizsla.training.run import Arithmetic
from vizsla.training.spec import TrainingSpec

# Pictures a pass through a frozen body: few stay in a CPU's caches, many keep a GPU busy.
FEATURE_BATCH = {"cpu": 16, "cuda": 256}
READ_BATCH = 256
SUMMED_ROWS = 8192
# A split is kept in memory when it takes less than this share of what is free.
RESIDENT_SHARE = 0.3


class Rows(Protocol):
    """What is random about the pictures of a step, one row a picture."""

    def rows(self, start: int, stop: int) -> Self:
        """What is random about the pictures from `start` to `stop`."""


class Inputs(Protocol):
    """One split, as the loop sees it."""

    labels: Tensor
    """int64 (num_pictures,), on the CPU"""

    def begin(self, epoch: int) -> None:
        """Get ready what an epoch needs, counted from 0; called before each of its steps, and before validation."""

    def load(self, positions: Positions) -> Tensor:
        """The batch at these positions; runs in a thread ahead of the loop."""

    def draw(self, num: int, random: torch.Generator) -> Rows:
        """Everything random about a step of `num` pictures: the same however the step is shared out."""

    def inputs(self, batch: Tensor, labels: Tensor, draws: Any, num_classes: int) -> tuple[Tensor, Tensor]:
        """What goes into the trained module for a loaded batch, augmented, and its target (see `Objective`)."""

    def plain(self, batch: Tensor) -> Tensor:
        """What goes into the trained module for a loaded batch, as it is."""


@dataclass(frozen=True)
class Stored:
    """A split in the pixel store: where each picture lies, and its label."""

    pixels: PixelStore
    indices: Positions
    labels: Tensor

    def read(self, positions: Positions) -> Tensor:
        """uint8 (n, H, W, C)."""
        return torch.from_numpy(self.pixels.read(self.indices[positions]))

    @property
    def num_bytes(self) -> int:
        """Bytes of all its pictures, uncompressed."""
        shape = self.pixels.shape
        return len(self.labels) * shape.height * shape.width * shape.channels


def reader(split: Stored, device: torch.device) -> Callable[[Positions], Tensor]:
    """How batches of a split get to a device: from its own memory or the machine's, where all of it fits in.

    Uncompressed stores are mapped files, which the system keeps in memory by itself.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if split.num_bytes < RESIDENT_SHARE * free:
            resident = _whole(split, device)
            return lambda positions: resident[torch.from_numpy(positions).to(device, non_blocking=True)]
        return lambda positions: split.read(positions).pin_memory().to(device, non_blocking=True)
    if split.pixels.about.encoding != "raw" and split.num_bytes < RESIDENT_SHARE * psutil.virtual_memory().available:
        whole = _whole(split, device)
        return lambda positions: whole[torch.from_numpy(positions)]
    return split.read


def _whole(split: Stored, device: torch.device) -> Tensor:
    """All pictures of a split on a device; the machine's memory holds only a few of them at a time."""
    spans = (np.arange(i, min(i + READ_BATCH, len(split.labels))) for i in range(0, len(split.labels), READ_BATCH))
    whole = torch.empty((len(split.labels), *split.pixels.shape[1:]), dtype=torch.uint8, device=device)
    for span in spans:
        whole[span[0] : span[-1] + 1] = split.read(span).to(device)
    return whole


class Pictures:
    """Pictures, augmented in training, for the whole network."""

    def __init__(
        self, split: Stored, classifier: Classifier, spec: TrainingSpec, device: torch.device, arithmetic: Arithmetic
    ) -> None:
        self.labels = split.labels
        self.load = reader(split, device)
        self._classifier = classifier
        self._spec = spec
        self._device = device
        self._layout = layout(arithmetic)
        self._shape = split.pixels.shape

    def begin(self, epoch: int) -> None:
        """See `Inputs.begin`: nothing."""

    def draw(self, num: int, random: torch.Generator) -> augment.Draws:
        """See `Inputs.draw`."""
        stored, channels = (self._shape.height, self._shape.width), self._shape.channels
        return augment.draw(
            self._spec, num, stored=stored, size=self._classifier.size, channels=channels, random=random
        )

    def inputs(self, batch: Tensor, labels: Tensor, draws: augment.Draws, num_classes: int) -> tuple[Tensor, Tensor]:
        """See `Inputs.inputs`: float (n, C, h, w)."""
        pictures = augment.pictures(batch.to(self._device), draws, self._spec, size=self._classifier.size)
        target = labels
        if self._spec.mixup or self._spec.cutmix:
            pictures, target = augment.mix(pictures, F.one_hot(labels, num_classes).float(), draws)
        return self._classifier.standardise(pictures).contiguous(memory_format=self._layout), target

    def plain(self, batch: Tensor) -> Tensor:
        """See `Inputs.plain`: float (n, C, h, w)."""
        pictures = as_float(self._classifier.centre(batch.to(self._device)))
        return self._classifier.standardise(pictures).contiguous(memory_format=self._layout)


class Views(NamedTuple):
    """Which view of each picture is taken, as a share of all views: 0 to 1."""

    chances: Tensor

    def rows(self, start: int, stop: int) -> Views:
        """See `Rows.rows`."""
        return Views(self.chances[start:stop])


class Features:
    """Features of every picture by the frozen body, for the head: computed once, when an epoch first needs them.

    With mirroring, half of the pictures are mirrored in the first epoch, the other half in the second, and each by
    chance from then on. So the first epoch waits for one pass over the pictures, not for two.
    """

    def __init__(
        self, labels: Tensor, device: torch.device, compute: Callable[[Tensor], Tensor], mirror_seed: int | None = None
    ) -> None:
        """Without `mirror_seed` no picture is mirrored.

        Args:
            compute: from which pictures are mirrored, bool (num_pictures,), to float32 (num_pictures, num_features).
        """
        self.labels = labels
        self._device = device
        self._compute = compute
        self._mirrored = [torch.zeros(len(labels), dtype=torch.bool)]
        if mirror_seed is not None:
            half = torch.rand(len(labels), generator=torch.Generator().manual_seed(mirror_seed)) < 0.5
            self._mirrored = [half, ~half]
        self._tables: list[Tensor] = []
        self._epoch = 0

    def begin(self, epoch: int) -> None:
        """See `Inputs.begin`: computes what features the epoch is the first to need."""
        self._epoch = epoch
        for mirrored in self._mirrored[len(self._tables) : epoch + 1]:
            self._tables.append(self._compute(mirrored))

    def load(self, positions: Positions) -> Tensor:
        """See `Inputs.load`: int64 (n,), the positions themselves. Features are at hand, and may not be there yet."""
        return torch.from_numpy(positions)

    def draw(self, num: int, random: torch.Generator) -> Views:
        """See `Inputs.draw`: which of its views a picture shows."""
        return Views(torch.rand(num, generator=random))

    def inputs(self, batch: Tensor, labels: Tensor, draws: Views, num_classes: int) -> tuple[Tensor, Tensor]:
        """See `Inputs.inputs`: float (n, num_features)."""
        if self._epoch < len(self._mirrored):
            return self._tables[self._epoch][batch].to(self._device, non_blocking=True), labels
        view = (draws.chances * len(self._tables)).long()
        seen = torch.stack([table[batch] for table in self._tables])
        return seen[view, torch.arange(len(batch))].to(self._device, non_blocking=True), labels

    def plain(self, batch: Tensor) -> Tensor:
        """See `Inputs.plain`: float (n, num_features)."""
        return self._tables[0][batch].to(self._device)


def compute_features(
    split: Stored,
    classifier: Classifier,
    *,
    mirrored: Tensor,
    device: torch.device,
    arithmetic: Arithmetic,
    group: Group,
    scratch: Path,
    progress: Callable[[int, int], None],
) -> Tensor:
    """The features of every picture of a split, by the classifier's frozen body.

    Args:
        mirrored: bool (num_pictures,), which pictures are mirrored left to right.
        group: the processes among which the pictures are shared out; all get the whole table.
        scratch: folder for a file that has no name, so that memory stays flat and nothing is left behind.
        progress: called with pictures done and pictures in all; it may raise to stop.

    Returns:
        float32 (num_pictures, num_features), backed by the file.
    """
    num, size = len(split.labels), FEATURE_BATCH[device.type]
    classifier.eval()
    table: np.ndarray | None = None
    first, last = share(num, group.rank, group.world)
    for start in range(first, last, size):
        positions = np.arange(start, min(last, start + size))
        pixels = classifier.centre(split.read(positions).to(device))
        flipped = mirrored[torch.from_numpy(positions)].to(device)
        pixels = torch.where(flipped[:, None, None, None], pixels.flip(2), pixels)
        with torch.inference_mode(), autocast(arithmetic, device):
            found = features(
                classifier.network,
                classifier.standardise(as_float(pixels)).contiguous(memory_format=layout(arithmetic)),
            )
        if table is None:
            table = _table(scratch, (num, found.shape[1]))
        table[positions] = found.float().cpu().numpy()
        progress(len(positions) + start - first, last - first)
    if table is None:  # more processes than pairs of pictures
        table = _table(scratch, (num, _num_features(classifier, split, device)))
    whole = torch.from_numpy(table)
    # The rows of the others are zero, so the sum puts all together.
    for start in range(0, num, SUMMED_ROWS):
        group.sum(whole[start : start + SUMMED_ROWS])
    return whole


def _num_features(classifier: Classifier, split: Stored, device: torch.device) -> int:
    pixels = classifier.centre(split.read(np.arange(1)).to(device))
    with torch.inference_mode():
        return features(classifier.network, classifier.standardise(as_float(pixels))).shape[1]


def _table(folder: Path, shape: tuple[int, int]) -> np.ndarray:
    num_bytes = 4 * int(np.prod(shape))
    require_space(folder, num_bytes)
    with tempfile.TemporaryFile(dir=folder) as file, disk_errors(folder):
        # Without its blocks at hand, a disk that fills up later would end this process by a signal.
        os.posix_fallocate(file.fileno(), 0, num_bytes)
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
