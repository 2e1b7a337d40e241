"""`/runs`: the trainings, each of them live, and the form for a new one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple, get_args

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from vizsla import files, work
from vizsla.errors import InvalidInput, NotFound
from vizsla.jobs.spec import JobSpec
from vizsla.machine import gpus
from vizsla.machine.devices import devices
from vizsla.networks import known, own
from vizsla.store.rows import Entry, Job
from vizsla.store.workspace import Workspace
from vizsla.training import run as records
from vizsla.training.run import Run
from vizsla.training.spec import AUGMENTS_EACH_PASS, DIGITS, DIGITS_BATCH, GROUPS, RECIPES, TrainingSpec
from vizsla.web import auth
from vizsla.web.kept import Kept, Known
from vizsla.web.lists import Listing
from vizsla.web.pages import forms, made, progress
from vizsla.web.pages.marks import marks_of
from vizsla.web.pages.render import PageRoute, asked, query, render
from vizsla.web.routes import datasets, evaluations, models, runs
from vizsla.web.schema import Ws, exact

router = APIRouter(prefix="/runs", include_in_schema=False, route_class=PageRoute)

# To choose from; the rest is found by name.
MAX_CHOICES = 200
MAX_MADE = 20
LOOKED_AT = 50
MAX_REFUSED = 3
REFUSED_FOR = timedelta(days=1)
FIRST_FIELDS = ("preset", "tune", "epochs", "batch_size", "learning_rate")
PICKED = ("net", "weights", "device", "processes")
DEFAULT_NET = TrainingSpec().net
NOT_WITH_HEAD = (*AUGMENTS_EACH_PASS, "freeze_epochs", "layer_decay", "sync_batch_norm")
CLASSIC = ("lenet", "alexnet", "googlenet")


class Setting(NamedTuple):
    """A setting of a run beside its default."""

    title: str
    value: str
    usual: str
    differs: bool
    asked: bool
    """whether somebody named it; else it follows from others"""


@router.get("", response_class=HTMLResponse)
def list_runs(ws: Ws, kept: Known, request: Request, wanted: Annotated[runs.RunListing, Query()]) -> HTMLResponse:
    """What trains and waits, then every run that has begun."""
    page = orjson.loads(runs.list_runs(ws, kept, wanted).body)
    owners = {one["run"]["id"]: _owner(ws, one["run"]["id"]) for one in page["items"]}
    return render(
        request,
        "runs.html",
        twin="/api/v1/runs" + query(**asked(request)),
        **progress.at_work(ws, kept, "run", first=wanted.after is None)._asdict(),
        runs=page["items"],
        owners=owners,
        next=page["next"],
        **made.tags_of(ws, "run", page["tags"]),
        sort=wanted.sort,
        descending=wanted.descending,
        states=get_args(records.State),
        refused=_refused(ws) if wanted.after is None and wanted.state in (None, "failed") else [],
        datasets=_named(datasets.list_datasets(ws, kept, Listing(limit=MAX_CHOICES))),
        networks=sorted({one["run"]["spec"]["net"] for one in page["items"]} | {DEFAULT_NET, *CLASSIC}),
    )


@router.get("/new", response_class=HTMLResponse, dependencies=[Depends(auth.member)])
def new_run(
    ws: Ws,
    kept: Known,
    request: Request,
    *,
    dataset: Annotated[str | None, Query(max_length=200)] = None,
    clone: Annotated[str | None, Query(max_length=200)] = None,
    weights: Annotated[str | None, Query(max_length=200)] = None,
) -> HTMLResponse:
    """The form for a training: empty, or as another run was asked for, or with its weights."""
    values: dict[str, Any] = {}
    source: Entry | None = None
    if clone is not None:
        source = ws.store.exact(clone, "run")
        asked, dataset_id = _asked(ws, source)
        values, dataset = asked.model_dump(mode="json"), dataset or dataset_id
    begun = _weights(ws, kept)
    if weights is not None:
        chosen = next((one for one in begun if weights in (one["value"], one["id"], one["name"])), None)
        if chosen is None:
            raise NotFound("There is no run or model of this name to begin from.", where=weights)
        values |= {"weights": chosen["value"], "net": chosen["network"]}
    choices = _named(datasets.list_datasets(ws, kept, Listing(limit=MAX_CHOICES)))
    if dataset is not None:
        dataset = exact(ws, dataset, "dataset")
        if dataset not in (one["id"] for one in choices):
            choices.insert(0, {"id": dataset, "name": ws.store.exact(dataset, "dataset").name})
    first = forms.inputs(TrainingSpec, "spec", FIRST_FIELDS, values)
    found = devices(gpus.find())
    return render(
        request,
        "run-new.html",
        twin="/api/v1/openapi.json",
        datasets=choices,
        dataset=dataset,
        source=source,
        begun_source=source is not None and ws.is_finished("run", source.id),
        net=values.get("net", DEFAULT_NET),
        device=values.get("device", "auto"),
        processes=values.get("processes", 1),
        weights=values.get("weights", "auto"),
        begun=begun,
        devices=found,
        not_with_head=NOT_WITH_HEAD,
        is_quick=source is None and all(one.name == "cpu" for one in found),
        suggested=_suggested(ws),
        first=list(first.values()),
        groups=forms.groups(TrainingSpec, "spec", GROUPS, skip=(*FIRST_FIELDS, *PICKED), values=values),
        job=list(forms.inputs(JobSpec, "job").values()),
        presets={"modern": RECIPES, "digits": DIGITS, "digits_batch": DIGITS_BATCH},
    )


@router.get("/{reference}", response_class=HTMLResponse)
def show_run(ws: Ws, kept: Known, request: Request, reference: str) -> Response:
    """A run: curves, figures, checkpoints, settings, what happened; one that waits says for what."""
    try:
        entry = ws.store.exact(reference, "run")
    except NotFound:
        # Of a run that was refused stays only its job, which says why.
        if (refused := ws.store.jobs.newest_of(reference, ["run"])) is None:
            raise
        return RedirectResponse(f"/jobs/{refused.id}", HTTPStatus.SEE_OTHER)
    changes = progress.last_change(ws)
    job = ws.store.jobs.newest_of(entry.id, ["run"])
    if not ws.is_finished("run", entry.id):
        return _waiting(ws, kept, request, entry, job, changes=changes)
    body = kept.require(ws, "run", entry.id).body
    shown = orjson.loads(body)
    run = Run.model_validate(shown["run"])
    path = ws.folder("run", entry.id) / work.EVENTS
    live = job is not None and job.live
    marks = marks_of(path)
    return render(
        request,
        "run.html",
        twin=f"/api/v1/runs/{entry.id}",
        run=run,
        entry=entry,
        progress=shown["progress"],
        state=job.state if job and job.live else shown["progress"]["state"],
        job=job,
        live=live,
        work=[progress.of(ws, kept, job)] if job and live else [],
        **made.written(request, ws, entry),
        settings=settings(run),
        marks=marks,
        checkpoints=runs.list_checkpoints(ws, entry.id),
        evaluations=_items(evaluations.list_evaluations(
            ws, kept, evaluations.EvaluationListing(subject=entry.id, limit=MAX_MADE)
        )),
        models=_items(models.list_models(ws, kept, models.ModelListing(run=entry.id, limit=MAX_MADE))),
        about={
            "id": entry.id,
            "name": entry.name,
            "job": job.id if job else "",
            "live": live,
            "changes": changes,
            "steps_per_epoch": run.steps_per_epoch,
            "total_steps": run.total_steps,
            "num_val": run.num_val,
            "marks": [mark._asdict() for mark in marks],
        },
    )  # fmt: skip


def settings(run: Run) -> dict[str, list[Setting]]:
    """The settings of a run by the titles of their groups."""
    usual = run.spec.usual(has_weights=run.weights is not None)
    values, asked = run.spec.model_dump(mode="json"), run.asked.model_dump(mode="json", exclude_defaults=True)

    def setting(name: str) -> Setting:
        value, default = values[name], usual[name]
        texts = [forms.text_of(one) or "–" for one in (value, default)]
        return Setting(forms.title_of(name), texts[0], texts[1], value != default, name in asked)

    return {title: [setting(name) for name in names] for title, names in GROUPS.items()}


def _waiting(
    ws: Workspace, kept: Kept, request: Request, entry: Entry, job: Job | None, *, changes: str
) -> HTMLResponse:
    """The page of a run that has not begun."""
    try:
        asked, dataset = _asked(ws, entry)
    except (InvalidInput, NotFound):  # it is being made at this moment
        asked, dataset = TrainingSpec(), ""
    given = asked.model_dump(mode="json", exclude_defaults=True)
    return render(
        request,
        "run-waiting.html",
        twin=f"/api/v1/jobs/{job.id}" if job else "",
        entry=entry,
        job=job,
        changes=changes,
        doing=progress.of(ws, kept, job).words if job and job.live else "",
        may_change=made.may_change(ws, entry.owner),
        dataset=ws.store.exact(dataset, "dataset") if dataset else None,
        net=asked.net,
        given=[(forms.title_of(name), forms.text_of(value)) for name, value in given.items() if name != "net"],
    )


def _asked(ws: Workspace, entry: Entry) -> tuple[TrainingSpec, str]:
    """What was asked for, also of a run that has not begun, and the id of its dataset."""
    folder = ws.folder("run", entry.id)
    if ws.is_finished("run", entry.id):
        run = records.open_run(folder)
        return run.asked, run.dataset.id
    try:
        request = records.Request.model_validate(files.read_json(folder / work.REQUEST))
    except (OSError, ValueError) as error:
        raise NotFound("Nobody knows what was asked for.", where=entry.name) from error
    return request.spec, request.dataset_folder.name


def _refused(ws: Workspace) -> list[Job]:
    """The last trainings that came to nothing before there was a run: people look for them here."""
    since = (datetime.now(UTC) - REFUSED_FOR).isoformat()
    ended = (job for job in ws.store.jobs.last_ended(LOOKED_AT) if job.kind == "run" and job.changed_at >= since)
    failed = [job for job in ended if job.state in ("failed", "lost") and not _is_there(ws, job.thing)]
    return failed[:MAX_REFUSED]


def _is_there(ws: Workspace, id: str) -> bool:
    try:
        return ws.store.exact(id, "run").id == id
    except NotFound:
        return False


def _owner(ws: Workspace, id: str) -> str:
    try:
        return ws.store.exact(id, "run").owner
    except NotFound:  # deleted at this moment
        return ""


def _items(answer: Response) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = orjson.loads(answer.body)["items"]
    return found


def _named(answer: Response) -> list[dict[str, Any]]:
    """Datasets to choose from."""
    return [
        {"id": one["id"], "name": one["name"], "classes": len(one["labels"]), "used": one["used"]}
        for one in _items(answer)
    ]


def _weights(ws: Workspace, kept: Kept) -> list[dict[str, str]]:
    """The runs and models whose weights a training may begin from, the newest."""
    answers = {
        "run": _items(runs.list_runs(ws, kept, runs.RunListing(limit=MAX_CHOICES))),
        "model": _items(models.list_models(ws, kept, models.ModelListing(limit=MAX_CHOICES))),
    }
    found = []
    for kind, items in answers.items():
        for item in items:
            one = item["run"] if kind == "run" else item
            network = one["spec"]["net"] if kind == "run" else one["network"]
            if kind == "run" and item["progress"]["last_epoch"] is None:
                continue
            found.append({"value": f"{kind}:{one['id']}", "kind": kind, "network": network} | {
                name: one[name] for name in ("id", "name")
            })  # fmt: skip
    return found


class Suggested(NamedTuple):
    """A network to choose before anybody searches."""

    name: str
    family: str
    num_parameters: int | None


def _suggested(ws: Workspace) -> list[Suggested]:
    """The default, one's own, and the classic ones. The whole catalogue takes seconds: the page asks for it later."""
    named = [(DEFAULT_NET, ""), *((name, "own") for name in own.find(ws.network_folders))]
    named += [(name, "classic") for name in CLASSIC]
    kept = {name: known.kept_answer(ws.root / "cache", name) or {} for name, family in named if family != "own"}
    return [
        Suggested(name, kept.get(name, {}).get("family", family), kept.get(name, {}).get("num_parameters"))
        for name, family in named
    ]
