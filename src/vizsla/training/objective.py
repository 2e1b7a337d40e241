"""What is minimised: cross-entropy or focal loss, weighed by class, on plain, smoothed or mixed labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vizsla.networks.classic import AUXILIARY_WEIGHT, WithAuxiliary
from vizsla.training.spec import TrainingSpec

# Lin et al. 2017, "Focal Loss", found 2 best.
FOCUS = 2.0


class Objective(nn.Module):
    """The loss of each picture. Its mean over a step does not depend on how the step is shared out."""

    weights: Tensor | None

    def __init__(self, spec: TrainingSpec, labels: Tensor, num_classes: int) -> None:
        """`labels` are those of the training split: class weights come from their counts."""
        super().__init__()
        self._smoothing = spec.label_smoothing
        self._focal = spec.imbalance == "focal"
        self.num_classes = num_classes
        self.register_buffer("weights", class_weights(labels, num_classes) if spec.imbalance == "weights" else None)

    def forward(self, output: Tensor | WithAuxiliary, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each picture (n,) in float32, and the main logits.

        Args:
            output: logits (n, classes), or GoogLeNet's with those of its auxiliary heads, which count as in its paper.
            target: labels (n,), or shares of the classes (n, classes) where pictures are mixed.
        """
        logits = (output.logits if isinstance(output, WithAuxiliary) else output).float()
        loss = self._loss(logits, target)
        if isinstance(output, WithAuxiliary):
            for extra in output.auxiliary:
                loss = loss + AUXILIARY_WEIGHT * self._loss(extra.float(), target)
        return loss, logits

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        if self._focal:
            loss = F.cross_entropy(logits, target, reduction="none")
            return (1 - torch.exp(-loss)) ** FOCUS * loss
        return F.cross_entropy(logits, target, self.weights, reduction="none", label_smoothing=self._smoothing)


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Weights (classes,) in inverse proportion to the counts, whose mean over the pictures is one.

    A class without pictures weighs nothing.
    """
    counts = torch.bincount(labels, minlength=num_classes).float()
    present = counts > 0
    return torch.where(present, len(labels) / (present.sum() * counts.clamp(min=1)), 0.0)
