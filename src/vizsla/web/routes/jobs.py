"""`/api/v1/jobs`: the queue."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from vizsla.api import jobs
from vizsla.store.jobs import State
from vizsla.web.schema import JobAnswer, JobHistory, Limit, Ws

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.get("")
def list_jobs(
    ws: Ws, limit: Limit = 50, state: Annotated[State | None, Query(description="Only those in this state.")] = None
) -> list[JobAnswer]:
    """The jobs that have not ended, and the newest of those that have; oldest first."""
    found = jobs.list_all(ws, limit=limit)
    return [JobAnswer.model_validate(job) for job in found if state in (None, job.state)]


@router.get("/{reference}")
def get_job(ws: Ws, reference: str) -> JobHistory:
    """A job with every state that it was in, by its id, or the newest of a thing by its name or id."""
    shown = jobs.get(ws, reference)
    return JobHistory.model_validate(shown.job._asdict() | {"history": [c._asdict() for c in shown.history]})


@router.post("/{reference}/stop", status_code=202)
def stop_job(ws: Ws, reference: str) -> JobAnswer:
    """Ask a job to stop at its next safe point, or take it out of the queue."""
    return JobAnswer.model_validate(jobs.stop(ws, reference))
