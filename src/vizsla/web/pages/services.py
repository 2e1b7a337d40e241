"""`/services`: models that answer programs and people, what they serve, and what they have answered."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse

from vizsla.serving.hosting import EVERYWHERE, Hosted
from vizsla.store.rows import Entry
from vizsla.store.workspace import Workspace
from vizsla.web import auth
from vizsla.web.kept import Known
from vizsla.web.lists import parent_id, select
from vizsla.web.pages import made, progress
from vizsla.web.pages.made import Made
from vizsla.web.pages.render import PageRoute, asked, query, render
from vizsla.web.routes import services
from vizsla.web.schema import Ws

router = APIRouter(prefix="/services", include_in_schema=False, route_class=PageRoute)

MAX_MODELS = 500


@router.get("", response_class=HTMLResponse)
def list_services(
    ws: Ws, kept: Known, request: Request, wanted: Annotated[services.ServiceListing, Query()]
) -> HTMLResponse:
    """The services, and how they stand."""
    parents = [parent_id(ws, "model", wanted.model, "model")]
    found = select(ws, kept, "service", wanted, parents=parents, state=wanted.state)
    return render(
        request,
        "services.html",
        twin="/api/v1/services" + query(**asked(request)),
        services=[orjson.loads(item) for item in found.items],
        changes=progress.last_change(ws),
        next=found.next,
        filtered=any((wanted.name, wanted.model, wanted.state, wanted.tag)),
        any_model=bool(ws.store.all("model")),
        **made.tags_of(ws, "service", found.tags),
    )


@router.get("/new", response_class=HTMLResponse, dependencies=[Depends(auth.member)])
def new_service(ws: Ws, request: Request, model: str = "") -> HTMLResponse:
    """A form to choose a model, and where it answers."""
    return render(
        request,
        "service-new.html",
        model=model,
        models=_newest(ws),
    )


@router.get("/{reference}", response_class=HTMLResponse)
def show_service(ws: Ws, kept: Known, request: Request, reference: str) -> HTMLResponse:
    """A service."""
    found = made.get(ws, kept, "service", reference)
    if not isinstance(found, Made):
        return made.unmade(request, ws, kept, found)
    changes = progress.last_change(ws)
    hosted = Hosted.model_validate_json(found.body)
    job = ws.store.jobs.newest_of(hosted.id, ["service"])
    counted = {(one.model, one.version): one.requests for one in hosted.figures.versions} if hosted.figures else {}
    return render(
        request,
        "service.html",
        twin=f"/api/v1/services/{hosted.id}",
        service=hosted,
        url=_reached(request, hosted),
        job=job,
        live=job is not None and job.live,
        state=job.state if job and job.live and hosted.state != "ailing" else hosted.state,
        counted=counted,
        spark=progress.path_of(hosted.figures.recent_per_s) if hosted.figures else "",
        others=[one for one in _newest(ws) if one.id not in _answering_all(hosted)],
        changes=changes,
        **found.shared(request, ws),
    )


def _answering_all(hosted: Hosted) -> list[str]:
    """The versions that get all requests: to go over to them is nothing new."""
    return [one.version for model in hosted.models for one in model.versions if one.share == 1]


def _newest(ws: Workspace) -> list[Entry]:
    """The models to choose from."""
    return ws.store.all("model")[: -MAX_MODELS - 1 : -1]


def _reached(request: Request, hosted: Hosted) -> str | None:
    """Where its page is for who asks: one that listens everywhere is reached by the name of this server."""
    if hosted.url is None or hosted.host not in EVERYWHERE:
        return hosted.url
    name = request.url.hostname or ""
    return f"{urlsplit(hosted.url).scheme}://{f'[{name}]' if ':' in name else name}:{hosted.port}/"
