"""`/api/v1/jobs`: the queue."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from vizsla.api import jobs
from vizsla.machine.usage import Sample
from vizsla.store.jobs import State
from vizsla.web.schema import After, JobAnswer, JobHistory, Limit, Order, Page, Ws, cursor, place_of

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


@router.get("/{id}/usage")
def get_usage(ws: Ws, id: str) -> list[Sample]:
    """What a job used of processor, memory, disk and GPUs over time: 720 samples at most, the same time apart."""
    return jobs.usage(ws, ws.store.jobs.get(id).id)


@router.post("/{id}/stop", status_code=202)
def stop_job(ws: Ws, id: str) -> JobAnswer:
    """Ask a job to stop at its next safe point, or take it out of the queue."""
    return JobAnswer.model_validate(jobs.stop(ws, ws.store.jobs.get(id).id))
