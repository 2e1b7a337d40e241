"""`/models`: what was exported, how good it is, where it comes from; and trying it on a picture."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from vizsla.api import evaluations as evaluation_verbs
from vizsla.api import models as verbs
from vizsla.errors import Conflict, NotFound
from vizsla.models.card import Card
from vizsla.store.rows import Entry, Job, Kind
from vizsla.store.workspace import Workspace
from vizsla.web import pictures
from vizsla.web.kept import Kept, Known
from vizsla.web.links import MAX_LINKS
from vizsla.web.lists import parent_id, select
from vizsla.web.pages import made, progress
from vizsla.web.pages.made import Made
from vizsla.web.pages.render import PageRoute, asked, query, render
from vizsla.web.routes import models
from vizsla.web.schema import Ws, exact

router = APIRouter(include_in_schema=False, route_class=PageRoute)

FIRST_LABELS = 100
# The figure that says most about new pictures comes first.
TRUST = ("held out", "chose the checkpoint", "trained on")


@router.get("/models", response_class=HTMLResponse)
def list_models(ws: Ws, kept: Known, request: Request, wanted: Annotated[models.ModelListing, Query()]) -> HTMLResponse:
    """The models, exports at work first."""
    parents = [parent_id(ws, "run", wanted.run, "run")]
    found = select(ws, kept, "model", wanted, parents=parents, network=wanted.network)
    cards = [orjson.loads(item) for item in found.items]
    return render(
        request,
        "models.html",
        twin="/api/v1/models" + query(**asked(request)),
        **progress.at_work(ws, kept, "model", first=not wanted.after)._asdict(),
        cards=[(card, _most_trusted(card["figures"])) for card in cards],
        next=found.next,
        filtered=any((wanted.name, wanted.run, wanted.network, wanted.tag)),
        **made.tags_of(ws, "model", found.tags),
    )


@router.get("/models/{reference}", response_class=HTMLResponse)
def show_model(ws: Ws, kept: Known, request: Request, reference: str, find: str = "") -> HTMLResponse:
    """The card of a model."""
    found = made.get(ws, kept, "model", reference)
    if not isinstance(found, Made):
        return made.unmade(request, ws, kept, found)
    card = Card.model_validate_json(found.body)
    matching = [(i, label) for i, label in enumerate(card.labels) if find.casefold() in label.casefold()]
    return render(
        request,
        "model.html",
        twin=f"/api/v1/models/{card.id}",
        card=card,
        figures=_figures(ws, card),
        run=_here(ws, "run", card.run.id),
        dataset=_here(ws, "dataset", card.dataset.id),
        splits=_splits(ws, kept, card.dataset.id),
        children=ws.store.children(card.id),
        labels=matching[:FIRST_LABELS],
        num_labels=len(matching),
        find=find,
        **found.shared(request, ws),
    )


@router.get("/models/{reference}/try", response_class=HTMLResponse)
def try_model(ws: Ws, kept: Known, request: Request, reference: str) -> HTMLResponse:
    """A place to drop pictures, and what the model sees in them."""
    found = made.get(ws, kept, "model", reference)
    if not isinstance(found, Made):
        return made.unmade(request, ws, kept, found)
    card = Card.model_validate_json(found.body)
    return render(
        request,
        "try.html",
        twin=f"/api/v1/models/{card.id}",
        card=card,
        figure=_most_trusted(_figures(ws, card)),
        run=_here(ws, "run", card.run.id),
        max_pictures=pictures.MAX_PICTURES,
        max_bytes=pictures.MAX_BYTES,
        reads_folders=bool(request.app.state.allowed),
        max_links=MAX_LINKS if request.app.state.links is not None else 0,
    )


@router.get("/models/{reference}/layers", response_class=HTMLResponse)
def show_layers(
    ws: Ws, kept: Known, request: Request, reference: str, picture: Annotated[int | None, Query(ge=0)] = None
) -> HTMLResponse:
    """What each layer makes of a picture: one that is dropped, or one of the dataset."""
    found = made.get(ws, kept, "model", reference)
    if not isinstance(found, Made):
        return made.unmade(request, ws, kept, found)
    card = Card.model_validate_json(found.body)
    return render(
        request,
        "layers.html",
        twin=f"/api/v1/models/{card.id}",
        card=card,
        run=_here(ws, "run", card.run.id),
        dataset=_here(ws, "dataset", card.dataset.id),
        picture=picture,
    )


@router.get("/runs/{reference}/try", response_model=None)
def try_run(
    ws: Ws, kept: Known, request: Request, reference: str, job: str | None = None
) -> HTMLResponse | RedirectResponse:
    """The page of the newest model of a run; without one, how to make it."""
    id = exact(ws, reference, "run")
    try:
        return RedirectResponse(f"/models/{verbs.newest_of(ws, id).id}/try", 303)
    except Conflict as missing:
        run = ws.store.exact(id, "run")
        standing = progress.at_work(ws, kept, "model")
        work = [one for one in standing.work if _is_of(ws, one.job.thing, id)]
        twin = f"/api/v1/runs/{id}"
        return render(
            request,
            "try-run.html",
            twin=twin,
            run=run,
            why=missing.what,
            changes=standing.changes,
            work=work,
            failed=_failed(ws, job),
        )


def _failed(ws: Workspace, id: str | None) -> Job | None:
    """The export that was asked for from here, if it came to nothing."""
    try:
        job = ws.store.jobs.find(id) if id else None
    except NotFound:
        return None
    return job if job is not None and job.kind == "model" and job.error and not job.live else None


def _is_of(ws: Workspace, model: str, run: str) -> bool:
    return any(child.id == model for child in ws.store.children(run))


def _splits(ws: Workspace, kept: Kept, dataset: str) -> list[str]:
    """Those in which a dataset has pictures, the one that says most first."""
    item = kept.get(ws, "dataset", dataset)
    counts = orjson.loads(item.body)["counts"] if item else {}
    return [split for split in ("test", "val", "train") if any(counts.get(split, {}).values())]


def _here(ws: Workspace, kind: Kind, id: str) -> Entry | None:
    """The thing of this id; None: it is not in this workspace, as that of a model from elsewhere."""
    try:
        entry = ws.store.exact(id, kind)
    except NotFound:
        return None
    return entry if entry.id == id else None


def _figures(ws: Workspace, card: Card) -> list[dict[str, Any]]:
    """What is known of how often a model is right: from its card, and from evaluations that were made of it later.

    What says most about new pictures comes first, and the newest of those.
    """
    found = [
        dict(figure, here=bool(figure["evaluation"] and _here(ws, "evaluation", figure["evaluation"])))
        for figure in card.figures
    ]
    found += [
        {
            "split": report.split,
            "role": report.split_role,
            "accuracy": report.headline["accuracy"].model_dump(),
            "evaluation": report.id,
            "here": True,
        }
        for report in evaluation_verbs.of(ws, card.id)
    ]
    found.reverse()
    return sorted(found, key=_trust)


def _most_trusted(figures: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The figure that says most about new pictures; of several the first."""
    return min(figures, key=_trust, default=None)


def _trust(figure: dict[str, Any]) -> int:
    return TRUST.index(figure["role"])
