"""`/`: what is at work, on what, and what was made last."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from vizsla.store.rows import Kind
from vizsla.store.workspace import Workspace
from vizsla.web.kept import Kept, Known
from vizsla.web.lists import Listing, select
from vizsla.web.pages.progress import at_work
from vizsla.web.pages.render import PageRoute, render
from vizsla.web.routes import machine
from vizsla.web.schema import Ws

router = APIRouter(include_in_schema=False, route_class=PageRoute)

LATEST = 5
SHOWN: tuple[Kind, ...] = ("run", "dataset", "model", "evaluation", "service")


@router.get("/", response_class=HTMLResponse)
def home(ws: Ws, kept: Known, request: Request) -> HTMLResponse:
    """The first page: of an empty workspace, how to begin."""
    latest = {kind: _latest(ws, kept, kind) for kind in SHOWN}
    standing = at_work(ws, kept)
    return render(
        request,
        "home.html",
        twin="/api/v1/queue",
        **standing._asdict(),
        waiting=sum(one.job.state == "queued" for one in standing.work),
        devices=[one.model_dump(mode="json") for one in machine.list_devices(ws)],
        latest=latest,
        is_new=not standing.work and not any(latest.values()),
    )


def _latest(ws: Workspace, kept: Kept, kind: Kind) -> list[dict[str, object]]:
    return [orjson.loads(item) for item in select(ws, kept, kind, Listing(limit=LATEST)).items]
