"""From a checkpoint to a model folder, with proof that torch and ONNX Runtime see the same in real pictures."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vizsla import files
from vizsla.errors import ExportFailed
from vizsla.models.card import GRAPH, LABELS, WEIGHTS
from vizsla.networks.classifier import Classifier

# Batches of these sizes are compared: a graph that froze its batch at the size of the sample fails here.
PARITY_BATCHES = (1, 2, 7)
PARITY_TOLERANCE = 1e-4


class Probabilities(nn.Module):
    """uint8 pixels (n, H, W, C) -> probabilities (n, classes): what the graph of a model computes."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: Tensor) -> Tensor:
        """Softmax of the classifier's logits."""
        return self.classifier(pixels).softmax(dim=1)


class Agreement(NamedTuple):
    """The largest difference of a probability between torch and the graph, over so many pictures."""

    largest_difference: float
    num_pictures: int


def write(classifier: Classifier, labels: tuple[str, ...], pixels: np.ndarray, folder: Path) -> Agreement:
    """Write weights, graph and labels into `folder`, and compare the graph with the classifier.

    Args:
        classifier: in evaluation mode, on the CPU.
        pixels: uint8 (n, H, W, C) of real pictures, n >= 2.

    Raises:
        ExportFailed: torch cannot express the network as a graph, or the two disagree.
    """
    module = Probabilities(classifier).eval()
    with files.disk_errors(folder / GRAPH):
        _write_graph(module, pixels, folder / GRAPH)
        tensors = {name: t.detach().contiguous().clone() for name, t in classifier.network.state_dict().items()}
        save_file(tensors, folder / WEIGHTS)
    files.write_text(folder / LABELS, "".join(f"{_on_one_line(label)}\n" for label in labels))
    return compare(module, pixels, folder / GRAPH)


def _on_one_line(label: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in label)


def _write_graph(module: nn.Module, pixels: np.ndarray, path: Path) -> None:
    # Two sample pictures: with one, torch has been seen to freeze the batch of some networks at 1.
    sample = torch.from_numpy(pixels[:2])
    try:
        torch.onnx.export(
            module,
            (sample,),
            str(path),
            input_names=["pixels"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except Exception as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportFailed(
            f"torch cannot express this network as an ONNX graph: {first_line}", remedy="Train another network."
        ) from error
    batch = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape.dim[0]
    if not batch.dim_param:
        raise ExportFailed(f"The graph takes only batches of {batch.dim_value}.", remedy="Train another network.")


def compare(module: nn.Module, pixels: np.ndarray, graph: Path) -> Agreement:
    """Run both on the same pictures, in batches of several sizes.

    Raises:
        ExportFailed: a probability differs by more than `PARITY_TOLERANCE`.
    """
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    largest = 0.0
    for size in PARITY_BATCHES:
        for start in range(0, len(pixels) - len(pixels) % size, size):
            batch = pixels[start : start + size]
            with torch.inference_mode():
                ours = module(torch.from_numpy(batch)).numpy()
            theirs = session.run(None, {"pixels": batch})[0]
            largest = max(largest, float(np.abs(ours - theirs).max()))
    if not largest <= PARITY_TOLERANCE:  # also catches NaN
        raise ExportFailed(
            f"Torch and ONNX differ by up to {largest:.2g} in a probability; {PARITY_TOLERANCE:.0e} is allowed.",
            remedy="Train another network, or report this with the network's name.",
        )
    return Agreement(largest, len(pixels))
