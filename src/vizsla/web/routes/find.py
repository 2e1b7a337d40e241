"""`/api/v1/find`: what people call a thing, by the beginning of its name or id, as the command line takes it."""

from __future__ import annotations

from typing import Annotated, get_args

from fastapi import APIRouter, Query

from vizsla.api import things
from vizsla.store.rows import Kind
from vizsla.web.schema import EntryAnswer, JobAnswer, Ws

router = APIRouter(prefix="/find", tags=["find"])

Reference = Annotated[
    str, Query(max_length=1000, pattern=r"^[^\x00]*$", description="Id or name, or the beginning of one.")
]


@router.get("")
def find_thing(
    ws: Ws,
    reference: Reference,
    kind: Annotated[list[Kind] | None, Query(description="Only things of these kinds.")] = None,
) -> EntryAnswer:
    """The one thing that is meant."""
    return EntryAnswer.model_validate(things.find(ws, reference, *(kind or get_args(Kind))))


@router.get("/job")
def find_job(ws: Ws, reference: Reference) -> JobAnswer:
    """The job of this id or its beginning, or that of a thing by its id or name."""
    return JobAnswer.model_validate(ws.store.jobs.find(reference))
