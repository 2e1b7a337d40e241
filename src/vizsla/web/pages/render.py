"""From what a route found to a page: templates, what all pages share, and errors as pages."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import jinja2
import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from markupsafe import Markup

from vizsla import words
from vizsla.errors import VizslaError
from vizsla.evaluation import html
from vizsla.web import problems
from vizsla.web.pages import assets

# Nothing but our own files runs or is loaded, and no other site shows a page in a frame.
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'"
)
COMPRESS_FROM_BYTES = 1000

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """Routes that answer with pages, also where something is wrong; compressed."""

    def get_route_handler(self) -> Handler:
        """FastAPI's own, whose errors become pages."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            # Forms also send the fields that were left empty.
            given = parse_qsl(request.scope["query_string"].decode("latin-1"))
            request = Request({**request.scope, "query_string": urlencode(given).encode()}, request.receive)
            try:
                return compressed(request, await handle(request))
            except VizslaError as error:
                return compressed(request, wrong(request, error))
            except RequestValidationError as error:
                return compressed(request, invalid(request, error))

        return handler


def render(request: Request, template: str, *, status: int = 200, twin: str = "", **context: Any) -> HTMLResponse:
    """A page.

    Args:
        twin: address of the same as JSON.
        context: what the template names.
    """
    who = getattr(request.state, "who", None)
    shared = {
        "path": request.url.path,
        "asked": asked(request),
        "twin": twin,
        "account": who.name if who and who.credential else "",
        "role": who.role if who else "",
        "version": version("vizsla"),
    }
    text = environment().get_template(template).render(shared | context)
    return HTMLResponse(text, status, headers={"Content-Security-Policy": POLICY, "Referrer-Policy": "same-origin"})


def asked(request: Request) -> dict[str, Any]:
    """What the address of a page asks for. Tags are a list, as there may be several."""
    given: dict[str, Any] = dict(request.query_params)
    return given | {"tag": request.query_params.getlist("tag")} if "tag" in given else given


def wrong(request: Request, error: VizslaError) -> HTMLResponse:
    """An expected error as a page: what, where, what to do instead."""
    status = problems.STATUS.get(error.kind, 500)
    hidden = status == 500
    return render(
        request,
        "error.html",
        status=int(status),
        what=error.what,
        where="" if hidden else error.where,
        remedy="The server's log says more." if hidden else error.remedy,
    )


def invalid(request: Request, error: RequestValidationError) -> HTMLResponse:
    """A page that was asked for in a way that cannot be, such as after a place that is none."""
    first = error.errors()[0]
    what = f"{first['loc'][-1]}: {first['msg']}"
    return render(request, "error.html", status=422, what=what, where="", remedy="Follow a link to come here.")


def compressed(request: Request, response: Response) -> Response:
    """The same answer, small where the browser takes it so."""
    takes = "gzip" in request.headers.get("accept-encoding", "")
    if takes and len(response.body) >= COMPRESS_FROM_BYTES and "content-encoding" not in response.headers:
        response.body = gzip.compress(bytes(response.body), 5)
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Content-Length"] = str(len(response.body))
        response.headers["Vary"] = "Accept-Encoding"
    return response


@cache
def environment() -> jinja2.Environment:
    """The templates. All text in them is escaped."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("vizsla.web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(static=assets.url, query=query)
    made.filters.update(
        count=count,
        percent=words.percent,
        share=share,
        seconds=words.seconds,
        num_bytes=words.num_bytes,
        large=words.large,
        moment=moment,
        part=part,
        embed=embed,
        visible=html.visible,
    )
    return made


def count(value: int | None) -> str:
    """`12,345`."""
    return "–" if value is None else f"{value:,}"


def share(value: float | None, digits: int = 1) -> str:
    """`97.3 %`."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def moment(iso: str) -> Markup:
    """A time, which the page then shows as that of the reader's clock."""
    at = datetime.fromisoformat(iso).astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(), at.strftime("%Y-%m-%d %H:%M UTC"))


def part(text: str) -> str:
    """A text as one part of a path."""
    return quote(text, safe="")


def query(**fields: object) -> str:
    """The end of an address, without what is None or empty."""
    given = {name: value for name, value in fields.items() if value not in (None, "", [])}
    return "?" + urlencode(given, doseq=True) if given else ""


def embed(value: Any) -> Markup:
    """A value as JSON inside of `<script type="application/json">`, where no text of it can end the element."""
    text = orjson.dumps(value).decode().replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(text)
