"""`/api/v1/jobs`: the queue."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from vizsla import work
from vizsla.api import jobs
from vizsla.store.rows import State
from vizsla.web.schema import (
    After,
    Body,
    Events,
    EventsAfter,
    JobAnswer,
    JobHistory,
    Limit,
    Order,
    Page,
    Ws,
    cursor,
    place_of,
    some_events,
)


class Stopped(Body):
    """How a job is to stop."""

    at_once: bool = Field(False, description="end its worker now; of a run stays what its last checkpoint holds")


router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.get("")
def list_jobs(
    ws: Ws,
    limit: Limit = 50,
    after: After = None,
    order: Order = "newest",
    state: Annotated[State | None, Query(description="Only those in this state.")] = None,
) -> Page[JobAnswer]:
    """Every job that there ever was."""
    place = place_of(after)
    found, following = ws.store.jobs.page(limit=limit, after=place, newest=order == "newest", state=state)
    return Page(items=[JobAnswer.model_validate(job) for job in found], next=cursor(following) if following else None)


@router.get("/{id}")
def get_job(ws: Ws, id: str) -> JobHistory:
    """A job with every state that it was in."""
    job = ws.store.jobs.get(id)
    history = [change._asdict() for change in ws.store.jobs.history(job.id)]
    return JobHistory.model_validate(job._asdict() | {"history": history})


@router.get("/{id}/events")
def get_events(ws: Ws, id: str, after: EventsAfter = "0") -> Events:
    """What happened in a job since `after`, as long as its events are kept: those of a run as long as the run, others
    until it is done. There is always a `next`."""
    job = ws.store.jobs.get(id)
    return some_events(ws.folder(job.kind, job.thing) / work.EVENTS, after)


@router.post("/{id}/stop", status_code=202)
def stop_job(ws: Ws, id: str, body: Stopped | None = None) -> JobAnswer:
    """Ask a job to stop at its next safe point, or take it out of the queue."""
    at_once = body is not None and body.at_once
    return JobAnswer.model_validate(jobs.stop(ws, ws.store.jobs.get(id).id, at_once=at_once))
