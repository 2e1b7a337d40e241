"""`/api/v1/compare`: runs side by side: settings that differ, figures on the same pictures, cost."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from pydantic import Field

from vizsla.errors import NotFound
from vizsla.store.workspace import Workspace
from vizsla.training.run import Run
from vizsla.web.kept import Kept, Known
from vizsla.web.routes import evaluations
from vizsla.web.schema import Answer, RunAnswer, Ws, exact

router = APIRouter(tags=["runs"])

MAX_RUNS = 6
MAX_EVALUATIONS = 200

Runs = Annotated[list[str], Query(default_factory=list, max_length=MAX_RUNS, description="ids or names, six at most")]


class Differing(Answer):
    """A setting, or a circumstance, in which runs differ."""

    name: str = Field(description="of the setting; dataset, devices, precision and input are circumstances")
    values: list[Any] = Field(description="of each run, in the order of the runs")


class Measured(Answer):
    """What was measured on one split of a dataset: for all runs on the same pictures."""

    dataset: str
    fingerprint: str
    split: str
    role: str
    accuracies: list[dict[str, Any] | None] = Field(description="of each run, with intervals; null: not looked at")
    evaluations: list[str | None] = Field(description="the newest evaluation of each run")
    checkpoints: list[str | None] = Field(description="the step of each run that it was of")


class Comparison(Answer):
    """Runs side by side."""

    runs: list[RunAnswer]
    same_validation: bool = Field(description="whether they were validated on the same pictures")
    differing: list[Differing]
    measured: list[Measured] = Field(description="the test split first")


@router.get("/compare")
def compare(ws: Ws, kept: Known, run: Runs) -> Comparison:
    """Runs side by side, in the order in which they are named, each once."""
    ids = list(dict.fromkeys(exact(ws, one, "run") for one in run))
    shown = [RunAnswer.model_validate(orjson.loads(kept.require(ws, "run", id).body)) for id in ids]
    found = [one.run for one in shown]
    return Comparison(
        runs=shown,
        same_validation=len({(one.dataset.fingerprint, one.num_val) for one in found}) <= 1,
        differing=_differing(ws, found),
        measured=_measured(ws, kept, ids),
    )


def _differing(ws: Workspace, found: list[Run]) -> list[Differing]:
    circumstances: dict[str, list[Any]] = {
        "dataset": [_called(ws, one.dataset.id, one.dataset.name) for one in found],
        "devices": [", ".join(one.devices) for one in found],
        "precision": [one.arithmetic.precision for one in found],
        "input": [f"{one.input.width} × {one.input.height} px" for one in found],
    }
    dumps = [one.spec.model_dump(mode="json") for one in found]
    settings = {name: [one[name] for one in dumps] for name in (dumps[0] if dumps else {})}
    # The number format that was asked for may be "auto" for all, while what it came to differs; that one is shown.
    both = [*circumstances.items(), *((name, every) for name, every in settings.items() if name not in circumstances)]
    return [Differing(name=name, values=every) for name, every in both if len(set(map(str, every))) > 1]


def _measured(ws: Workspace, kept: Kept, ids: list[str]) -> list[Measured]:
    """The newest evaluation of each run on each split that any of them was evaluated on."""
    found: dict[tuple[str, str], Measured] = {}
    for place, id in enumerate(ids):
        wanted = evaluations.EvaluationListing(subject=id, limit=MAX_EVALUATIONS)
        for report in orjson.loads(evaluations.list_evaluations(ws, kept, wanted).body)["items"]:
            fingerprint, split = report["dataset"]["fingerprint"], report["split"]
            one = found.setdefault(
                (fingerprint, split),
                Measured(
                    dataset=_called(ws, report["dataset"]["id"], report["dataset"]["name"]),
                    fingerprint=fingerprint,
                    split=split,
                    role=report["split_role"],
                    accuracies=[None] * len(ids),
                    evaluations=[None] * len(ids),
                    checkpoints=[None] * len(ids),
                ),
            )
            if one.evaluations[place] is None:
                one.accuracies[place] = report["headline"]["accuracy"]
                one.evaluations[place] = report["id"]
                one.checkpoints[place] = report["subject"]["checkpoint"]
    return sorted(found.values(), key=lambda one: (one.split != "test", one.dataset))


def _called(ws: Workspace, id: str, name: str) -> str:
    """What a dataset is called now, which no other one is; what it was called where it is gone."""
    try:
        return ws.store.exact(id, "dataset").name
    except NotFound:
        return name
