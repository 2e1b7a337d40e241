"""`/about`: versions, and the licences of what the product is made of."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from packaging.requirements import Requirement

from vizsla.web.pages.render import PageRoute, render

router = APIRouter(include_in_schema=False, route_class=PageRoute)


class Part(NamedTuple):
    """A package that the product is made of."""

    name: str
    version: str
    licence: str
    summary: str


@router.get("/about", response_class=HTMLResponse)
def about(request: Request) -> HTMLResponse:
    """What this is, and what it is made of."""
    return render(request, "about.html", parts=parts())


@cache
def parts() -> list[Part]:
    """What the package depends on, as it is installed, and what the pages take from npm."""
    asked = (Requirement(one) for one in metadata.requires("vizsla") or [])
    names = sorted(
        {one.name for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})}, key=str.lower
    )
    return [Part("uPlot", "1.6.32", "MIT", "Curves in the pages"), *map(_part, names)]


def _part(name: str) -> Part:
    about = metadata.metadata(name).json
    kinds = [one for one in about.get("classifier", []) if one.startswith("License :: ")]
    named = about.get("license_expression") or (kinds[0].rpartition(" :: ")[2] if kinds else about.get("license", ""))
    licence = str(named).split("\n")[0][:80] or "see its package"
    return Part(name, str(about["version"]), licence, str(about.get("summary", "")))
