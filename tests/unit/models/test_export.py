from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vizsla.errors import ExportFailed
from vizsla.models import export
from vizsla.networks.classifier import Classifier

PIXELS = np.random.default_rng(0).integers(0, 256, (14, 10, 12, 3), dtype=np.uint8)


def _classifier(network: nn.Module) -> Classifier:
    return Classifier(network, size=(8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)).eval()


def _small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))


def test_the_graph_agrees_with_the_network(tmp_path: Path) -> None:
    agreement = export.write(_classifier(_small()), ("a", "b", "c", "d", "e"), PIXELS, tmp_path)
    assert agreement.num_pictures == 14
    assert agreement.largest_difference < 1e-6
    assert (tmp_path / "labels.txt").read_text() == "a\nb\nc\nd\ne\n"


def test_a_graph_that_differs_is_refused(tmp_path: Path) -> None:
    export.write(_classifier(_small()), ("a", "b", "c", "d", "e"), PIXELS, tmp_path)
    other = _small()
    with torch.no_grad():
        other[4].bias[2] += 0.01  # type: ignore[index, operator]
    with pytest.raises(ExportFailed, match="differ by up to"):
        export.compare(export.Probabilities(_classifier(other)), PIXELS, tmp_path / "model.onnx")


class _Unexpressible(nn.Module):
    """Takes a different way for some pictures, which a graph cannot."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))[:, :2] if float(x.sum()) > 0 else x.amax((2, 3))[:, :2]


def test_a_network_that_has_no_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="cannot express"):
        export.write(_classifier(_Unexpressible()), ("a", "b"), PIXELS, tmp_path)


def test_the_centre_is_cut_and_standardised() -> None:
    classifier = _classifier(nn.Identity())
    seen = classifier(torch.from_numpy(PIXELS)).numpy()
    expected = (PIXELS[:, 1:9, 2:10].transpose(0, 3, 1, 2) / 255 - np.array([0.5, 0.4, 0.3])[:, None, None]) / np.array(
        [0.2, 0.3, 0.4]
    )[:, None, None]
    assert seen == pytest.approx(expected, abs=1e-5)
