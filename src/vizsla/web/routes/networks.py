"""`/api/v1/networks`: what can be trained. What needs torch is answered by a process of its own."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from vizsla.api import networks
from vizsla.web.schema import STRICT, Answer, Limit, Page, Ws

router = APIRouter(prefix="/networks", tags=["networks"])

# What the worker that tries a network then needs of memory stays within a few GB.
MAX_PX, MAX_CLASSES = 1024, 25_000
Side = Annotated[int | None, Query(ge=1, le=MAX_PX, description="Of the pictures in px; give both, or neither.")]
Channels = Annotated[int, Query(ge=1, le=4, description="1 for grey, 3 for colour.")]
Classes = Annotated[int, Query(ge=1, le=MAX_CLASSES, description="Number of classes.")]


class NetworkAnswer(Answer):
    """A network by name."""

    name: str
    family: str = Field(description="own, classic, or as timm calls it")
    num_parameters: int | None = Field(description="for 1,000 classes in colour; null until somebody has looked at it")
    weights_here: bool | None = Field(
        description="whether its pretrained weights are on the server's disk; null: nobody published any"
    )


class LayerAnswer(BaseModel):
    """A layer: `shape` is its output's."""

    name: str
    kind: str
    shape: list[int]
    num_parameters: int
    multiply_accumulates: int


class NetworkDetail(BaseModel):
    """A network: multiply-accumulates are those for one picture."""

    name: str
    family: str
    weights: str = Field(description="where pretrained weights are")
    weights_here: bool | None = Field(description="whether they are on the server's disk; null: nobody published any")
    licence: str | None
    size: tuple[int, int] = Field(description="height and width in px")
    num_parameters: int
    multiply_accumulates: int
    layers: list[LayerAnswer]


@router.get("")
def list_networks(
    ws: Ws,
    name: Annotated[str, Query(max_length=100, description="Only names that hold this.")] = "",
    family: Annotated[str | None, Query(max_length=100, description="Only those of this family.")] = None,
    limit: Limit = 50,
    after: Annotated[str | None, Query(max_length=200, description="The `next` of the page before.")] = None,
) -> Page[NetworkAnswer]:
    """Your own networks, the classic ones, and timm's. The first time takes some seconds."""
    found = networks.catalogue(ws, name, family=family, after=after, limit=limit)
    items = [NetworkAnswer.model_validate(network) for network in found.networks]
    return Page(items=items, next=items[-1].name if found.more else None)


@router.get("/{name}/drawing.svg", response_class=Response, responses={200: {"content": {"image/svg+xml": {}}}})
def draw_network(
    ws: Ws, name: str, *, width: Side = None, height: Side = None, channels: Channels = 3, num_classes: Classes = 1000
) -> Response:
    """The graph of a network as SVG. Takes some seconds; when many ask, some are told to come again (503)."""
    svg = networks.draw(name, width=width, height=height, channels=channels, num_classes=num_classes, ws=ws)
    return Response(svg, media_type="image/svg+xml", headers=STRICT)


@router.get("/{name}")
def get_network(
    ws: Ws, name: str, *, width: Side = None, height: Side = None, channels: Channels = 3, num_classes: Classes = 1000
) -> NetworkDetail:
    """What a network is: parameters, pretrained weights, layers. Takes some seconds, the usual ones the first time."""
    found = networks.get(name, width=width, height=height, channels=channels, num_classes=num_classes, ws=ws)
    return NetworkDetail.model_validate(found)
