"""How a job goes through the queue. Light, so that every face can draw its options from it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class JobSpec(BaseModel):
    """How a job goes through the queue."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    priority: int = Field(0, ge=-100, le=100, description="A job of higher priority starts first.")
    retries: int = Field(
        3, ge=0, le=100, description="Times that work goes on by itself after its process was killed or lost."
    )
    gpu_memory: float | None = Field(
        None,
        gt=0,
        description="GB of each GPU that is needed; others may use the rest. "
        "Default: the whole GPU, and for an evaluation as much as its training was given.",
    )


class WaitedSpec(JobSpec):
    """The same of short work that somebody waits for, and soon asks for again where it was killed."""

    retries: int = Field(0, ge=0, le=100, description=JobSpec.model_fields["retries"].description)


class ServiceJobSpec(JobSpec):
    """The same of what goes on until it is stopped."""

    retries: int = Field(100, ge=0, le=1000, description=JobSpec.model_fields["retries"].description)
