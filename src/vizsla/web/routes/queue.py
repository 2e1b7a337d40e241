"""`/api/v1/queue`: what is at work, what waits, and what has ended last."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from vizsla.api import jobs
from vizsla.web.schema import Answer, JobAnswer, Ws

router = APIRouter(tags=["jobs"])


class QueueAnswer(Answer):
    """The queue as it stands."""

    jobs: list[JobAnswer] = Field(description="what ended last, what is at work, and what waits, as it will start")
    keeper: int | None = Field(description="the process that looks after the queue for jobs that nobody waits for")


@router.get("/queue")
def get_queue(
    ws: Ws, limit: Annotated[int, Query(ge=0, le=10_000, description="Jobs with those that have ended.")] = 50
) -> QueueAnswer:
    """The queue as it stands."""
    found = [JobAnswer.model_validate(job) for job in jobs.standing(ws, limit=limit)]
    return QueueAnswer(jobs=found, keeper=jobs.keeper_of(ws))
