"""ETag: what a thing was like when it was asked for, so that nobody undoes what another has changed meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator

from fastapi import Request, Response

from vizsla.errors import VizslaError

_editing = threading.Lock()
"""held from looking at a thing until it is changed, where that is asked for"""


class PreconditionFailed(VizslaError):
    """A thing is not any more what the request says that it is."""

    kind = "precondition-failed"


def tag(body: bytes) -> str:
    """The ETag of a representation."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def tagged(request: Request, body: bytes) -> Response:
    """A thing as an answer with its ETag; 304 without the thing, where the request says that it has it already."""
    found = tag(body)
    known = request.headers.get("if-none-match")
    if known is not None and found in (one.removeprefix("W/") for one in _tags(known, found)):
        return Response(status_code=304, headers={"ETag": found})
    return Response(body, media_type="application/json", headers={"ETag": found})


@contextlib.contextmanager
def unchanged(request: Request, *current: Callable[[], bytes]) -> Iterator[None]:
    """Within it a thing may be changed: all of `current` is still what `If-Match` says, if the request says anything.

    Raises:
        PreconditionFailed: it is not.
    """
    wanted = request.headers.get("if-match")
    if wanted is None:
        yield
        return
    with _editing:
        for part in current:
            found = tag(part())
            if found not in _tags(wanted, found):
                raise PreconditionFailed(
                    "It has been changed since it was asked for.", where="If-Match", remedy="Get it again, then decide."
                )
        yield


def _tags(header: str, found: str) -> list[str]:
    """The ETags that a header names; for * the one that there is."""
    return [found] if header.strip() == "*" else [one.strip() for one in header.split(",")]
