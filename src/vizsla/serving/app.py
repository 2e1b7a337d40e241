"""The service: a page, `POST /predict`, the Open Inference Protocol, health and figures."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import orjson
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vizsla.errors import Forbidden, NotSignedIn, VizslaError
from vizsla.images import links
from vizsla.serving import bodies, page, problems, protocol
from vizsla.serving.answering import Fetch, Seen, Service, unless_gone
from vizsla.serving.bodies import Gone, Picture, Share
from vizsla.serving.measured import measured
from vizsla.serving.models import Served
from vizsla.serving.spec import ServiceSpec

MAX_TOP = 1000


class ScoreAnswer(BaseModel):
    """A class and the probability that the model gives it."""

    label: str
    probability: float


class ErrorAnswer(BaseModel):
    """Why a picture could not be looked at."""

    kind: str
    what: str


class PredictionAnswer(BaseModel):
    """What the model sees in one picture: the best classes first, or the reason why it could not look."""

    picture: str = Field(description="name of its file, or its link")
    scores: list[ScoreAnswer]
    error: ErrorAnswer | None


class Predicted(BaseModel):
    """What a model sees in the pictures that were sent."""

    model: str
    version: str
    predictions: list[PredictionAnswer]
    seconds: float = Field(description="from when the request was here")


class VersionAnswer(BaseModel):
    """A version of a model."""

    version: str
    share: float = Field(description="of the requests that name no version")
    id: str
    network: str
    num_classes: int
    figures: list[dict[str, Any]] = Field(description="how good it is: split, how many pictures, how sure")


class ModelAnswer(BaseModel):
    """A model that is served."""

    name: str
    versions: list[VersionAnswer]


class AboutAnswer(BaseModel):
    """The service, for people and programs that meet it for the first time."""

    title: str
    links: bool = Field(description="whether it fetches pictures by link")
    captures: bool = Field(description="whether it keeps some of the pictures, for people to label")
    models: list[ModelAnswer]


def create_app(spec: ServiceSpec, root: Path, fetch: Fetch = links.fetch) -> FastAPI:
    """The service as an ASGI app. Who runs it loads its models: `app.state.service.models.load(spec)`.

    Args:
        root: what relative folders of the spec lie in.
        fetch: gets pictures by links.
    """
    service = Service(spec, root, fetch)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = FastAPI(
        title=spec.name,
        version=version("vizsla"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=problems.PROBLEMS,
        dependencies=[Depends(_keys(service))],
    )
    app.state.service = service
    _routes(app, service)
    protocol.install(app, service)
    page.install(app)
    app.add_exception_handler(VizslaError, _expected)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Gone, _nobody)
    app.add_exception_handler(Exception, _defect)
    if spec.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=spec.origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    app.add_middleware(_Front, service=service)
    app.openapi = lambda: _described(app, spec)  # type: ignore[method-assign]
    return app


def _routes(app: FastAPI, service: Service) -> None:
    @app.post("/predict", response_model=Predicted, openapi_extra={"requestBody": BODY}, tags=["predict"])
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(max_length=100, description="By default the first.")] = None,
        version: Annotated[str | None, Query(max_length=100, description="By default as the shares say.")] = None,
        top: Annotated[int, Query(ge=1, le=MAX_TOP, description="Classes to name for each picture.")] = 5,
    ) -> Response:
        """Classify pictures: the files of a form, one as the body, or several in JSON. A bad one fails alone."""
        began = time.perf_counter()
        served = service.models.choose(model, version)
        with measured(service, served) as note:
            seen, names = await _seen(service, served, request)
            body = {
                "model": served.name,
                "version": served.version,
                "predictions": [
                    prediction(service, served, name, one, top) for name, one in zip(names, seen, strict=True)
                ],
                "seconds": round(time.perf_counter() - began, 5),
            }
            note(200)
        return Response(orjson.dumps(body), media_type="application/json")

    @app.get("/about", tags=["predict"])
    async def about() -> AboutAnswer:
        """What is served, and how good it is."""
        models = [
            ModelAnswer(name=name, versions=[_version(service, one) for one in service.models.versions(name)])
            for name in service.models.names()
        ]
        spec = service.spec
        return AboutAnswer(title=spec.name, links=spec.links, captures=spec.capture.wanted, models=models)

    @app.get("/metrics", response_class=PlainTextResponse, tags=["operation"])
    async def metrics() -> Response:
        """Figures for Prometheus."""
        text = await asyncio.to_thread(service.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4")


BODY: dict[str, Any] = {
    "required": True,
    "content": {
        **bodies.CONTENT,
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "application/json": {"schema": {"$ref": "#/components/schemas/PicturesBody"}},
    },
}


async def _seen(service: Service, served: Served, request: Request) -> tuple[list[Seen], list[str]]:
    """What the model sees in the pictures of a request, and their names."""
    limits = service.spec.limits
    with service.held.share() as share:
        sent = await bodies.sent(request, limits, share)
        return await unless_gone(request, _looked(service, served, sent, share), limits.deadline_s)


async def _looked(
    service: Service, served: Served, sent: list[Picture] | bytes, share: Share
) -> tuple[list[Seen], list[str]]:
    if isinstance(sent, bytes):
        pictures = await service.parse(bodies.from_json, sent, service.spec.limits)
        share.keep(sum(len(one.data) for one in pictures))
    else:
        pictures = sent
    del sent
    if any(one.link for one in pictures) and not service.spec.links:
        raise Forbidden("This service fetches no links.", where="pictures.link", remedy="Send the files.")
    names = [one.link or one.name for one in pictures]
    return await service.look(served, pictures, share), names


def prediction(service: Service, served: Served, name: str, seen: Seen, top: int) -> dict[str, Any]:
    """What is said of one picture."""
    watched = service.watched[served.name, served.version]
    if seen.row is None:
        assert seen.error is not None
        watched.refused.inc()
        what = seen.error.what[: problems.MAX_DETAIL]
        return {"picture": name, "scores": [], "error": {"kind": seen.error.kind, "what": what}}
    scores = served.predictor.best(seen.row, top)
    watched.predicted(scores[0].label, int(seen.row.argmax()), scores[0].probability)
    return {"picture": name, "scores": [one._asdict() for one in scores], "error": None}


def _version(service: Service, served: Served) -> VersionAnswer:
    spec = next(one for one in service.models.require(served.name).versions if one.version == served.version)
    card = served.card
    return VersionAnswer(
        version=served.version,
        share=spec.share,
        id=card.id,
        network=card.network,
        num_classes=len(card.labels),
        figures=list(card.figures),
    )


# What tells whether the service lives, and the page that asks for a key, are for everybody.
HEALTH = ("/v2/health/live", "/v2/health/ready")
OPEN = (*HEALTH, "/")


def _keys(service: Service) -> Callable[[Request], Awaitable[None]]:
    """Who may ask. Every key is compared, each in the same time, so that answers tell nothing of the keys."""

    async def check(request: Request) -> None:
        digests = [bytes.fromhex(one) for one in service.spec.keys]
        # Not that of `request.url`, which is made of the Host header too: `a/page/b?` would be a path.
        path = request.scope["path"]
        if not digests or path in OPEN or path.startswith("/page/"):
            return
        kind, _, shown = request.headers.get("authorization", "").partition(" ")
        key = shown.strip() if kind.lower() == "bearer" else request.headers.get("x-api-key", "")
        digest = hashlib.sha256(key.encode()).digest()
        if not sum([hmac.compare_digest(digest, one) for one in digests]):
            raise NotSignedIn(
                "This service asks for a key.", remedy="Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`."
            )

    return check


class _Front:
    """What every request passes: is it for this service, and what became of it."""

    def __init__(self, app: ASGIApp, *, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refuse_foreign(HTTPConnection(scope), self._service.spec)
        except Forbidden as error:
            await (await _expected(Request(scope), error))(scope, receive, noting)
        else:
            await self._app(scope, receive, noting)
        finally:
            self._service.metrics.answers.labels(str(status)).inc()


def refuse_foreign(connection: HTTPConnection, spec: ServiceSpec) -> None:
    """Refuse what a page of another site has the browser of somebody send to a service that asks for no key.

    Raises:
        Forbidden: a name was made to point to this machine (DNS rebinding), or the page of another site asks.
    """
    if spec.keys or "*" in spec.hosts or connection.scope["path"] in HEALTH:
        return
    own = connection.headers.get("host", "")
    name = _hostname(f"//{own}")
    within = _is_here((connection.scope.get("server") or ("",))[0])
    if not (within or spec.hosts):
        return
    if not _is_here(name) and name not in spec.hosts:
        raise Forbidden(
            "A service without keys answers to its own names only.",
            where="Host",
            remedy="Ask it as localhost, or let it have keys.",
        )
    origin = connection.headers.get("origin")
    if origin in spec.origins:
        return
    site = connection.headers.get("sec-fetch-site", "none")
    changes = connection.scope["method"] not in ("GET", "HEAD")
    foreign = origin is not None and origin.partition("://")[2] != own
    if foreign or (changes and site not in ("none", "same-origin")):
        raise Forbidden("The request comes from a page of another site.", where="Origin")


def _hostname(url: str) -> str:
    with contextlib.suppress(ValueError):
        return urlsplit(url).hostname or ""
    return ""


def _is_here(name: str) -> bool:
    """Whether a host is this machine by any resolver: `0.0.0.0` too, which no other site can be called."""
    if name == "localhost":
        return True
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(name)
        address = getattr(address, "ipv4_mapped", None) or address
        return address.is_loopback or address.is_unspecified
    return False


def _described(app: FastAPI, spec: ServiceSpec) -> dict[str, Any]:
    """The OpenAPI document: with the bodies that routes read themselves, and problems by their own media type."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    found = get_openapi(title=app.title, version=app.version, routes=app.routes)
    models = [(one, "validation") for one in (bodies.PicturesBody, protocol.InferBody, protocol.InferAnswer)]
    _, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    parts = found.setdefault("components", {})
    parts.setdefault("schemas", {}).update(schemas["$defs"])
    for path, operations in found["paths"].items():
        for operation in operations.values():
            for status in problems.PROBLEMS:
                operation["responses"][status]["content"] = {
                    problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}
                }
            if path in OPEN and spec.keys:
                operation["security"] = []
    if spec.keys:
        parts["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        found["security"] = [{"bearer": []}, {"key": []}]
    app.openapi_schema = found
    return found


def _answered(request: Request, answered: Response) -> Response:
    """A problem, with `error` where clients of the protocol look for it."""
    if request.scope["path"].startswith("/v2"):
        problem = orjson.loads(answered.body)
        answered.body = orjson.dumps(problem | {"error": problem["detail"]})
        answered.headers["content-length"] = str(len(answered.body))
    return answered


async def _expected(request: Request, error: Exception) -> Response:
    assert isinstance(error, VizslaError)
    return _answered(request, problems.of(error))


async def _invalid(request: Request, error: Exception) -> Response:
    return _answered(request, await problems.invalid(request, error))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answered = problems.answer(error.status_code, "refused", str(error.detail))
    answered.headers.update(error.headers or {})
    return _answered(request, answered)


async def _nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


async def _defect(request: Request, error: Exception) -> Response:
    what = "This is a defect of Vizsla; the service's log has the traceback."
    return _answered(request, problems.answer(500, "defect", what))
