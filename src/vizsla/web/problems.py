"""Errors as problem details (RFC 9457): what went wrong, where, and what to do instead."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from http import HTTPStatus
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from vizsla.api.receiving import WrongOffset
from vizsla.errors import NotSignedIn, TooMany, VizslaError

MEDIA_TYPE = "application/problem+json"
MAX_DETAIL = 1000
RETRY_AFTER_S = 5

log = logging.getLogger("vizsla.web")

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


def describe(app: FastAPI, bodies: Sequence[type[BaseModel]] = ()) -> dict[str, Any]:
    """The OpenAPI document, in which problems have their own media type.

    Args:
        bodies: of requests that routes read themselves.
    """
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemes = {
            "token": {"type": "http", "scheme": "bearer", "description": "of a program"},
            "session": {
                "type": "apiKey",
                "in": "cookie",
                "name": "__Host-vizsla_session",
                "description": "of a browser",
            },
        }
        found.setdefault("components", {})["securitySchemes"] = schemes
        # The last: a server without accounts asks nobody.
        found["security"] = [{"token": []}, {"session": []}, {}]
        for operations in found["paths"].values():
            for operation in operations.values():
                for status in PROBLEMS:
                    operation["responses"][status]["content"] = {
                        MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}
                    }
        found["components"]["schemas"].update({body.__name__: body.model_json_schema() for body in bodies})
        for name, example in _examples().items():
            found["components"]["schemas"][name]["examples"] = [example]
        app.openapi_schema = found
    return app.openapi_schema


def _examples() -> dict[str, Any]:
    """What requests and answers look like, by the name of their schema."""
    text = resources.files("vizsla.web").joinpath("examples.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def install(app: FastAPI) -> None:
    """Let an app answer every error with a problem."""
    app.add_exception_handler(VizslaError, _expected)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, _defect)


def answer(status: int, kind: str, detail: str, **fields: Any) -> JSONResponse:
    """A problem as an answer."""
    problem = Problem(kind=kind, title=HTTPStatus(status).phrase, status=status, detail=detail[:MAX_DETAIL], **fields)
    return JSONResponse(problem.model_dump(mode="json"), status, media_type=MEDIA_TYPE)


def of(error: VizslaError) -> JSONResponse:
    """An expected error as an answer."""
    status = STATUS.get(error.kind, HTTPStatus.INTERNAL_SERVER_ERROR)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:  # where and why is for the one who looks after the server
        return answer(status, error.kind, error.what, remedy="The server's log says more.")
    response = answer(status, error.kind, error.what, where=error.where, remedy=error.remedy)
    if isinstance(error, WrongOffset):
        response.headers["Upload-Offset"] = str(error.offset)
    if isinstance(error, NotSignedIn):
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooMany) and error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


async def _expected(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, VizslaError)
    response = of(error)
    if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s %s: %s", request.method, request.url.path, error)
    return response


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    wrong = [
        # Of a body that is no JSON the place is a number of bytes, and no field.
        WrongField(field="body" if one["type"] == "json_invalid" else _place(one["loc"]), detail=one["msg"])
        for one in error.errors()
    ]
    first = f"{wrong[0].field}: {wrong[0].detail}" if wrong else "The request cannot be read."
    return answer(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-input", first, where=wrong[0].field, errors=wrong)


def _place(loc: Sequence[str | int]) -> str:
    return ".".join(map(str, loc[1:])) or str(loc[0])


async def http(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses, as a problem."""
    assert isinstance(error, HTTPException)
    kind = HTTPStatus(error.status_code).name.lower().replace("_", "-")
    response = answer(error.status_code, kind, str(error.detail))
    response.headers.update(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(_methods(request))
    return response


def _methods(request: Request) -> list[str]:
    """The methods that are allowed on the path: each is a route of its own."""
    paths = request.app.openapi()["paths"]
    same = (methods for path, methods in paths.items() if compile_path(path)[0].match(request.url.path))
    return sorted({method.upper() for methods in same for method in methods} or {"GET"})


async def _defect(request: Request, error: Exception) -> JSONResponse:
    # The traceback is in the server's log; an answer would show it to anybody.
    return answer(500, "defect", "This is a defect of Vizsla; the server's log has the traceback.")
