"""`/api/v1/jobs`: the queue."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from vizsla import work
from vizsla.api import jobs
from vizsla.machine.usage import Sample
from vizsla.store.rows import Kind, State
from vizsla.web.etags import tagged
from vizsla.web.lists import Part
from vizsla.web.schema import Body, Events, EventsAfter, JobAnswer, JobHistory, Page, Ws, some_events
from vizsla.web.tails import LOG_ANSWERS, LogQuery, Thing, logged


class Stopped(Body):
    """How a job is to stop."""

    at_once: bool = Field(False, description="end its worker now; of a run stays what its last checkpoint holds")


router = APIRouter(prefix="/jobs", tags=["jobs"])


class JobListing(Part):
    """Which jobs are wanted."""

    sort: Literal["created", "changed", "name"] = Field("created", description="What the order goes by.")
    state: State | None = Field(None, description="Only those in this state.")
    kind: Kind | None = Field(None, description="Only those that make this kind of thing.")
    thing: str | None = Field(None, max_length=100, description="Only those on the thing of this id.")


@router.get("")
def list_jobs(ws: Ws, wanted: Annotated[JobListing, Query()]) -> Page[JobAnswer]:
    """Every job that there ever was."""
    same = {name: getattr(wanted, name) for name in ("owner", "state", "kind", "thing")}
    found = ws.store.jobs.page(wanted.cut(wanted.limit + 1, wanted.place), name=wanted.name, **same)
    shown = found[: wanted.limit]
    following = wanted.cursor(shown[-1]) if len(found) > len(shown) else None
    return Page(items=[JobAnswer.model_validate(job) for job in shown], next=following)


@router.get("/{id}", response_model=JobHistory)
def get_job(ws: Ws, id: str, request: Request) -> Response:
    """A job with every state that it was in."""
    job = ws.store.jobs.get(id)
    history = [change._asdict() for change in ws.store.jobs.history(job.id)]
    answer = JobHistory.model_validate(job._asdict() | {"history": history})
    return tagged(request, answer.model_dump_json().encode())


@router.get("/{id}/log", responses=LOG_ANSWERS, response_class=Response)
async def get_job_log(ws: Ws, id: str, request: Request, wanted: Annotated[LogQuery, Query()]) -> Response:
    """What the worker of a job printed, as lines of JSON."""

    def find() -> Thing:
        job = ws.store.jobs.get(id)
        return Thing(job.kind, job.thing)

    return await logged(ws, find, request, wanted)


@router.get("/{id}/usage")
def get_usage(ws: Ws, id: str) -> list[Sample]:
    """What a job used of processor, memory, disk and GPUs over time: 720 samples at most, the same time apart."""
    return jobs.usage(ws, ws.store.jobs.get(id).id)


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
