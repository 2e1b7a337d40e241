"""What a run's network saw in the picture of a request: where it looked, and what its layers made of it."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from vizsla.api import runs
from vizsla.errors import InvalidInput, TooLarge
from vizsla.models.predictions import Score
from vizsla.store.workspace import Workspace
from vizsla.training.run import find_checkpoint
from vizsla.web import pictures
from vizsla.web.links import Unfetched
from vizsla.web.schema import Answer, read

MODULE = "vizsla.models.insight_worker"


class HeatAnswer(Answer):
    """Where a network looked for a class: Grad-CAM at its last convolutional maps."""

    checkpoint: int = Field(description="step")
    layer: str = Field(description="whose maps were looked at")
    shape: tuple[int, int, int] = Field(description="of those maps: how many, height, width")
    label: str = Field(description="the class that it was looked for")
    probability: float
    scores: list[Score] = Field(description="the best classes first")
    is_flat: bool = Field(description="nothing in the maps speaks for the class: the heat is 0 everywhere")
    picture: str = Field(description="what the network saw with the heat on it: PNG in base64")


class ValuesAnswer(Answer):
    """What numbers are like."""

    mean: float | None
    deviation: float | None
    counts: list[int] = Field(description="of a histogram")
    edges: list[float] = Field(description="its least and its largest value")
    num_not_finite: int


class LayerAnswer(Answer):
    """A layer, and what it makes of the picture."""

    name: str
    kind: str
    shape: list[int]
    num_parameters: int
    activation: ValuesAnswer


class DrawnAnswer(ValuesAnswer):
    """Numbers, and a picture of them."""

    shape: list[int]
    picture: str | None = Field(description="PNG in base64; null: there is nothing to see in one")
    shown: int = Field(description="tiles in the picture")
    tiles: int = Field(description="tiles that there are")


class WeightsAnswer(DrawnAnswer):
    """Parameters of a layer."""

    name: str


class DrawnLayer(Answer):
    """A layer in pictures."""

    name: str
    activation: DrawnAnswer
    weights: list[WeightsAnswer]


class LayersAnswer(Answer):
    """The layers of a run's network, or one of them in pictures."""

    checkpoint: int = Field(description="step")
    layers: list[LayerAnswer] | None = Field(description="in the order in which they are done; null if one was asked")
    layer: DrawnLayer | None = Field(description="the one that was asked for")


async def look(request: Request, ws: Workspace, id: str, checkpoint: str, **question: Any) -> dict[str, Any]:
    """Ask the process that looks into networks about the one picture of a request.

    Raises:
        InvalidInput: the request brings no picture, or several, or the picture cannot be read.
        VizslaError: it brings a link to one that cannot be fetched; see `images.links.fetch`.
        NotFound: there is no such checkpoint.
        Busy, TooSlow, WorkerDied: as for `pool.Pool.predict`.
    """

    def step() -> int:
        return find_checkpoint(ws.folder("run", read(ws, "run", id, runs.get).run.id), checkpoint).step

    found = await run_in_threadpool(step)
    pool = request.app.state.insight
    async with pictures.placed(request, pool) as brought:
        if len(brought) != 1:
            raise InvalidInput("One picture is looked at a time.", where="body", remedy="Send one.")
        (picture,) = brought
        if isinstance(picture, Unfetched):
            raise picture.error
        if (picture.size or 0) > pictures.MAX_PICTURE_BYTES:
            raise TooLarge(f"The picture has more than {pictures.MAX_PICTURE_BYTES:,} bytes.")
        answer: dict[str, Any] = await pool.ask(ws.folder("run", id), [picture], step=found, **question)
    return answer | {"checkpoint": found}
