"""Styles, scripts and pictures of the pages: kept in memory, compressed once, cached by browsers for ever."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

from fastapi import APIRouter, Request, Response

from vizsla.errors import NotFound

router = APIRouter(include_in_schema=False)

TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


class Asset(NamedTuple):
    """A file that pages load."""

    media_type: str
    plain: bytes
    compressed: bytes


@cache
def assets() -> dict[str, Asset]:
    """All of them, by their names below `static`."""
    root = resources.files("vizsla.web").joinpath("static")
    return {name: _asset(name, file.read_bytes()) for name, file in _below(root, "") if "." + _ending(name) in TYPES}


@cache
def version() -> str:
    """Changes whenever one of the files does: it is part of their addresses."""
    whole = hashlib.sha256()
    for name, asset in sorted(assets().items()):
        whole.update(name.encode() + b"\0" + asset.plain)
    return whole.hexdigest()[:12]


def url(name: str) -> str:
    """Where a page finds a file.

    Raises:
        KeyError: there is no such file; of `vendor`, where the package was not built (`pip install -e .` builds it).
    """
    if name not in assets():
        raise KeyError(f"{name} is not in web/static: was the package built?")
    return f"/static/{version()}/{name}"


@router.get("/static/{of}/{name:path}")
def get_asset(of: str, name: str, request: Request) -> Response:
    """A file."""
    found = assets().get(name)
    if found is None:
        raise NotFound("There is no such file.", where=name)
    # An old address, of a page that was open while the server was upgraded, gets the new file, but not for ever.
    caching = "public, max-age=31536000, immutable" if of == version() else "no-cache"
    headers = {"Cache-Control": caching, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.compressed, media_type=found.media_type, headers=headers | {"Content-Encoding": "gzip"})
    return Response(found.plain, media_type=found.media_type, headers=headers)


def _below(folder: Traversable, above: str) -> list[tuple[str, Traversable]]:
    found = []
    for one in folder.iterdir():
        found += _below(one, f"{above}{one.name}/") if one.is_dir() else [(above + one.name, one)]
    return found


def _ending(name: str) -> str:
    return name.rpartition(".")[2]


def _asset(name: str, plain: bytes) -> Asset:
    return Asset(TYPES["." + _ending(name)], plain, gzip.compress(plain, 9, mtime=0))
