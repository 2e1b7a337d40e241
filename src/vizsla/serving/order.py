"""What the supervisor of a service and its workers say to each other. Light: the supervisor computes nothing."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

READY = b"ready\n"


class Order(BaseModel):
    """What a worker is to do."""

    service: Path
    fd: int
    drain_s: float
    grace_s: int
    tls_cert: Path | None = None
    tls_key: Path | None = None
