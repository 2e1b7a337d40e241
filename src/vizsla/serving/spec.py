"""What a service serves, and within which limits: `service.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vizsla import records

SERVICE = "service.json"
# How often a request is in memory while it is read and taken apart: what came, and what is made of it.
COPIES, JSON_COPIES = 2, 4
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"

Name = Annotated[str, Field(pattern=NAME, description="letters, digits, dots, dashes: it becomes a part of addresses")]


class Limits(BaseModel):
    """What is gathered, and what is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch: int = Field(16, ge=1, le=1024, description="Pictures that are computed together, at most.")
    max_wait_ms: float = Field(
        5.0, ge=0, le=1000, description="How long a picture waits for others that are on their way, at most."
    )
    max_queue: int = Field(256, ge=1, le=100_000, description="Pictures that wait, at most; more get 503.")
    deadline_s: float = Field(30.0, gt=0, le=600, description="How long a request may take once it is here.")
    max_request_mb: float = Field(32.0, gt=0, le=1000, description="What one request may send.")
    max_json_mb: float = Field(16.0, gt=0, le=100, description="What one request may send as JSON.")
    max_held_mb: float = Field(512.0, gt=0, description="What all requests may hold in memory at once.")
    max_pictures: int = Field(64, ge=1, le=1024, description="Pictures in a request, at most.")
    max_megapixels: float = Field(
        50.0, gt=0, le=200, description="Size of a picture, at most; larger ones are not decoded."
    )

    @property
    def max_request_bytes(self) -> int:
        """What one request may send."""
        return round(self.max_request_mb * 1e6)

    @property
    def max_json_bytes(self) -> int:
        """What one request may send as JSON."""
        return min(round(self.max_json_mb * 1e6), self.max_request_bytes)

    @model_validator(mode="after")
    def _room_for_one_request(self) -> Self:
        if self.max_queue < self.max_pictures:
            raise ValueError("max_queue must be at least max_pictures, or large requests are always refused")
        largest = COPIES * self.max_request_bytes + (JSON_COPIES - COPIES) * self.max_json_bytes
        if self.max_held_mb * 1e6 < largest:
            raise ValueError(
                f"max_held_mb must be at least {largest / 1e6:g} with this max_request_mb and max_json_mb, "
                "or large requests are always refused"
            )
        return self


class VersionSpec(BaseModel):
    """A version of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Name
    folder: Path = Field(description="of the model; relative ones lie beside service.json")
    share: float = Field(1.0, ge=0, le=1, description="of the requests that name no version")


class ModelSpec(BaseModel):
    """A model with its versions, the newest last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    versions: tuple[VersionSpec, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _shares_are_a_whole(self) -> Self:
        if abs(sum(one.share for one in self.versions) - 1) > 1e-6:
            raise ValueError(f"the shares of the versions of {self.name} must add up to 1")
        if len({one.version for one in self.versions}) < len(self.versions):
            raise ValueError(f"two versions of {self.name} have the same name")
        return self


class ServiceSpec(BaseModel):
    """`service.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["vizsla.service/1"] = "vizsla.service/1"
    name: str = "service"
    models: tuple[ModelSpec, ...] = Field(min_length=1, description="the first is used where a request names none")
    limits: Limits = Limits()
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="where it is computed: cpu or cuda:N")
    threads: int = Field(0, ge=0, le=1024, description="that compute, in each worker; 0: one a core")
    keys: tuple[str, ...] = Field(
        (), description="SHA-256 of the keys that requests must show; none: everybody may ask"
    )
    links: bool = Field(False, description="whether pictures may be named by links, which the service then fetches")
    origins: tuple[str, ...] = Field((), description="sites whose pages may ask (CORS)")
    hosts: tuple[str, ...] = Field(
        (),
        description="names by which it is asked where it has no keys, beside localhost; * is any. None: localhost "
        "alone by connections within this machine, any by others",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if len({one.name for one in self.models}) < len(self.models):
            raise ValueError("two models have the same name")
        return self


def read(path: Path) -> ServiceSpec:
    """What is to be served.

    Raises:
        InvalidInput: the file is none, or damaged.
    """
    return records.read(path, ServiceSpec, remedy="Correct it, or make the service again.")
