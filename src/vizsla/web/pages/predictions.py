"""`/predictions`: what a model sees in many pictures."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse

from vizsla.models.predictions import Prediction
from vizsla.web import auth
from vizsla.web.kept import Known
from vizsla.web.lists import parent_id, select
from vizsla.web.pages import made, progress
from vizsla.web.pages.made import Made
from vizsla.web.pages.render import PageRoute, asked, query, render
from vizsla.web.routes import predictions
from vizsla.web.schema import RowAfter, Ws

router = APIRouter(prefix="/predictions", include_in_schema=False, route_class=PageRoute)

PER_PAGE = 100


@router.get("", response_class=HTMLResponse)
def list_predictions(
    ws: Ws, kept: Known, request: Request, wanted: Annotated[predictions.PredictionListing, Query()]
) -> HTMLResponse:
    """The predictions, what is at work first."""
    found = select(ws, kept, "prediction", wanted, parents=[parent_id(ws, "model", wanted.model, "model")])
    return render(
        request,
        "predictions.html",
        twin="/api/v1/predictions" + query(**asked(request)),
        **progress.at_work(ws, kept, "prediction", first=not wanted.after)._asdict(),
        predictions=[orjson.loads(item) for item in found.items],
        next=found.next,
        filtered=any((wanted.name, wanted.model, wanted.tag)),
        **made.tags_of(ws, "prediction", found.tags),
    )


@router.get("/new", response_class=HTMLResponse, dependencies=[Depends(auth.member)])
def new_prediction(ws: Ws, request: Request, model: str = "") -> HTMLResponse:
    """A form to name a model and a folder or list of pictures."""
    return render(
        request,
        "prediction-new.html",
        model=model,
        models=[entry.name for entry in reversed(ws.store.all("model"))],
        allowed=[str(folder) for folder in request.app.state.allowed],
    )


@router.get("/{reference}", response_class=HTMLResponse)
def show_prediction(
    ws: Ws,
    kept: Known,
    request: Request,
    reference: str,
    *,
    label: Annotated[str | None, Query(alias="class")] = None,
    rejected: bool = False,
    after: RowAfter = "0",
) -> HTMLResponse:
    """What came out: how many of each class, and each picture."""
    found = made.get(ws, kept, "prediction", reference)
    if not isinstance(found, Made):
        return made.unmade(request, ws, kept, found)
    prediction = Prediction.model_validate_json(found.body)
    label = label or None
    part = predictions.get_rows(ws, prediction.id, limit=PER_PAGE, after=after, label=label, rejected=rejected)
    counts = sorted(prediction.classes.items(), key=lambda one: -one[1])
    return render(
        request,
        "prediction.html",
        twin=f"/api/v1/predictions/{prediction.id}",
        prediction=prediction,
        counts=[one for one in counts if one[1]],
        most=max((num for _, num in counts), default=0),
        rows=part.items,
        next=part.next,
        label=label,
        rejected=rejected,
        **found.shared(request, ws),
    )
