"""All pages, and what an address without one answers."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import Depends, FastAPI, Request, Response

from vizsla.errors import NotFound
from vizsla.web import auth, problems
from vizsla.web.pages import (
    about,
    accounts,
    assets,
    compare,
    datasets,
    devices,
    evaluations,
    home,
    jobs,
    models,
    predictions,
    runs,
    services,
)
from vizsla.web.pages.render import wrong

PAGES = (home, datasets, runs, compare, evaluations, models, predictions, services, jobs, devices, about)


def install(app: FastAPI) -> None:
    """Let an app show the pages."""
    app.include_router(assets.router)
    for noun in PAGES:
        app.include_router(noun.router, dependencies=[Depends(auth.by_method)])
    app.include_router(accounts.router)
    app.add_exception_handler(HTTPStatus.NOT_FOUND, _nowhere)


async def _nowhere(request: Request, error: Exception) -> Response:
    if auth.wants_page(request):
        return wrong(request, NotFound("There is no such page.", where=request.url.path))
    return await problems.http(request, error)
