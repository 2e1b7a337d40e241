"""Verbs on trainings before they begin: what one would be, and with which learning rate."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vizsla import files, records, work
from vizsla.api import parents
from vizsla.errors import VizslaError
from vizsla.events import Event, ignore_event, now
from vizsla.jobs import launch, queue
from vizsla.networks import own
from vizsla.store.workspace import Workspace
from vizsla.training import rates, run
from vizsla.training.rates import Rates
from vizsla.training.spec import TrainingSpec

FINDER = "vizsla.training.finder"
PREVIEW_WORKER = "vizsla.training.preview"


def find_rate(
    ws: Workspace,
    dataset: str,
    spec: TrainingSpec | None = None,
    *,
    out: Path | None = None,
    on_event: Callable[[Event], None] = ignore_event,
    timeout_s: float | None = None,
) -> Rates:
    """The learning rate that a network learns fastest with on a dataset: by a short training with a rising rate.

    Args:
        out: folder for `rates.json` and the chart `rates.png`; it is made if need be.
        on_event: told everything that happens, as it happens.

    Raises:
        VizslaError: what would also refuse the training, a loss that was never finite, or more than `timeout_s`.
    """
    spec = parents.with_found_weights(ws, spec or TrainingSpec())
    dataset_folder = parents.finished_dataset(ws, dataset)
    own_network = own.locate(spec.net, ws.network_folders) if own.is_own(spec.net) else None
    (ws.root / "cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ws.root / "cache", prefix="rates-") as name:
        folder = Path(name)
        request = run.Request(
            id="rates",
            name="rates",
            created_at=now(),
            dataset_folder=dataset_folder,
            spec=spec,
            network_file=own.keep(own_network, folder) if own_network else None,
        )
        files.write_json(folder / work.REQUEST, request.model_dump(mode="json"))
        with files.Lock(folder) as lock:
            try:
                launch.run_whole(FINDER, folder, lock, on_event, timeout_s=timeout_s)
            except VizslaError as error:
                queue.keep_log(ws, folder, error)
                raise
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            for result in (rates.FOUND, rates.CHART):
                shutil.copyfile(folder / result, out / result)
        return records.read(folder / rates.FOUND, Rates, remedy="Ask for it again.")


def preview(
    ws: Workspace, dataset: str, spec: TrainingSpec | None = None, *, out: Path, timeout_s: float | None = None
) -> dict[str, Any]:
    """What a training would be: steps, memory, settings, and charts of rate and pictures in the folder `out`.

    Nothing is trained, and pretrained weights are not looked for.

    Raises:
        Busy: it takes longer than `timeout_s`.
        NotFound: there is no such dataset or network.
        InvalidInput: the settings, the dataset and the network do not go together.
    """
    spec = spec or TrainingSpec()
    folder = ws.folder("dataset", ws.store.find(dataset, "dataset").id)
    net = str(own.locate(spec.net, ws.network_folders)) if own.is_own(spec.net) else spec.net
    question = {
        "dataset_folder": str(folder),
        "spec": spec.model_dump(mode="json"),
        "net": net,
        "out": str(out.absolute()),
        "cache": str(ws.root / run.ARITHMETIC),
    }
    found: dict[str, Any] = launch.ask(PREVIEW_WORKER, question, timeout_s=timeout_s)
    return found
