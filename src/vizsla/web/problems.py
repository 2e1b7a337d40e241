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
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from vizsla.api.receiving import WrongOffset
from vizsla.errors import VizslaError
from vizsla.serving.problems import MEDIA_TYPE, PROBLEMS, STATUS, answer, invalid
from vizsla.serving.problems import of as plain

__all__ = ["MEDIA_TYPE", "PROBLEMS", "STATUS", "answer", "describe", "http", "install", "of"]

log = logging.getLogger("vizsla.web")


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
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, _defect)


def of(error: VizslaError) -> JSONResponse:
    """An expected error as an answer."""
    response = plain(error)
    if isinstance(error, WrongOffset):
        response.headers["Upload-Offset"] = str(error.offset)
    return response


async def _expected(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, VizslaError)
    response = of(error)
    if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s %s: %s", request.method, request.url.path, error)
    return response


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
