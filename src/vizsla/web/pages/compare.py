"""`/compare`: runs side by side: curves, settings that differ, figures with their intervals, cost."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from vizsla.store.workspace import Workspace
from vizsla.training.run import Run
from vizsla.web.kept import Kept, Known
from vizsla.web.pages import forms
from vizsla.web.pages.render import PageRoute, render
from vizsla.web.routes import evaluations
from vizsla.web.schema import Ws, exact

router = APIRouter(prefix="/compare", include_in_schema=False, route_class=PageRoute)

MAX_RUNS = 6
MAX_EVALUATIONS = 200


class Row(NamedTuple):
    """A line of a table: what each run says, in the order of the runs."""

    title: str
    values: list[str]


class Measured(NamedTuple):
    """What was measured of a run on one split of a dataset."""

    dataset: str
    fingerprint: str
    split: str
    role: str
    figures: list[dict[str, Any] | None]
    """the accuracy of each run on the same pictures, or None where that was not looked at"""
    links: list[str]


@router.get("", response_class=HTMLResponse)
def compare(
    ws: Ws, kept: Known, request: Request, run: Annotated[list[str], Query(default_factory=list, max_length=MAX_RUNS)]
) -> HTMLResponse:
    """Two to six runs."""
    ids = list(dict.fromkeys(exact(ws, one, "run") for one in run))
    shown = [orjson.loads(kept.require(ws, "run", id).body) for id in ids]
    found = [Run.model_validate(one["run"]) for one in shown]
    return render(
        request,
        "compare.html",
        runs=found,
        progress=[one["progress"] for one in shown],
        same_validation=len({(one.dataset.fingerprint, one.num_val) for one in found}) == 1,
        settings=_settings(found),
        measured=_measured(ws, kept, ids),
        about=[
            {"id": one.id, "name": one.name, "steps_per_epoch": one.steps_per_epoch, "num_val": one.num_val}
            for one in found
        ],
    )


def _settings(found: list[Run]) -> list[Row]:
    """The settings in which runs differ."""
    dumps = [one.spec.model_dump(mode="json") for one in found]
    differ = [name for name in (dumps[0] if dumps else {}) if len({str(one[name]) for one in dumps}) > 1]
    rows = [Row(forms.title_of(name), [forms.text_of(one[name]) or "–" for one in dumps]) for name in differ]
    others: dict[str, list[str]] = {
        "Dataset": [one.dataset.name for one in found],
        "Devices": [", ".join(one.devices) for one in found],
        "Number format": [one.arithmetic.precision for one in found],
        "Input": [f"{one.input.width} × {one.input.height} px" for one in found],
    }
    return [*(Row(title, values) for title, values in others.items() if len(set(values)) > 1), *rows]


def _measured(ws: Workspace, kept: Kept, ids: list[str]) -> list[Measured]:
    """The newest evaluation of each run on each split that any of them was evaluated on."""
    found: dict[tuple[str, str], Measured] = {}
    for place, id in enumerate(ids):
        wanted = evaluations.EvaluationListing(subject=id, limit=MAX_EVALUATIONS)
        for report in orjson.loads(evaluations.list_evaluations(ws, kept, wanted).body)["items"]:
            key = (report["dataset"]["fingerprint"], report["split"])
            if key not in found:
                about = (report["dataset"]["name"], *key, report["split_role"])
                found[key] = Measured(*about, [None] * len(ids), [""] * len(ids))
            if found[key].figures[place] is None:
                found[key].figures[place] = report["headline"]["accuracy"]
                found[key].links[place] = report["id"]
    return sorted(found.values(), key=lambda one: (one.split != "test", one.dataset))
