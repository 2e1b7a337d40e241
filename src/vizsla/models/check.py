"""Whether the files of a model that comes from elsewhere are what they say, asked of a process of its own.

Started as `python -m vizsla.models.check`; see `vizsla.jobs.launch.ask`. Nothing in the files is run but the products
and sums of the graph, which ONNX Runtime knows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from safetensors import SafetensorError, safe_open

from vizsla.errors import InvalidInput, VizslaError
from vizsla.models.card import GRAPH, WEIGHTS
from vizsla.models.predictor import Predictor

REMEDY = "Pack the model again where it was made."


def check(folder: Path) -> None:
    """Open the weights, and compute with the graph.

    Raises:
        InvalidInput: the weights are no safetensors; the graph reads other files, or is not one of the card's pictures
            and classes.
    """
    try:
        with safe_open(folder / WEIGHTS, framework="np") as weights:
            list(weights.keys())
    except SafetensorError as error:
        raise InvalidInput(
            f"The weights are not in the safetensors format: {error}.", where=WEIGHTS, remedy=REMEDY
        ) from error
    try:
        _check_graph(folder)
    except VizslaError:
        raise
    # A damaged or hostile graph fails in whatever way its bytes lead to.
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise InvalidInput(f"The graph cannot be computed: {first}", where=GRAPH, remedy=REMEDY) from error


def _check_graph(folder: Path) -> None:
    model = onnx.load(folder / GRAPH, load_external_data=False)
    if any(tensor.external_data or tensor.data_location for tensor in _tensors(model)):
        raise InvalidInput("The graph reads other files.", where=GRAPH, remedy=REMEDY)
    if unknown := {node.domain for node in _messages(model, onnx.NodeProto)} - {"", "ai.onnx"} - _functions(model):
        raise InvalidInput(f"The graph needs operations of {sorted(unknown)[0]!a}.", where=GRAPH, remedy=REMEDY)
    predictor = Predictor(folder)
    card = predictor.card
    shape = (2, card.preprocess.height, card.preprocess.width, card.preprocess.channels)
    found = predictor.probabilities(np.zeros(shape, np.uint8))
    if found.shape != (2, len(card.labels)) or not np.allclose(found.sum(axis=1), 1, atol=1e-3):
        raise InvalidInput("The graph does not answer with a probability for each class.", where=GRAPH, remedy=REMEDY)


def _functions(model: Any) -> set[str]:
    return {function.domain for function in model.functions}


def _tensors(model: Any) -> Iterator[Any]:
    return _messages(model, onnx.TensorProto)


def _messages(message: Any, kind: type) -> Iterator[Any]:
    """Every message of a kind, however deep it lies."""
    pending = [message]
    while pending:
        message = pending.pop()
        if isinstance(message, kind):
            yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                pending += value if isinstance(value, list) or hasattr(value, "extend") else [value]


def main() -> None:
    """Answer the one question on standard input: {"folder": PATH}."""
    try:
        check(Path(json.load(sys.stdin)["folder"]))
        reply: dict[str, Any] = {"answer": None}
    except VizslaError as error:
        reply = {"error": error.as_dict()}
    print(json.dumps(reply))


if __name__ == "__main__":
    main()
