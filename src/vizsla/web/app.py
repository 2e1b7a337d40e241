"""The server's app: routes, errors, what it lets through, and the thread that looks after the queue."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from vizsla import files
from vizsla.api import keeper, uploads
from vizsla.datasets.upload import MAX_BYTES
from vizsla.jobs.pool import Pool
from vizsla.store.workspace import Workspace
from vizsla.web import auth, insight, metrics, problems
from vizsla.web.attempts import Attempts
from vizsla.web.bounded import Bounded
from vizsla.web.guard import Guard
from vizsla.web.kept import Kept
from vizsla.web.links import Fetch, LinkedPictures, Links
from vizsla.web.live import Live
from vizsla.web.once import Keys
from vizsla.web.pages import site
from vizsla.web.routes import (
    accounts,
    compare,
    datasets,
    evaluations,
    find,
    folders,
    jobs,
    live,
    machine,
    models,
    networks,
    predictions,
    queue,
    runs,
    services,
    tags,
)
from vizsla.web.routes import uploads as upload_routes
from vizsla.web.tails import Followed

NOUNS = (
    datasets,
    runs,
    compare,
    evaluations,
    models,
    predictions,
    services,
    jobs,
    queue,
    tags,
    find,
    folders,
    networks,
    machine,
    upload_routes,
    live,
)
# A turn takes a moment; one that waits for a database that is busy, longer.
TURNED_S = 60
SWEEP_EVERY_S = 3600


def create_app(
    ws: Workspace,
    held: files.Lock,
    *,
    allowed: Sequence[Path] = (),
    proxied: bool = False,
    max_upload_bytes: int = MAX_BYTES,
    fetch: Fetch | None = None,
    closing: Callable[[], bool] = lambda: False,
) -> FastAPI:
    """The app of a server on a workspace, which also looks after its queue.

    Args:
        held: what `keeper.take` gave.
        allowed: folders below which a request may name files to read.
        proxied: the word of a proxy is taken on where requests come from.
        max_upload_bytes: of one upload.
        fetch: gets the bytes of pictures that requests name by links; without it such requests are refused.
        closing: whether the server is to end: answers that go on for long end then.
    """
    app = FastAPI(
        title="Vizsla",
        version=version("vizsla"),
        openapi_url="/api/v1/openapi.json",
        # Its pages fetch their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        responses=problems.PROBLEMS,
    )
    app.state.workspace = ws
    app.state.held = held
    app.state.allowed = tuple(folder.resolve() for folder in allowed)
    app.state.max_upload_bytes = max_upload_bytes
    app.state.links = Links(fetch) if fetch is not None else None
    app.state.requests = metrics.Requests()
    app.state.attempts = Attempts()
    app.state.has_accounts = False
    app.state.pool = Pool()
    app.state.insight = Pool(insight.MODULE, workers=1, line=8, idle_s=120.0)
    app.state.predictions = metrics.Predictions(app.state.requests.registry)
    app.state.kept = Kept()
    app.state.live = Live()
    app.state.followed = Followed()
    app.state.keys = Keys()
    app.state.closing = closing
    ws.store.answers.give_up_all()  # nobody else answers on this workspace
    problems.install(app)
    app.openapi = partial(problems.describe, app, (LinkedPictures,))  # type: ignore[method-assign]
    app.add_middleware(Bounded)
    # The last is the first to see a request.
    app.add_middleware(Guard, ws=ws, requests=app.state.requests, proxied=proxied)
    _add_routes(app)
    return app


def _add_routes(app: FastAPI) -> None:
    api = APIRouter(prefix="/api/v1")
    for noun in NOUNS:
        api.include_router(noun.router, dependencies=[Depends(auth.by_method)])
    api.include_router(accounts.router)
    app.include_router(api)
    site.install(app)
    app.add_api_route("/healthz", _alive, include_in_schema=False)
    app.add_api_route("/readyz", _ready, include_in_schema=False)
    app.add_api_route("/metrics", _metrics, include_in_schema=False, response_class=PlainTextResponse)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Look after the queue in a thread; work that is under way outlives the server."""
    wanted = threading.Event()
    wanted.set()
    swept_at = -SWEEP_EVERY_S

    def turned() -> None:
        nonlocal swept_at
        app.state.turned_at = time.monotonic()
        if app.state.turned_at - swept_at > SWEEP_EVERY_S:
            swept_at = app.state.turned_at
            uploads.sweep(app.state.workspace)

    thread = threading.Thread(
        target=keeper.keep,
        args=(app.state.workspace, app.state.held),
        kwargs={"wanted": wanted.is_set, "on_turn": turned},
        name="keeper",
    )
    app.state.turned_at = time.monotonic()
    thread.start()
    try:
        async with app.state.live.reading():
            yield
    finally:
        wanted.clear()
        app.state.pool.close()
        app.state.insight.close()
        thread.join()


async def _alive() -> dict[str, str]:
    return {"status": "alive"}


def _ready(request: Request) -> Response:
    """Ready when the database answers and the queue is looked after."""
    try:
        request.app.state.workspace.store.jobs.newest(1)
    except Exception as error:
        return problems.answer(503, "not-ready", f"The database does not answer: {type(error).__name__}.")
    if time.monotonic() - request.app.state.turned_at > TURNED_S:
        return problems.answer(503, "not-ready", "The queue is not looked after: see the server's log.")
    return JSONResponse({"status": "ready"})


def _metrics(request: Request) -> Response:
    return PlainTextResponse(metrics.text(request.app), media_type=metrics.MEDIA_TYPE)
