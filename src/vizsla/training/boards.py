"""The curves of a run for other programs: TensorBoard's files, and MLflow where the user has one.

Neither may slow or end a training: what fails is said once in a notice, and the training goes on without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from vizsla import events
from vizsla.training.mlflow_log import MlflowLog
from vizsla.training.run import Run
from vizsla.training.tfevents import Writer

FOLDER = "tensorboard"

# The field of an event, and the tag of its curve.
TAGS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "train_accuracy": "train/accuracy",
    "val_loss": "val/loss",
    "val_accuracy": "val/accuracy",
    "val_balanced_accuracy": "val/balanced_accuracy",
    "pictures_per_s": "speed/pictures_per_s",
    "data_wait": "speed/data_wait",
    "device_use": "speed/device_use",
    "memory_mb": "speed/memory_mb",
    "device_memory_mb": "speed/device_memory_mb",
    "device_temperature_c": "speed/device_temperature_c",
    "device_power_w": "speed/device_power_w",
}


class Boards:
    """Takes the events of a run and passes their figures on."""

    def __init__(
        self,
        folder: Path,
        run: Run,
        *,
        notice: Callable[[str], None],
        resumed_at: int | None = None,
        mlflow_uri: str | None = None,
    ) -> None:
        """
        Args:
            folder: of the run.
            notice: told in one sentence what fails.
            resumed_at: the step of the checkpoint from which the run goes on, None for its beginning; the curves after
                it are undone.
            mlflow_uri: of the tracking server, or None for none.
        """
        self._notice = notice
        self._writer: Writer | None = None
        self._mlflow = MlflowLog(mlflow_uri, folder, run) if mlflow_uri else None
        try:
            self._writer = Writer(folder / FOLDER, undone_from=(resumed_at or 0) + 1)
        except OSError as error:
            self._lost_tensorboard(error)

    def event(self, event: events.Event) -> None:
        """Pass on the figures of a `step`, `validation` or `epoch` event; others have none."""
        if event["event"] not in events.CURVE:
            return
        values = figures(event)
        at = datetime.fromisoformat(event["at"]).timestamp()
        try:
            if self._writer and values:
                self._writer.scalars(event["step"], values, at)
        except OSError as error:
            self._lost_tensorboard(error)
        if self._mlflow and values:
            self._mlflow.metrics(event["step"], values, at)
            self._say()

    def close(self, outcome: str = "failed") -> None:
        """Write out what is left; MLflow gets some seconds for it. `outcome` is "done", "stopped" or "failed"."""
        if self._writer:
            self._writer.close()
            self._writer = None
        if self._mlflow:
            self._mlflow.close(outcome)
            self._say()
            self._mlflow = None

    def _lost_tensorboard(self, error: OSError) -> None:
        self._notice(f"TensorBoard's file cannot be written, so its curves end here: {error.strerror or error}.")
        if self._writer:
            self._writer.close()
            self._writer = None

    def _say(self) -> None:
        # From here, and not from MLflow's thread: only one thread writes the events.
        while self._mlflow and self._mlflow.notices:
            self._notice(self._mlflow.notices.popleft())


def figures(event: events.Event) -> dict[str, float]:
    """The figures of an event by their tags."""
    found = {}
    for field, tag in TAGS.items():
        value = event.get(field)
        if isinstance(value, dict):
            value = value["value"]
        if value is not None and math.isfinite(value):
            found[tag] = float(value)
    return found
