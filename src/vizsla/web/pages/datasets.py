"""`/datasets`: pictures, decoded and divided; a new one, and one in the making."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from vizsla.api import datasets as verbs
from vizsla.datasets.cautions import cautions
from vizsla.datasets.dataset import Dataset
from vizsla.datasets.scan import SPLITS, Split
from vizsla.datasets.spec import UPLOAD, DatasetSpec
from vizsla.errors import NotFound
from vizsla.store.rows import Entry, Job
from vizsla.store.workspace import Workspace
from vizsla.web import auth
from vizsla.web.kept import Kept, Known
from vizsla.web.lists import Listing, select
from vizsla.web.pages import forms, made, progress
from vizsla.web.pages.render import PageRoute, asked, query, render
from vizsla.web.schema import Ws

router = APIRouter(prefix="/datasets", include_in_schema=False, route_class=PageRoute)

SHOTS, REJECTED, RUNS = 48, 20, 10
STAGES = {
    "unpack": "Unpack the archive",
    "scan": "Find the files",
    "read": "Decode and resize the pictures",
    "measure": "Measure the mean picture",
}
# What most want who do not know better: the size of the network that is proposed, and pictures held out for the end.
PROPOSED = {"width": 224, "height": 224, "val_percent": 10, "test_percent": 20}
# In the form beside the others; the rest is folded.
PLAIN = ("width", "height", "resize", "colour", "val_percent", "test_percent", "source")


@router.get("", response_class=HTMLResponse)
def list_datasets(ws: Ws, kept: Known, request: Request, wanted: Annotated[Listing, Query()]) -> HTMLResponse:
    """The datasets that are built, and above them those in the making."""
    shown = select(ws, kept, "dataset", wanted)
    found = [orjson.loads(item) for item in shown.items]
    owners = {one["id"]: ws.store.exact(one["id"], "dataset").owner for one in found}
    return render(
        request,
        "datasets.html",
        twin="/api/v1/datasets" + query(**asked(request)),
        **progress.at_work(ws, kept, "dataset", first=wanted.after is None)._asdict(),
        datasets=found,
        owners=owners,
        next=shown.next,
        **made.tags_of(ws, "dataset", shown.tags),
        descending=wanted.descending,
        sort=wanted.sort,
    )


@router.get("/new", response_class=HTMLResponse, dependencies=[Depends(auth.member)])
def new_dataset(
    ws: Ws, kept: Known, request: Request, like: Annotated[str | None, Query(max_length=100)] = None
) -> HTMLResponse:
    """A form for a dataset; with `like`, filled as another one was made."""
    spec: dict[str, Any] = {}
    if like is not None:
        spec = orjson.loads(kept.require(ws, "dataset", ws.store.exact(like, "dataset").id).body)["spec"]
        if str(spec["source"]).startswith(UPLOAD):  # which is gone
            spec["source"] = ""
    return render(
        request,
        "dataset-new.html",
        fields=(found := forms.inputs(DatasetSpec, "spec", values=spec or PROPOSED, shows_defaults=True)),
        more=[field for name, field in found.items() if name not in PLAIN],
        like=spec,
        roots=[str(folder) for folder in request.app.state.allowed],
    )


class Shown(BaseModel):
    """Which pictures are shown."""

    split: Split | None = None
    label: str | None = Field(None, alias="class", max_length=1000)
    after: int = Field(0, ge=0, lt=10**15)
    rejected_after: int = Field(0, ge=0, lt=10**15)


class Class(NamedTuple):
    """A class and how many pictures it has, by split."""

    name: str
    counts: list[int]
    total: int


@router.get("/{reference}", response_class=HTMLResponse)
def show_dataset(
    ws: Ws, kept: Known, request: Request, reference: str, wanted: Annotated[Shown, Query()]
) -> HTMLResponse:
    """A dataset; while it is in the making, how far it is; and if that has failed, why."""
    changes = progress.last_change(ws)
    entry, job = _find(ws, reference)
    if entry is None or not ws.is_finished("dataset", entry.id):
        if job is None:
            raise NotFound(f"There is no dataset {reference[:100]!r}.", remedy="It may have been deleted.")
        return _in_the_making(ws, kept, request, job, changes)
    body = kept.require(ws, "dataset", entry.id).body
    dataset = Dataset.model_validate_json(body)
    runs = select(ws, kept, "run", Listing(limit=RUNS), parents=[dataset.id])
    shown = verbs.pictures(ws, dataset.id, split=wanted.split, label=wanted.label, after=wanted.after, limit=SHOTS)
    rejected = None
    if dataset.rejected:
        rejected = verbs.pictures(ws, dataset.id, rejected=True, after=wanted.rejected_after, limit=REJECTED)
    classes = [
        Class(name, counts := [dataset.counts.get(one, {}).get(name, 0) for one in SPLITS], sum(counts))
        for name in dataset.labels
    ]
    return render(
        request,
        "dataset.html",
        twin=f"/api/v1/datasets/{dataset.id}",
        dataset=dataset,
        entry=entry,
        splits=SPLITS,
        totals=[sum(dataset.counts.get(one, {}).values()) for one in SPLITS],
        classes=classes,
        largest=max(one.total for one in classes),
        cautions=cautions(dataset),
        settings=_settings(dataset),
        shown=shown,
        wanted=wanted,
        rejected=rejected,
        runs=[orjson.loads(run) for run in runs.items],
        more_runs=runs.next is not None,
        **made.written(request, ws, entry),
    )


def _find(ws: Workspace, reference: str) -> tuple[Entry | None, Job | None]:
    """The dataset of this id or name, and the newest job that was to build it."""
    try:
        entry = ws.store.exact(reference, "dataset")
    except NotFound:  # of one that could not be built, or was deleted, only its jobs are known
        return None, ws.store.jobs.newest_of(reference, ["dataset"])
    return entry, ws.store.jobs.newest_of(entry.id, ["dataset"])


def _in_the_making(ws: Workspace, kept: Kept, request: Request, job: Job, changes: str) -> HTMLResponse:
    return render(
        request,
        "dataset-making.html",
        status=404 if job.state == "done" else 200,
        twin=f"/api/v1/jobs/{job.id}",
        job=job,
        work=[progress.of(ws, kept, job)] if job.live else [],
        changes=changes,
        stages=STAGES,
        may_stop=job.live and made.may_change(ws, job.owner),
    )


def _settings(dataset: Dataset) -> list[tuple[str, str]]:
    """What was asked for, where it was not the default."""
    spec, about = dataset.spec.model_dump(mode="json"), forms.inputs(DatasetSpec, "spec")
    kept = ("source", "width", "height", "resize")
    return [
        (about[name].title, text)
        for name, value in spec.items()
        if (text := forms.text_of(value)) and (name in kept or text != about[name].usual)
    ]
