"""`/evaluations`: how good a run or a model is, how sure that is, and on which pictures it fails."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import orjson
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from vizsla.errors import InvalidInput, did_you_mean
from vizsla.evaluation import html
from vizsla.evaluation.report import ClassFigures, Figure, Report
from vizsla.store.workspace import Workspace
from vizsla.web.kept import Kept, Known
from vizsla.web.lists import parent_id, select
from vizsla.web.pages import made, progress
from vizsla.web.pages.made import Made
from vizsla.web.pages.render import PageRoute, asked, query, render
from vizsla.web.routes import evaluations
from vizsla.web.schema import RowAfter, Ws

router = APIRouter(prefix="/evaluations", include_in_schema=False, route_class=PageRoute)

PER_PAGE = 60
# Of more classes the table shows these, until all are asked for.
FIRST_CLASSES = 100
SUGGESTED = 2000
SMALL_PX = 64
TOPS_PER_PAGE = 20


@router.get("", response_class=HTMLResponse)
def list_evaluations(
    ws: Ws, kept: Known, request: Request, wanted: Annotated[evaluations.EvaluationListing, Query()]
) -> HTMLResponse:
    """The evaluations, what is at work first."""
    parents = [
        parent_id(ws, "subject", wanted.subject, "run", "model"),
        parent_id(ws, "dataset", wanted.dataset, "dataset"),
    ]
    found = select(ws, kept, "evaluation", wanted, parents=parents, split=wanted.split)
    return render(
        request,
        "evaluations.html",
        twin="/api/v1/evaluations" + query(**asked(request)),
        **progress.at_work(ws, kept, "evaluation", first=not wanted.after)._asdict(),
        reports=[orjson.loads(item) for item in found.items],
        next=found.next,
        filtered=any((wanted.name, wanted.split, wanted.subject, wanted.dataset, wanted.tag)),
        **made.tags_of(ws, "evaluation", found.tags),
    )


class Shown(BaseModel):
    """How a report is looked at."""

    show: Literal["counts", "rates"] = "counts"
    find: str = ""
    sort: Literal["f1", "recall", "precision", "support", "label"] = "f1"
    order: Literal["asc", "desc"] | None = None
    all: bool = False


@router.get("/{reference}", response_class=HTMLResponse)
def show_evaluation(
    ws: Ws, kept: Known, request: Request, reference: str, shown: Annotated[Shown, Query()]
) -> HTMLResponse:
    """An evaluation: figures, mistakes, matrix, classes."""
    found = made.get(ws, kept, "evaluation", reference)
    if not isinstance(found, Made):
        return made.unmade(request, ws, kept, found)
    report = Report.model_validate_json(found.body)
    matching = _matching(report, shown.find)
    around = matching[0] if shown.find and matching else None
    classes = _sorted([(i, report.per_class[i]) for i in matching], shown)
    return render(
        request,
        "evaluation.html",
        twin=f"/api/v1/evaluations/{report.id}",
        report=report,
        shown=shown,
        cards=html.cards(report),
        role_words=html.ROLES[report.split_role],
        num_right=sum(cell.num_pictures for cell in report.confusion if cell.true == cell.predicted),
        first=html.FIRST_MISTAKES,
        matrix=html.matrix(report, around),
        around=around,
        pairs=html.pairs(report),
        classes=classes if shown.all else classes[:FIRST_CLASSES],
        num_classes=len(classes),
        suggested=report.labels[:SUGGESTED],
        pixels=_is_small(ws, kept, report),
        **found.shared(request, ws),
    )


def _matching(report: Report, find: str) -> list[int]:
    """The classes with a text in their names; one of exactly this name first."""
    if not find:
        return list(range(len(report.labels)))
    wanted = find.casefold()
    found = [i for i, label in enumerate(report.labels) if wanted in label.casefold()]
    return sorted(found, key=lambda i: report.labels[i] != find)


class _Class(NamedTuple):
    position: int
    figures: ClassFigures


def _sorted(classes: list[tuple[int, ClassFigures]], shown: Shown) -> list[_Class]:
    """The classes in the order that is asked for; those without this figure come last."""
    descending = shown.order == "desc"
    known = [_Class(*one) for one in classes if getattr(one[1], shown.sort) is not None]
    unknown = [_Class(*one) for one in classes if getattr(one[1], shown.sort) is None]

    def key(one: _Class) -> str | float:
        by = getattr(one.figures, shown.sort)
        return by.casefold() if isinstance(by, str) else by.value if isinstance(by, Figure) else by

    return sorted(known, key=key, reverse=descending) + unknown


class Wanted(BaseModel):
    """Which pictures of an evaluation are wanted."""

    true: str | None = None
    predicted: str | None = None
    wrong: bool = False
    order: Literal["surest", "file"] = "surest"
    after: RowAfter = "0"


@router.get("/{reference}/pictures", response_class=HTMLResponse)
def show_pictures(
    ws: Ws, kept: Known, request: Request, reference: str, wanted: Annotated[Wanted, Query()]
) -> HTMLResponse:
    """The pictures behind a cell of the matrix, a row, a column, or all mistakes."""
    found = made.get(ws, kept, "evaluation", reference)
    if not isinstance(found, Made):
        return made.unmade(request, ws, kept, found)
    report = Report.model_validate_json(found.body)
    _require_classes(report, wanted)
    part = evaluations.list_predictions(ws, report.id, **_filter(wanted), limit=PER_PAGE, after=wanted.after)
    return render(
        request,
        "evaluation-pictures.html",
        twin=f"/api/v1/evaluations/{report.id}/predictions"
        + query(**_rest(wanted), after=request.query_params.get("after")),
        report=report,
        wanted=wanted,
        same=_same(wanted),
        num_pictures=_count(report, wanted),
        pictures=part.items,
        next=part.next,
        suggested=report.labels[:SUGGESTED],
        pixels=_is_small(ws, kept, report),
    )


@router.get("/{reference}/pictures/{index}", response_class=HTMLResponse)
def show_picture(  # noqa: PLR0917 - the parts of the address and who asks
    ws: Ws,
    kept: Known,
    request: Request,
    reference: str,
    index: Annotated[int, Path(ge=0, le=2**53)],
    wanted: Annotated[Wanted, Query()],
) -> HTMLResponse:
    """One picture: what it is, what was answered, what mattered for that; and on to the next of those asked for."""
    found = made.get(ws, kept, "evaluation", reference)
    if not isinstance(found, Made):
        return made.unmade(request, ws, kept, found)
    report = Report.model_validate_json(found.body)
    _require_classes(report, wanted)
    one = evaluations.get_prediction(ws, report.id, index, **_filter(wanted))
    return render(
        request,
        "evaluation-picture.html",
        twin=f"/api/v1/evaluations/{report.id}/predictions/{index}" + query(**_rest(wanted)),
        report=report,
        one=one,
        same=_same(wanted),
        scores=list(zip(one.top_labels, one.top_probabilities, strict=True)),
        pixels=_is_small(ws, kept, report),
        network=_network(ws, kept, report),
        has_picture=kept.get(ws, "dataset", report.dataset.id) is not None,
    )


def _require_classes(report: Report, wanted: Wanted) -> None:
    for name in (wanted.true, wanted.predicted):
        if name is not None and name not in report.labels:
            what = f"The evaluation has no class {name[:100]!r}."
            raise InvalidInput(what, where="class", remedy=did_you_mean(name, report.labels))


def _filter(wanted: Wanted) -> dict[str, Any]:
    """What is wanted, as the routes take it."""
    surest = wanted.order == "surest"
    return {"label": wanted.true, "predicted": wanted.predicted, "wrong": wanted.wrong, "surest": surest}


def _rest(wanted: Wanted) -> dict[str, Any]:
    """What is wanted, as the addresses of REST have it."""
    asked = {name: "true" if value is True else value or None for name, value in _filter(wanted).items()}
    return {"class": asked.pop("label")} | asked


def _same(wanted: Wanted) -> str:
    """What is wanted, for the address of another page of the same pictures."""
    order = None if wanted.order == "surest" else wanted.order
    return query(true=wanted.true, predicted=wanted.predicted, wrong="true" if wanted.wrong else None, order=order)


class _Network(NamedTuple):
    """The checkpoint of a run which answered, where one can look into it."""

    run: str
    checkpoint: str


def _network(ws: Workspace, kept: Kept, report: Report) -> _Network | None:
    """Of a model it is the run that it was made of, if that is here."""
    subject = report.subject
    if subject.kind == "run":
        return _Network(subject.id, subject.checkpoint or "best") if kept.get(ws, "run", subject.id) else None
    if (item := kept.get(ws, "model", subject.id)) is None:
        return None
    origin = orjson.loads(item.body)["run"]
    return _Network(origin["id"], str(origin["checkpoint"])) if kept.get(ws, "run", origin["id"]) else None


def _count(report: Report, wanted: Wanted) -> int:
    return sum(
        cell.num_pictures
        for cell in report.confusion
        if wanted.true in (None, report.labels[cell.true])
        and wanted.predicted in (None, report.labels[cell.predicted])
        and not (wanted.wrong and cell.true == cell.predicted)
    )


@router.get("/{reference}/top", response_class=HTMLResponse)
def show_top(ws: Ws, kept: Known, request: Request, reference: str, after: RowAfter = "0") -> HTMLResponse:
    """For each class the pictures that were most surely taken for it."""
    found = made.get(ws, kept, "evaluation", reference)
    if not isinstance(found, Made):
        return made.unmade(request, ws, kept, found)
    report = Report.model_validate_json(found.body)
    part = evaluations.list_top(ws, report.id, limit=TOPS_PER_PAGE, after=after)
    return render(
        request,
        "evaluation-top.html",
        twin=f"/api/v1/evaluations/{report.id}/top" + query(after=request.query_params.get("after")),
        report=report,
        classes=part.items,
        next=part.next,
        pixels=_is_small(ws, kept, report),
    )


def _is_small(ws: Workspace, kept: Kept, report: Report) -> bool:
    """Whether the pictures are so small that they are shown with hard pixels."""
    item = kept.get(ws, "dataset", report.dataset.id)
    if item is None:
        return False
    shape: dict[str, Any] = orjson.loads(item.body)["preprocess"]
    return bool(max(shape["width"], shape["height"]) <= SMALL_PX)
