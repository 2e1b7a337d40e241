"""Counting requests to a model, and keeping the model while they last."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

from starlette.exceptions import HTTPException

from vizsla.errors import VizslaError
from vizsla.serving import problems
from vizsla.serving.answering import Service
from vizsla.serving.bodies import Gone
from vizsla.serving.models import Served


@contextlib.contextmanager
def measured(service: Service, served: Served) -> Iterator[Callable[[int], None]]:
    """Around a request to a model, which is counted with the status that it is told, or else that of its error."""
    watched = service.watched[served.name, served.version]
    began, status = time.perf_counter(), 500

    def note(answered: int) -> None:
        nonlocal status
        status = answered

    watched.in_flight.inc()
    try:
        with served.used():
            yield note
    except VizslaError as error:
        status = problems.STATUS.get(error.kind, 500)
        raise
    except HTTPException as error:
        status = error.status_code
        raise
    except (Gone, asyncio.CancelledError):
        status = 499
        raise
    finally:
        watched.in_flight.dec()
        watched.seconds.observe(time.perf_counter() - began)
        watched.answered(status)
