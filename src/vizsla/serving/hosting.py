"""A service of a workspace: what it serves and where, how it stands, and what it has answered lately."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, Field

from vizsla import events, files, records, work
from vizsla.serving.figures import FIGURES, Figures
from vizsla.serving.spec import MAX_DRAIN_S, MAX_WORKERS, CaptureSpec, Limits, ModelSpec, ServiceSpec

HOSTING = "hosting.json"
# In the events: it answers at an address; none of its workers does; it went over to other models, or did not.
SERVING, AILING, CHANGED, REFUSED = "serving", "ailing", "changed", "refused"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}

State = Literal["queued", "starting", "running", "ailing", "done", "failed", "stopped", "lost"]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class HostingSpec(BaseModel):
    """A service that is wanted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    models: tuple[str, ...] = Field(
        min_length=1,
        max_length=100,
        description="Models by name or id. NAME=MODEL serves one as NAME; of several with the same NAME, the last is"
        " the version that answers, unless `share` says otherwise, and each can be asked for by its id.",
        examples=[["dogs-1"], ["dogs=dogs-1", "dogs=dogs-2"]],
    )
    share: float | None = Field(
        None, ge=0, le=1, description="Of several versions, the share of requests that the last one gets."
    )
    title: str = Field("What is this?", max_length=200, description="What the page is called.")
    host: str = Field(
        "127.0.0.1", max_length=255, description="Address to listen on. Others can reach any but loopback."
    )
    port: int = Field(0, ge=0, le=65535, description="Port to listen on; 0 takes a free one, and keeps it.")
    workers: int = Field(1, ge=1, le=MAX_WORKERS, description="Processes that answer.")
    device: str = Field("cpu", pattern=r"^(cpu|cuda:\d{1,4})$", description="Where it is computed: cpu or cuda:N.")
    threads: int = Field(0, ge=0, le=1024, description="Threads that compute, in each process; 0: one a core.")
    drain_s: float = Field(
        0.0, ge=0, le=MAX_DRAIN_S, description="Seconds for which it says that it is not ready before it ends."
    )
    links: bool = Field(False, description="Fetch pictures by links, from the public internet only.")
    origins: tuple[str, ...] = Field((), description="Sites whose pages may ask (CORS), as https://example.org.")
    keys: tuple[Digest, ...] = Field((), description="SHA-256, in hex, of the keys one of which requests must show.")
    public: bool = Field(False, description="Answer everybody who can reach it, without keys.")
    tls_cert: Path | None = Field(None, description="Certificate (PEM).")
    tls_key: Path | None = Field(None, description="The key of the certificate (PEM).")
    limits: Limits = Limits()
    capture: CaptureSpec = CaptureSpec()


class Hosting(BaseModel):
    """`hosting.json`: what a service serves, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["vizsla.hosting/1"] = "vizsla.hosting/1"
    id: str
    name: str
    created_at: str
    service: ServiceSpec
    model_names: dict[str, str] = Field(
        description="of the models that it serves or has served, by their ids: none is deleted before it"
    )
    host: str
    port: int = Field(description="0 until it has one")
    workers: int
    drain_s: float
    tls_cert: Path | None
    tls_key: Path | None


class Version(BaseModel):
    """A version of a model that is served."""

    version: str = Field(description="id of the model")
    name: str = Field(description="of the model, when it came to be served")
    share: float = Field(description="of the requests that name no version")


class ServedModel(BaseModel):
    """A model that is served, with its versions, the newest last."""

    name: str
    versions: list[Version]


class Hosted(BaseModel):
    """A service, and how it stands."""

    id: str
    name: str
    created_at: str
    title: str
    models: list[ServedModel]
    device: str
    workers: int
    host: str
    port: int = Field(description="0 until it has one")
    num_keys: int = Field(description="of which requests must show one; 0: everybody who reaches it may ask")
    links: bool
    limits: Limits
    capture: CaptureSpec = Field(description="which pictures are kept for people to label")
    state: State
    url: str | None = Field(description="of its page, while it answers")
    error: dict[str, str] | None
    figures: Figures | None = Field(description="null until it has answered for some seconds")


class Standing(NamedTuple):
    """How a service stands."""

    state: State
    worker: int | None
    """the process that keeps it"""
    url: str | None
    error: dict[str, str] | None
    place: int
    """in its events, behind those that say so, or before"""


def read(folder: Path) -> Hosting:
    """What a service serves.

    Raises:
        InvalidInput: the folder holds none, or it is damaged.
    """
    return records.read(folder / HOSTING, Hosting, remedy="Start another one.")


def standing(folder: Path) -> Standing:
    """How the service in a folder stands. One whose process is gone without a last word is `lost`, never `running`."""
    worker = files.lock_holder(folder)  # before the events: one that ends in between has then written its last word
    place = events.end(folder / work.EVENTS)
    last = next(events.backwards(folder / work.EVENTS), None)
    said = last["event"] if last else "again"
    error = last.get("error") if last else None
    if worker is not None:
        if said == AILING:
            return Standing("ailing", worker, None, error, place)
        if last is not None and said in (SERVING, CHANGED, REFUSED):
            return Standing("running", worker, last["url"], None, place)
        return Standing("starting", worker, None, None, place)
    if said == "again":
        return Standing("queued", None, None, None, place)
    if said not in events.FINAL:
        return Standing("lost", None, None, None, place)
    return Standing(cast("State", said), None, None, error, place)


def open_hosted(folder: Path) -> Hosted:
    """A service, and how it stands.

    Raises:
        InvalidInput: see `read`.
    """
    hosting = read(folder)
    spec, stands = hosting.service, standing(folder)
    return Hosted(
        id=hosting.id,
        name=hosting.name,
        created_at=hosting.created_at,
        title=spec.name,
        models=[_served(model, hosting.model_names) for model in spec.models],
        device=spec.device,
        workers=hosting.workers,
        host=hosting.host,
        port=hosting.port,
        num_keys=len(spec.keys),
        links=spec.links,
        limits=spec.limits,
        capture=spec.capture,
        state=stands.state,
        url=stands.url,
        error=stands.error,
        figures=_figures(folder) if stands.state == "running" else None,
    )


def _served(model: ModelSpec, names: dict[str, str]) -> ServedModel:
    versions = [Version(version=one.version, name=names[one.version], share=one.share) for one in model.versions]
    return ServedModel(name=model.name, versions=versions)


def _figures(folder: Path) -> Figures | None:
    with contextlib.suppress(OSError, ValueError):
        return Figures.model_validate_json((folder / FIGURES).read_bytes())
    return None


def url(hosting: Hosting) -> str:
    """Where its page is, for who is on this machine."""
    host = EVERYWHERE.get(hosting.host, hosting.host)
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if hosting.tls_cert else 'http'}://{shown}:{hosting.port}/"
