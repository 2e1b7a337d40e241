"""The curves of a run in MLflow, sent by a thread: a server that is slow or gone costs the training nothing."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

from vizsla import files
from vizsla.training.run import Run

ID_FILE = "mlflow.json"
EXPERIMENT = "vizsla"
QUEUE_SIZE = 10_000
BATCH_SIZE = 500  # of the 1,000 metrics that MLflow takes in one request
CLOSE_S = 10.0
STATUS = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class Metric(NamedTuple):
    """One figure, as MLflow's entity of that name has it."""

    key: str
    value: float
    timestamp: int
    """ms since 1970"""
    step: int


class MlflowLog:
    """Sends metrics to a tracking server, or counts those that it could not send."""

    def __init__(self, uri: str, folder: Path, run: Run) -> None:
        self.notices: deque[str] = deque()
        """sentences to be shown; to be taken away by the reader"""
        self._uri, self._folder, self._run = uri, folder, run
        self._queue: queue.Queue[Metric] = queue.Queue(QUEUE_SIZE)
        self._off = False
        self._refused = self._unsent = 0  # by a full queue, by the server: each is counted by one thread
        self._outcome: str | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def metrics(self, step: int, values: dict[str, float], at: float) -> None:
        """Queue metrics to be sent; never waits."""
        for key, value in values.items():
            try:
                self._queue.put_nowait(Metric(key, value, round(1000 * at), step))
            except queue.Full:
                self._refused += 1

    def close(self, outcome: str) -> None:
        """Wait some seconds for what is queued, and say how much was not sent."""
        self._outcome = outcome
        self._thread.join(CLOSE_S)
        lost = self._refused + self._unsent + self._queue.qsize()
        if lost and not self._off:
            self.notices.append(f"{lost:,} figures were not sent to MLflow; events.jsonl has them all.")

    def _work(self) -> None:
        try:
            client, id = self._begin()
        except ImportError:
            self._off = True
            self.notices.append("MLFLOW_TRACKING_URI is set, but MLflow is not there: pip install 'vizsla[mlflow]'.")
            return
        except Exception as error:  # of many kinds: sockets, databases, the server's answers
            self._off = True
            self.notices.append(f"MLflow cannot be reached, so it gets no figures of this run: {_brief(error)}")
            return
        failing = False
        while True:
            ending = self._outcome is not None  # looked at before the queue, so that nothing is left in it
            batch = self._take()
            try:
                if batch:
                    _send(client, id, batch)
                if ending and not batch:
                    client.set_terminated(id, STATUS.get(self._outcome or "", "FAILED"))
                    return
            except Exception as error:
                self._unsent += len(batch)
                if not failing:
                    self.notices.append(f"MLflow does not take figures; the training goes on: {_brief(error)}")
                failing = True
                if ending:
                    return

    def _take(self) -> list[Metric]:
        """What is queued now; waits a second for it to come together unless the run is ending."""
        deadline = time.monotonic() + 1
        while self._outcome is None and time.monotonic() < deadline:
            time.sleep(0.05)
        batch: list[Metric] = []
        while len(batch) < BATCH_SIZE:
            try:
                batch.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return batch

    def _begin(self) -> tuple[Any, str]:
        """Connect, and find the MLflow run of this run or make it."""
        # Vizsla sends nothing anywhere that its user did not ask for; and a server that is gone is to be seen as such
        # within seconds, not after MLflow's seven tries of two minutes.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        client = MlflowClient(tracking_uri=self._uri)
        path = self._folder / ID_FILE
        if path.exists():
            id = str(files.read_json(path)["run_id"])
            client.update_run(id, status="RUNNING")
            return client, id
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else client.create_experiment(name)
        run = self._run
        tags = {
            "vizsla.run_id": run.id,
            "vizsla.version": run.vizsla_version,
            "vizsla.dataset": run.dataset.name,
            "vizsla.dataset_id": run.dataset.id,
            "vizsla.dataset_fingerprint": run.dataset.fingerprint,
        }
        id = str(client.create_run(experiment, run_name=run.name, tags=tags).info.run_id)
        files.write_json(path, {"format": "vizsla.mlflow/1", "run_id": id, "experiment": name})
        settings = run.spec.model_dump(mode="json")
        client.log_batch(id, params=[Param(key, str(value)) for key, value in settings.items()])
        return client, id


def _send(client: Any, id: str, batch: list[Metric]) -> None:
    from mlflow.entities import Metric as Entity

    client.log_batch(id, metrics=[Entity(*metric) for metric in batch])


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
