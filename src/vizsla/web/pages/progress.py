"""How far work has come, as pages show it before the socket tells more."""

from __future__ import annotations

import contextlib
import itertools
from datetime import datetime
from typing import NamedTuple

import orjson

from vizsla import events, work
from vizsla.api import history, jobs
from vizsla.errors import VizslaError
from vizsla.events import Event
from vizsla.serving import hosting
from vizsla.store.rows import Job, Kind
from vizsla.store.workspace import Workspace
from vizsla.web.kept import Kept

SPARK_POINTS = 60
MAX_SHOWN = 50
# The last event that tells how far it is lies this near to the end.
LOOKED_AT = 50
# Before there is anything to count.
READYING: dict[str, str] = {"run": "loads libraries, weights and pictures, and times a few steps"}


class Work(NamedTuple):
    """A job that is not done."""

    job: Job
    share: float | None
    """0 to 1; None: it is not known"""
    stage: str
    words: str
    """the stage, and how far it is"""
    eta_s: float | None
    """of the stage, or of all of a run"""
    spark: str
    """the loss so far, as the path of an SVG of 100 by 30; empty where there is none"""
    total_steps: int | None
    """of a run"""
    next: str
    """where in its events to go on from"""


class AtWork(NamedTuple):
    """Jobs that are not done, as `work.html` lists them."""

    changes: str
    """see `last_change`"""
    work: list[Work]


def last_change(ws: Workspace) -> str:
    """The last change of any job, to be asked for before the jobs: what comes later is told by the socket."""
    return str(ws.store.jobs.last_change())


def at_work(ws: Workspace, kept: Kept, kind: Kind | None = None, *, first: bool = True) -> AtWork:
    """The jobs at work, and those that wait, as they will start.

    Args:
        kind: of what they make; all by default.
        first: whether it is the first page of a list; later ones show none.
    """
    changes = last_change(ws)
    standing = (job for job in jobs.standing(ws, limit=0) if kind in (None, job.kind)) if first else iter(())
    return AtWork(changes, [_work(ws, kept, job) for job in itertools.islice(standing, MAX_SHOWN)])


def of(ws: Workspace, kept: Kept, job: Job) -> Work:
    """How far a job has come."""
    return _work(ws, kept, job)


def _work(ws: Workspace, kept: Kept, job: Job) -> Work:
    path = ws.folder(job.kind, job.thing) / work.EVENTS
    latest: list[Event] = []
    following = 0
    with contextlib.suppress(OSError, VizslaError):
        following = events.end(path)
        latest = [event for event in itertools.islice(events.backwards(path), LOOKED_AT) if _tells(event)]
    total = None
    if job.kind == "run" and (item := kept.get(ws, "run", job.thing)):
        run = orjson.loads(item.body)["run"]
        total = run["steps_per_epoch"] * run["spec"]["epochs"]
    if job.kind == "service":
        stands = hosting.standing(ws.folder("service", job.thing))
        words = f"answers at {stands.url}" if stands.url else "loads its models"
        words = "no worker of it answers" if stands.state == "ailing" else words
        return Work(job, None, "", words, None, "", None, str(following))
    if not latest or job.state == "queued":
        words = READYING.get(job.kind, "loads libraries and pictures") if job.state in ("starting", "running") else ""
        return Work(job, None, "", words, None, "", total, str(following))
    last = latest[0]
    if last["event"] == "progress":
        share = last["done"] / last["total"] if last["total"] else None
        stage = str(last["stage"])
        words = f"{stage}: {last['done']:,} of {last['total']:,}" if last["total"] else stage
        return Work(job, share, stage, words, _left(latest), "", total, str(following))
    share = min(1.0, last["step"] / total) if total else None
    stage = f"epoch {last['epoch']}"
    # The end of an epoch does not tell it: what was told last stands.
    left = next((event["eta_s"] for event in latest if event.get("eta_s") is not None), None)
    return Work(job, share, stage, stage, left, _spark(ws, job), total, str(following))


def _left(latest: list[Event]) -> float | None:
    """Seconds that a stage will take at its last pace; None: it is not known."""
    last, first = latest[0], latest[0]
    for event in latest[1:]:
        if event.get("stage") != last["stage"]:
            break
        first = event
    done = last["done"] - first["done"]
    elapsed = datetime.fromisoformat(last["at"]) - datetime.fromisoformat(first["at"])
    return (last["total"] - last["done"]) * elapsed.total_seconds() / done if done > 0 else None


def _tells(event: Event) -> bool:
    return event["event"] in ("step", "epoch", "progress")


def _spark(ws: Workspace, job: Job) -> str:
    """The curve of the loss of a run."""
    with contextlib.suppress(VizslaError):
        found = orjson.loads(history.get(ws, job.thing, points=SPARK_POINTS, series=["loss"]).json)["series"]
        return path_of(found[0]["value"]) if found else ""
    return ""


def path_of(values: list[float], width: float = 100, height: float = 30) -> str:
    """Values, the same distance apart, as the path of an SVG."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    scale = (height - 2) / (high - low) if high > low else 0
    step = width / (len(values) - 1)
    points = (f"{number * step:.1f} {height - 1 - (value - low) * scale:.1f}" for number, value in enumerate(values))
    return "M" + "L".join(points)
