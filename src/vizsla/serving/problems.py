"""Errors as problem details (RFC 9457): what went wrong, where, and what to do instead."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from vizsla.errors import NotSignedIn, TooMany, VizslaError

MEDIA_TYPE = "application/problem+json"
MAX_DETAIL = 1000
MAX_ERRORS = 100
RETRY_AFTER_S = 5

STATUS = {
    "invalid-input": HTTPStatus.UNPROCESSABLE_ENTITY,
    "not-signed-in": HTTPStatus.UNAUTHORIZED,
    "forbidden": HTTPStatus.FORBIDDEN,
    "not-found": HTTPStatus.NOT_FOUND,
    "conflict": HTTPStatus.CONFLICT,
    "unavailable": HTTPStatus.CONFLICT,
    # Reasons that lie in what was asked for, and that its remedy is about.
    "training-failed": HTTPStatus.UNPROCESSABLE_ENTITY,
    "export-failed": HTTPStatus.UNPROCESSABLE_ENTITY,
    "too-many": HTTPStatus.TOO_MANY_REQUESTS,
    "database-unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "precondition-failed": HTTPStatus.PRECONDITION_FAILED,
    "disk-full": HTTPStatus.INSUFFICIENT_STORAGE,
    "busy": HTTPStatus.SERVICE_UNAVAILABLE,
    "worker-died": HTTPStatus.SERVICE_UNAVAILABLE,
    "too-slow": HTTPStatus.GATEWAY_TIMEOUT,
}


class WrongField(BaseModel):
    """A field of the request that cannot be used."""

    field: str = Field(description="where it is in the request, such as spec.epochs")
    detail: str


class Problem(BaseModel):
    """Why a request was refused."""

    type: str = "about:blank"
    kind: str = Field(description="the kind of error, such as not-found")
    title: str
    status: int
    detail: str = Field(description="what went wrong, as a sentence")
    where: str = Field("", description="the file or the field")
    remedy: str = Field("", description="what to do instead")
    errors: list[WrongField] = []


PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request was refused.", "model": Problem},
    "5XX": {"description": "The server could not do it.", "model": Problem},
}
"""what every route may answer, for the OpenAPI document"""


def answer(status: int, kind: str, detail: str, **fields: Any) -> JSONResponse:
    """A problem as an answer. What was sent may stand in its texts, each of which is cut."""
    cut = {name: value[:MAX_DETAIL] if isinstance(value, str) else value for name, value in fields.items()}
    problem = Problem(kind=kind, title=HTTPStatus(status).phrase, status=status, detail=detail[:MAX_DETAIL], **cut)
    return JSONResponse(problem.model_dump(mode="json"), status, media_type=MEDIA_TYPE)


def of(error: VizslaError) -> JSONResponse:
    """An expected error as an answer."""
    status = STATUS.get(error.kind, HTTPStatus.INTERNAL_SERVER_ERROR)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:  # where and why is for the one who looks after the server
        return answer(status, error.kind, error.what, remedy="The server's log says more.")
    response = answer(status, error.kind, error.what, where=error.where, remedy=error.remedy)
    if isinstance(error, NotSignedIn):
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooMany) and error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


async def invalid(request: Request, error: Exception) -> JSONResponse:
    """A request of which a field cannot be used."""
    assert isinstance(error, RequestValidationError)
    wrong = [
        # Of a body that is no JSON the place is a number of bytes, and no field.
        WrongField(
            field="body" if one["type"] == "json_invalid" else _place(one["loc"])[:MAX_DETAIL],
            detail=one["msg"][:MAX_DETAIL],
        )
        for one in error.errors()[:MAX_ERRORS]
    ]
    first = f"{wrong[0].field}: {wrong[0].detail}" if wrong else "The request cannot be read."
    return answer(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-input", first, where=wrong[0].field, errors=wrong)


def _place(loc: Sequence[str | int]) -> str:
    return ".".join(map(str, loc[1:])) or str(loc[0])
