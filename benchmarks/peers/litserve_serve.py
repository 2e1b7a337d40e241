"""The same model behind LitServe, as its documentation writes such a server, with batches.

LitServe looks at the annotations themselves, so they are no texts here.
"""

import json
import sys
from pathlib import Path
from typing import Any

import litserve as ls
import numpy as np
from fastapi import UploadFile

from vizsla.models.predictor import Predictor


class Classifier(ls.LitAPI):
    """A model folder as a LitServe API."""

    def __init__(self, folder: str, **limits: Any) -> None:
        super().__init__(**limits)
        self.folder = folder

    def setup(self, device: str) -> None:
        """Load the model."""
        self.model = Predictor(Path(self.folder))

    def decode_request(self, request: UploadFile) -> np.ndarray:
        """A file to pixels."""
        return self.model.card.preprocess.to_array(request.file.read())

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Pixels to a batch."""
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """A batch to probabilities."""
        return self.model.probabilities(x)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """Rows."""
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        """The best five classes."""
        return {"scores": [one._asdict() for one in self.model.best(output, 5)]}


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    limits = {"max_batch_size": settings["max_batch"], "batch_timeout": settings["max_wait_s"]}
    api = Classifier(settings["folder"], **limits)
    ls.LitServer(api, accelerator="cpu", workers_per_device=1).run(
        port=settings["port"], host="127.0.0.1", generate_client_file=False, log_level="warning"
    )
