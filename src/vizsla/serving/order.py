"""What the supervisor of a service and its workers say to each other. Light: the supervisor computes nothing."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from vizsla.serving.spec import ServiceSpec

READY = b"ready\n"
"""A worker serves what it was last told to. Where it cannot, it says why, as JSON."""
ALIVE = b"alive\n"
"""A worker takes requests; it says so every `ALIVE_S`."""
ALIVE_S = 1.0


class Order(BaseModel):
    """What a worker is to do; each further line of its standard input is a `ServiceSpec` to serve in place of this."""

    spec: ServiceSpec
    root: Path
    """what relative folders of models lie in"""
    fd: int
    drain_s: float
    grace_s: int
    tls_cert: Path | None = None
    tls_key: Path | None = None
