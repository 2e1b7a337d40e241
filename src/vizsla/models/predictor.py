"""The predictor: a model folder, ONNX Runtime and the one Preprocess; no torch, no database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vizsla.errors import InvalidInput, Unavailable, VizslaError
from vizsla.models.card import GRAPH, check_file, open_model

BATCH = 32


class Score(NamedTuple):
    """A class and the probability that the model gives it."""

    label: str
    probability: float


class Prediction(NamedTuple):
    """What a model sees in one picture: the best classes first, or the reason why it could not look."""

    picture: str
    scores: tuple[Score, ...]
    error: VizslaError | None = None


class Predictor:
    """Predicts with the model in a folder. Thread-safe."""

    def __init__(self, folder: Path, *, threads: int = 0, device: str = "cpu", spin: bool = True) -> None:
        """Open a model folder.

        Args:
            threads: that compute; 0 for one a core.
            device: "cpu", "cuda" or "cuda:N".
            spin: let threads turn in circles while they wait for each other, which keeps others from the cores.

        Raises:
            InvalidInput: it is not a whole, unchanged model.
            Unavailable: ONNX Runtime cannot compute on this device here.
        """
        import onnxruntime

        self.card, self.spin = open_model(folder), spin
        graph = check_file(folder, self.card, GRAPH)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
        self._session = onnxruntime.InferenceSession(graph, options, providers=_providers(device))
        if device != "cpu" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise _no_cuda(device)  # it is there, and cannot begin: a driver is missing, or there is no such card

    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, H, W, C), preprocessed, -> float32 (n, classes); each row sums to 1.

        Raises:
            InvalidInput: the model gives something that is no number.
        """
        result: npt.NDArray[np.float32] = self._session.run(None, {"pixels": pixels})[0]
        if not np.isfinite(result).all():
            raise InvalidInput(
                "The model gives probabilities that are not finite numbers.",
                where=self.card.name,
                remedy="Export another checkpoint.",
            )
        return result

    def predict(self, pictures: Sequence[Path | bytes], *, top: int = 5) -> Iterator[Prediction]:
        """Predict picture files or their bytes, one at a time or many; a bad one fails alone.

        Args:
            top: how many classes each prediction names.

        Yields:
            one prediction a picture, in order.
        """
        for start in range(0, len(pictures), BATCH):
            yield from self._batch(pictures[start : start + BATCH], top)

    def _batch(self, pictures: Sequence[Path | bytes], top: int) -> list[Prediction]:
        arrays, errors = [], {}
        for position, picture in enumerate(pictures):
            try:
                arrays.append(self.card.preprocess.to_array(picture))
            except InvalidInput as error:
                errors[position] = error
        rows = iter(self.probabilities(np.stack(arrays)) if arrays else ())
        return [
            Prediction(_name(picture), (), errors[position])
            if position in errors
            else Prediction(_name(picture), self.best(next(rows), top))
            for position, picture in enumerate(pictures)
        ]

    def best(self, row: npt.NDArray[np.float32], top: int) -> tuple[Score, ...]:
        """The `top` classes of one row of probabilities, the most probable first."""
        # A stable sort of the negated row: equal probabilities stay in the order of the labels.
        order = np.argsort(-row, kind="stable")[:top]
        return tuple(Score(self.card.labels[i], float(row[i])) for i in order)


def _providers(device: str) -> list[str | tuple[str, dict[str, str]]]:
    import onnxruntime

    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise _no_cuda(device)
    return [("CUDAExecutionProvider", {"device_id": device.partition(":")[2] or "0"}), "CPUExecutionProvider"]


def _no_cuda(device: str) -> Unavailable:
    return Unavailable(
        f"ONNX Runtime cannot compute on {device} here.",
        remedy="Install onnxruntime-gpu in the place of onnxruntime, with the driver of the card; or compute on cpu.",
    )


def _name(picture: Path | bytes) -> str:
    return str(picture) if isinstance(picture, Path) else f"{len(picture)} bytes"
