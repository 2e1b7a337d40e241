"""`/metrics`: how the server and its queue are doing, as Prometheus reads it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from vizsla import files
from vizsla.jobs.devices import capacity
from vizsla.store.rows import LIVE, State

MEDIA_TYPE = CONTENT_TYPE_LATEST
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Requests:
    """How many requests there were, and how long they took."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "vizsla_request_seconds",
            "Time that a request took",
            ["method", "route", "status"],
            registry=self.registry,
            buckets=(0.005, 0.02, 0.1, 0.5, 2, 10),
        )

    def observe(self, method: str, route: str, status: int, elapsed_s: float) -> None:
        """Count a request.

        Args:
            route: its pattern, not its path: one series for all runs.
        """
        self._seconds.labels(method if method in METHODS else "other", route, status).observe(elapsed_s)


class Predictions:
    """How many pictures were classified on request, and how long that took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._pictures = Counter(
            "vizsla_predicted_pictures", "Pictures that were sent to be classified", ["outcome"], registry=registry
        )
        self._seconds = Histogram(
            "vizsla_prediction_seconds",
            "Time from when the pictures of a request were here to its answer",
            registry=registry,
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 2, 10, 60),
        )

    def add(self, seconds: float, *, pictures: int, rejected: int) -> None:
        """Count a request that was answered."""
        self._seconds.observe(seconds)
        self._pictures.labels("classified").inc(pictures - rejected)
        self._pictures.labels("rejected").inc(rejected)


def text(app: FastAPI) -> bytes:
    """All figures, as they are now."""
    registry = CollectorRegistry()
    jobs = app.state.workspace.store.jobs
    counts = jobs.counts()
    live = jobs.live()
    by_state = Gauge("vizsla_jobs", "Jobs by state", ["state"], registry=registry)
    for state in get_args(State):
        by_state.labels(state).set(counts.get(state, 0))
    waits = [_age_s(job.created_at) for job in live if job.state == "queued"]
    longest = Gauge("vizsla_queue_wait_seconds", "Age of the job that waits longest", registry=registry)
    longest.set(max(waits, default=0))
    held = Gauge("vizsla_device_held", "Jobs that hold a device", ["device"], registry=registry)
    for device in capacity():
        held.labels(device).set(sum(device in job.held for job in live if job.state in LIVE))
    pool = app.state.pool
    line = Gauge("vizsla_prediction_requests", "Requests for predictions by state", ["state"], registry=registry)
    line.labels("waiting").set(pool.places_taken - pool.at_work)
    line.labels("at_work").set(pool.at_work)
    Gauge("vizsla_prediction_workers", "Processes that keep models loaded", registry=registry).set(len(pool.pids))
    ws = app.state.workspace
    disk = files.room(ws.root, ws.keep_free_bytes)
    Gauge("vizsla_disk_free_bytes", "Free on the disk of the workspace", registry=registry).set(disk.free_bytes)
    kept = Gauge("vizsla_disk_keep_free_bytes", "With less free than this, nothing new begins", registry=registry)
    kept.set(disk.keep_free_bytes)
    return bytes(generate_latest(registry) + generate_latest(app.state.requests.registry))


def _age_s(at: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()
