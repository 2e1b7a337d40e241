"""The process that looks into networks for a server: `python -m vizsla.models.insight_worker`; see `models.warm`.

A request has `folder` (of a run), `step` (of a checkpoint), `do` ("heat", "layers" or "layer") and brings one picture.
It computes on the processor, so that it works while every card trains. It keeps the network that was asked for last.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any

from vizsla import work
from vizsla.errors import InvalidInput, did_you_mean
from vizsla.models.warm import exactly, failed, serve
from vizsla.training.run import Run, find_checkpoint, open_run

with work.loading():
    import torch

    from vizsla.models import insight
    from vizsla.networks.classifier import Classifier
    from vizsla.training import checkpoint


class Networks:
    """The network that was asked for last, loaded."""

    def __init__(self) -> None:
        self._known: tuple[Path, Run, Classifier] | None = None

    def get(self, folder: Path, step: int) -> tuple[Run, Classifier]:
        """A run and its classifier with the weights of a checkpoint."""
        place = find_checkpoint(folder, str(step)).folder
        if self._known is None or self._known[0] != place:
            self._known = None  # never two in memory
            run = open_run(folder)
            self._known = (place, run, checkpoint.restore(run, place).requires_grad_(False))
        return self._known[1:]


def main() -> int:
    """Answer requests until the socket is closed."""
    torch.set_num_threads(1)
    networks = Networks()
    return serve(lambda request, source: _answer(networks, request, source))


def _answer(networks: Networks, request: dict[str, Any], source: IO[bytes]) -> dict[str, Any]:
    (picture,) = [exactly(source, size) for size in request["sizes"]]
    try:
        return _look(networks, request, picture)
    except Exception as error:
        return failed(error, Path(request["folder"]))


def _look(networks: Networks, request: dict[str, Any], picture: bytes) -> dict[str, Any]:
    run, classifier = networks.get(Path(request["folder"]), request["step"])
    pixels = run.preprocess.to_array(picture)
    if request["do"] == "layers":
        return {"layers": insight.layers(classifier, pixels)}
    if request["do"] == "layer":
        return {"layer": insight.layer(classifier, pixels, request["layer"])}
    label = request["label"]
    if label is not None and label not in run.labels:
        remedy = did_you_mean(label, run.labels)
        raise InvalidInput(f"The run has no class {label[:100]!r}.", where="class", remedy=remedy)
    found = insight.heat(classifier, pixels, None if label is None else run.labels.index(label))
    best = (-found.probabilities).argsort(kind="stable")[: insight.TOP]
    return {
        "layer": found.layer,
        "shape": found.shape,
        "label": run.labels[found.position],
        "probability": float(found.probabilities[found.position]),
        "scores": [(run.labels[i], float(found.probabilities[i])) for i in best],
        "is_flat": found.is_flat,
        "picture": found.picture,
    }


if __name__ == "__main__":
    sys.exit(main())
