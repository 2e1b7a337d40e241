"""`/compare`: runs side by side: curves, settings that differ, figures with their intervals, cost."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from vizsla.web.kept import Known
from vizsla.web.pages import forms
from vizsla.web.pages.render import PageRoute, render
from vizsla.web.routes import compare as comparing
from vizsla.web.schema import Ws

router = APIRouter(prefix="/compare", include_in_schema=False, route_class=PageRoute)

TITLES = {"devices": "Devices", "precision": "Number format", "input": "Input"}


@router.get("", response_class=HTMLResponse)
def compare(ws: Ws, kept: Known, request: Request, run: comparing.Runs) -> HTMLResponse:
    """Two to six runs."""
    found = comparing.compare(ws, kept, run)
    runs = [one.run for one in found.runs]
    return render(
        request,
        "compare.html",
        twin="/api/v1/compare" + (f"?{request.url.query}" if request.url.query else ""),
        runs=runs,
        progress=[one.progress for one in found.runs],
        same_validation=found.same_validation,
        settings=[
            (TITLES.get(one.name) or forms.title_of(one.name), [forms.text_of(value) or "–" for value in one.values])
            for one in found.differing
        ],
        measured=found.measured,
        about=[
            {"id": one.id, "name": one.name, "steps_per_epoch": one.steps_per_epoch, "num_val": one.num_val}
            for one in runs
        ],
    )
