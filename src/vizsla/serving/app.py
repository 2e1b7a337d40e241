"""The service: a page, `POST /predict`, the Open Inference Protocol, health and figures."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import orjson
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from vizsla.errors import Forbidden, NotSignedIn, VizslaError
from vizsla.serving import bodies, page, problems, protocol
from vizsla.serving.answering import Seen, Service, unless_gone
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
    models: list[ModelAnswer]


def create_app(spec: ServiceSpec, root: Path) -> FastAPI:
    """The service as an ASGI app. Who runs it loads its models: `app.state.service.models.load(spec)`.

    Args:
        root: what relative folders of the spec lie in.
    """
    service = Service(spec, root)

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
        dependencies=[Depends(_keys(spec))],
    )
    app.state.service = service
    _routes(app, service)
    protocol.install(app, service)
    page.install(app)
    app.add_exception_handler(VizslaError, _expected)
    app.add_exception_handler(RequestValidationError, problems.invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Gone, _nobody)
    app.add_exception_handler(Exception, _defect)
    if spec.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=spec.origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
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
        return AboutAnswer(title=service.spec.name, links=service.spec.links, models=models)

    @app.get("/metrics", response_class=Response, tags=["operation"])
    async def metrics() -> Response:
        """Figures for Prometheus."""
        text = await asyncio.to_thread(service.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4")


BODY: dict[str, Any] = {
    "required": True,
    "content": {**bodies.CONTENT, "application/json": {"schema": bodies.PicturesBody.model_json_schema()}},
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
        return {"picture": name, "scores": [], "error": {"kind": seen.error.kind, "what": seen.error.what}}
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
OPEN = ("/v2/health/live", "/v2/health/ready", "/")


def _keys(spec: ServiceSpec) -> Callable[[Request], Awaitable[None]]:
    """Who may ask. Every key is compared, each in the same time, so that answers tell nothing of the keys."""
    digests = [bytes.fromhex(one) for one in spec.keys]

    async def check(request: Request) -> None:
        path = request.url.path
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


async def _expected(request: Request, error: Exception) -> Response:
    assert isinstance(error, VizslaError)
    answered = problems.of(error)
    if request.url.path.startswith("/v2"):  # where clients of the protocol look for it
        answered.body = answered.render(orjson.loads(answered.body) | {"error": error.what})
        answered.headers["content-length"] = str(len(answered.body))
    return answered


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answered = problems.answer(error.status_code, "refused", str(error.detail))
    answered.headers.update(error.headers or {})
    return answered


async def _nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


async def _defect(request: Request, error: Exception) -> Response:
    return problems.answer(500, "defect", "This is a defect of Vizsla; the service's log has the traceback.")
