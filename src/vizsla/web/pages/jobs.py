"""`/jobs`: the queue, and everything that ever went through it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from vizsla.api import jobs as verbs
from vizsla.web.kept import Known
from vizsla.web.pages import made, progress
from vizsla.web.pages.render import PageRoute, query, render
from vizsla.web.routes import jobs
from vizsla.web.schema import Ws

router = APIRouter(prefix="/jobs", include_in_schema=False, route_class=PageRoute)


@router.get("", response_class=HTMLResponse)
def list_jobs(ws: Ws, kept: Known, request: Request, wanted: Annotated[jobs.JobListing, Query()]) -> HTMLResponse:
    """What is at work and waits, then every job that there ever was."""
    page = jobs.list_jobs(ws, wanted)
    return render(
        request,
        "jobs.html",
        twin="/api/v1/jobs" + query(**request.query_params),
        **progress.at_work(ws, kept, first=wanted.after is None)._asdict(),
        keeper=verbs.keeper_of(ws),
        jobs=page.items,
        next=page.next,
    )


@router.get("/{id}", response_class=HTMLResponse)
def show_job(ws: Ws, kept: Known, request: Request, id: str) -> HTMLResponse:
    """A job: every state that it was in, what it used, what it printed."""
    changes = progress.last_change(ws)
    shown = verbs.get(ws, id)
    usage = jobs.get_usage(ws, shown.job.id)
    return render(
        request,
        "job.html",
        twin=f"/api/v1/jobs/{shown.job.id}",
        job=shown.job,
        history=shown.history,
        changes=changes,
        # Of what was refused or deleted this page is all that is left.
        there=bool(ws.store.known([shown.job.thing])),
        now=progress.of(ws, kept, shown.job) if shown.job.live else None,
        usage=[one.model_dump(mode="json") for one in usage],
        may_stop=shown.job.live and made.may_change(ws, shown.job.owner),
    )
