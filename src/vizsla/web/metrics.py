"""`/metrics`: how the server and its queue are doing, as Prometheus reads it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, Histogram, generate_latest

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
    return bytes(generate_latest(registry) + generate_latest(app.state.requests.registry))


def _age_s(at: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()
