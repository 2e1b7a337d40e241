"""What a service serves, and within which limits: `service.json`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vizsla import records
from vizsla.errors import InvalidInput

SERVICE = "service.json"
CAPTURED = "captured"
# How often a request is in memory while it is read and taken apart: what came, and what is made of it.
COPIES, JSON_COPIES = 2, 4
MAX_WORKERS, MAX_DRAIN_S = 64, 600
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
    max_held_mb: float = Field(512.0, gt=0, le=1_000_000, description="What all requests may hold in memory at once.")
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


class CaptureSpec(BaseModel):
    """Which of the pictures that are sent are kept for people to label, and for how long. By default none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    below: float = Field(
        0.0, ge=0, le=1, description="Keep pictures whose best class has a probability below this; 0: none for that."
    )
    sample: float = Field(0.0, ge=0, le=1, description="Keep so large a share of all pictures, by chance.")
    max_days: float = Field(30.0, gt=0, le=36500, description="How long they are kept, at most.")
    max_mb: float = Field(
        1000.0, gt=0, le=10_000_000, description="What is kept, at most: new ones replace the oldest."
    )

    @property
    def wanted(self) -> bool:
        """Whether any are kept."""
        return self.below > 0 or self.sample > 0

    @property
    def which(self) -> str:
        """Those that are kept, in words."""
        unsure = [f"pictures whose best class has a probability below {self.below:g}"] if self.below else []
        sampled = [f"{100 * self.sample:g} % of all pictures, by chance"] if self.sample else []
        return " and ".join([*unsure, *sampled])


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
    capture: CaptureSpec = CaptureSpec()
    captured: Path = Field(
        Path(CAPTURED),
        description="where pictures are kept for labelling; a relative folder lies beside service.json",
    )
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


class Given(NamedTuple):
    """A model that is to be served."""

    name: str
    """under which it is served; "": its own"""
    title: str
    """its own name"""
    id: str
    folder: Path


def named(asked: str) -> tuple[str, str]:
    """NAME=MODEL as these two, MODEL alone as "" and itself."""
    name, equals, model = asked.partition("=")
    return (name, model) if equals else ("", asked)


def models(given: Iterable[Given], share: float | None) -> tuple[ModelSpec, ...]:
    """Models to be served, those with the same name as versions of one.

    Args:
        share: of the requests, that the last of several versions gets; all by default.

    Raises:
        InvalidInput: there are not several, or it is no share, or a name cannot be a part of an address.
    """
    found: dict[str, list[Given]] = {}
    for one in given:
        found.setdefault(one.name or _address(one.title), []).append(one)
    if share is not None and not any(len(versions) > 1 for versions in found.values()):
        raise InvalidInput("There is one version only, which gets every request.", where="share")
    return tuple(_model(name, versions, share) for name, versions in found.items())


def _model(name: str, given: Sequence[Given], share: float | None) -> ModelSpec:
    shares = _shares(len(given), share)
    try:
        versions = [
            VersionSpec(version=one.id, folder=one.folder, share=part) for one, part in zip(given, shares, strict=True)
        ]
        return ModelSpec(name=name, versions=tuple(versions))
    except ValidationError as error:
        raise InvalidInput(
            f"{name!r} cannot be served so: {error.errors()[0]['msg'].removeprefix('Value error, ')}.",
            where="models",
            remedy="A name has letters, digits, dots and dashes, and each version of it is another model.",
        ) from None


def _shares(num_versions: int, last: float | None) -> list[float]:
    """Of the versions of a model: the last one gets its share, the one before it the rest."""
    last = 1.0 if last is None or num_versions == 1 else last
    if not 0 <= last <= 1:
        raise InvalidInput(f"{last:g} is no share.", where="share", remedy="Use a number from 0 to 1.")
    return [*([0.0] * (num_versions - 2)), 1 - last, last] if num_versions > 1 else [1.0]


def _address(name: str) -> str:
    """A name that can be a part of an address."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-._")[:60] or "model"


def read(path: Path) -> ServiceSpec:
    """What is to be served.

    Raises:
        InvalidInput: the file is none, or damaged.
    """
    return records.read(path, ServiceSpec, remedy="Correct it, or make the service again.")
