"""The page of a service, for people: a picture in, its classes out."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Literal

from fastapi import FastAPI, Response

TYPES = {
    "index.html": "text/html; charset=utf-8",
    "service.js": "text/javascript",
    "service.css": "text/css",
    "icon.svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def install(app: FastAPI) -> None:
    """Let an app show the page."""

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return _file("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: Literal["service.js", "service.css", "icon.svg"]) -> Response:
        return _file(name)


def _file(name: str) -> Response:
    return Response(_read(name), media_type=TYPES[name], headers=HEADERS)


@cache
def _read(name: str) -> bytes:
    return resources.files("vizsla.serving").joinpath("static", name).read_bytes()
