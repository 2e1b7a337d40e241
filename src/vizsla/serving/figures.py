"""What a service has answered lately, and how fast: from the figures of all its workers, kept beside it as a file."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import BaseModel, Field

FIGURES = "figures.json"
EVERY_S = 5.0
# What is called lately, and how much of it is kept for a curve.
LATELY, KEPT = 12, 60
SERVER_ERROR = 500


class VersionFigures(BaseModel):
    """What one version of a model has answered since its service began."""

    model: str
    version: str
    requests: int


class Figures(BaseModel):
    """What a service has answered since it began, and in the last minute."""

    at: str = Field(description="when this was so")
    requests: int = Field(description="to a model that were answered since it began, whatever the answer")
    failed: int = Field(description="of those, with a status of 500 or more")
    in_flight: int = Field(description="being answered at this moment")
    seconds: float = Field(description="to which the next three belong: those before `at`, a minute at most")
    per_s: float = Field(description="requests a second")
    p50_ms: float | None = Field(description="half of the requests took no longer; between the bounds of /metrics")
    p95_ms: float | None = Field(description="19 of 20 took no longer")
    recent_per_s: list[float] = Field(description=f"requests a second, in steps of {EVERY_S:g} s, the newest last")
    versions: list[VersionFigures]


class _Counted(NamedTuple):
    """What the workers have counted until a moment."""

    at: float
    requests: int
    failed: int
    in_flight: int
    took: dict[float, float]
    """requests that took no longer than so many seconds"""
    versions: dict[tuple[str, str], int]


class Watcher:
    """Looks at the figures of the workers from time to time."""

    def __init__(self, folder: str) -> None:
        """`folder` is where the workers keep them."""
        self._folder = folder
        self._seen: deque[_Counted] = deque([_counted(folder)], maxlen=KEPT + 1)

    def look(self) -> Figures:
        """What was answered since it began, and since it was looked at `LATELY` times ago."""
        now = _counted(self._folder)
        self._seen.append(now)
        seen = list(self._seen)
        before = seen[-min(LATELY + 1, len(seen))]
        seconds = max(now.at - before.at, 1e-3)
        took = {bound: now.took[bound] - before.took.get(bound, 0.0) for bound in now.took}
        return Figures(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            requests=now.requests,
            failed=now.failed,
            in_flight=now.in_flight,
            seconds=round(seconds, 1),
            per_s=round(max(now.requests - before.requests, 0) / seconds, 3),
            p50_ms=_milliseconds(took, 0.5),
            p95_ms=_milliseconds(took, 0.95),
            recent_per_s=[round(_rate(one, other), 3) for one, other in itertools.pairwise(seen)],
            versions=[VersionFigures(model=m, version=v, requests=n) for (m, v), n in sorted(now.versions.items())],
        )


def _rate(one: _Counted, other: _Counted) -> float:
    return max(other.requests - one.requests, 0) / max(other.at - one.at, 1e-3)


def _counted(folder: str) -> _Counted:
    from prometheus_client import CollectorRegistry, multiprocess  # who only reads the file has no need of it

    registry = CollectorRegistry()
    if os.path.isdir(folder):  # noqa: PTH112 - what prometheus_client takes is a text too
        multiprocess.MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    requests = failed = in_flight = 0.0
    took: dict[float, float] = {}
    versions: dict[tuple[str, str], int] = {}
    for sample in (sample for metric in registry.collect() for sample in metric.samples):
        labels: Mapping[str, str] = sample.labels
        if sample.name == "vizsla_service_requests_total":
            requests += sample.value
            failed += sample.value if int(labels["status"]) >= SERVER_ERROR else 0
            key = labels["model"], labels["version"]
            versions[key] = versions.get(key, 0) + int(sample.value)
        elif sample.name == "vizsla_service_requests_in_flight":
            in_flight += sample.value
        elif sample.name == "vizsla_service_request_seconds_bucket":
            bound = float(labels["le"])
            took[bound] = took.get(bound, 0.0) + sample.value
    return _Counted(time.monotonic(), int(requests), int(failed), max(int(in_flight), 0), took, versions)


def _milliseconds(took: Mapping[float, float], share: float) -> float | None:
    """How long so many of the requests took at most, in milliseconds, as if each bucket were filled evenly."""
    bounds: Sequence[float] = sorted(took)
    total = took[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    lower = below = 0.0
    for bound in bounds:
        if took[bound] >= share * total:
            if math.isinf(bound):  # longer than the longest that is told apart
                return 1000 * lower
            return round(1000 * (lower + (bound - lower) * (share * total - below) / (took[bound] - below)), 1)
        lower, below = bound, took[bound]
    return 1000 * lower
