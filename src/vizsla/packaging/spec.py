"""What becomes of a service as a package: its name, its shape where it runs, and what it is given there."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from vizsla.serving.capture import MAX_PENDING_BYTES
from vizsla.serving.spec import MAX_DRAIN_S, MAX_WORKERS, ServiceSpec
from vizsla.serving.supervisor import KEPT_BYTES

# A name that images, hosts and Kubernetes' services may have, with room for endings.
NAME = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"
MANY_THREADS = 8
"""that decode and compute, and keep some memory each"""
GRACE_S = 40
"""how long requests under way have to end, with some to spare for the supervisor"""


class PackageSpec(BaseModel):
    """How a service is packaged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: ServiceSpec
    name: Annotated[str, Field(pattern=NAME)]
    public: bool = False
    """whether it answers everybody who can reach it"""
    workers: int = Field(1, ge=1, le=MAX_WORKERS)
    drain: float = Field(5.0, ge=0, le=MAX_DRAIN_S)
    """seconds for which it says that it is not ready before it ends"""
    cores: float = Field(2.0, ge=0.1, le=1024)
    """what manifests give to one container"""

    @property
    def cuda(self) -> bool:
        """Whether it computes on a GPU."""
        return self.service.device.startswith("cuda")

    @property
    def stop_s(self) -> int:
        """How long its end may take."""
        return round(self.drain) + GRACE_S

    def memory_mb(self, num_graph_bytes: int) -> int:
        """What one container may need at most, in steps of 256 MB.

        Args:
            num_graph_bytes: of all graphs. ONNX Runtime keeps the weights, a copy in its own layout, and room to
                compute.
        """
        waiting = MAX_PENDING_BYTES / 1e6 if self.service.capture.wanted else 0
        kept = KEPT_BYTES / 2**20 * MANY_THREADS
        each = 256 + kept + waiting + 4 * num_graph_bytes / 2**20 + self.service.limits.max_held_mb
        return 256 * -(-round(256 + self.workers * each) // 256)
