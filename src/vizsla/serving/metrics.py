"""Figures of a service for Prometheus, by model and version."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
BY = ("model", "version")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
PICTURES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
# Of a model with very many classes, the rare ones would be a series each.
MAX_CLASSES = 1000


class Metrics:
    """The figures of a service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kept: dict[str, Any] = {"registry": self.registry, "namespace": "vizsla_service"}

        def counter(name: str, title: str, *by: str) -> Counter:
            return Counter(name, title, (*BY, *by), **kept)

        def histogram(name: str, title: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(name, title, BY, buckets=buckets, **kept)

        self.requests = counter("requests", "Requests to a model that were answered", "status")
        self.answers = Counter("answers", "All requests that were answered, also without a model", ("status",), **kept)
        self.classes = counter("predictions", "Pictures by the class that they were taken for", "class")
        self.refused = counter("pictures_refused", "Pictures that could not be looked at")
        self.captures = counter("captures", "Pictures that were to be kept, and what became of it", "became")
        self.in_flight = Gauge("requests_in_flight", "Requests being answered", BY, multiprocess_mode="livesum", **kept)
        self.seconds = histogram("request_seconds", "From when a request was here to its answer", SECONDS)
        self.waited = histogram("queue_seconds", "How long pictures waited for a pass", SECONDS)
        self.computed = histogram("pass_seconds", "How long passes took", SECONDS)
        self.batches = histogram("batch_pictures", "Pictures in a pass", PICTURES)
        self.surety = histogram("best_probability", "Probability of the class that was named first", SHARES)

    def watch(self, model: str, version: str) -> Watched:
        """Who watches the passes of a model's version."""
        return Watched(self, model, version)

    def text(self) -> bytes:
        """What Prometheus reads: of all workers, where there are several."""
        if FOLDER not in os.environ:
            return generate_latest(self.registry)
        merged = CollectorRegistry()
        multiprocess.MultiProcessCollector(merged)  # type: ignore[no-untyped-call]
        return generate_latest(merged)


def forget(pid: int) -> None:
    """What a worker that is gone had at the moment; what it had counted stays."""
    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


class Watched:
    """The figures of one version of a model."""

    def __init__(self, metrics: Metrics, model: str, version: str) -> None:
        by = (model, version)
        self._metrics, self._by = metrics, by
        self.in_flight = metrics.in_flight.labels(*by)
        self.seconds = metrics.seconds.labels(*by)
        self.refused = metrics.refused.labels(*by)
        self._waited, self._computed = metrics.waited.labels(*by), metrics.computed.labels(*by)
        self._batches, self._surety = metrics.batches.labels(*by), metrics.surety.labels(*by)

    def batch(self, num_pictures: int, waited_s: Sequence[float], seconds: float) -> None:
        """A pass was computed."""
        self._batches.observe(num_pictures)
        self._computed.observe(seconds)
        for one in waited_s:
            self._waited.observe(one)

    def predicted(self, label: str, place: int, probability: float) -> None:
        """A picture was taken for a class, the `place`-th of the model."""
        self._surety.observe(probability)
        self._metrics.classes.labels(*self._by, label if place < MAX_CLASSES else "(others)").inc()

    def answered(self, status: int) -> None:
        """A request was answered."""
        self._metrics.requests.labels(*self._by, str(status)).inc()
