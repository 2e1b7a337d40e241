"""The logs of workers, on a server."""

from __future__ import annotations

import time
from collections.abc import Iterator

from vizsla.client.jobs import get, shown
from vizsla.client.server import Server
from vizsla.work import Line

POLL_S = 0.5


def lines(server: Server, reference: str, *, follow: bool = False) -> Iterator[Line]:
    """See `vizsla.api.logs.lines`."""
    job, after = get(server, reference).job, 0
    while True:
        live = shown(server, job.id).job.live  # looked at before the log, so that no line is missed
        while found := server.lines("jobs", job.id, "log", after=after):
            for line in found:
                after = int(line["next"])
                yield Line(line["text"], after, line["goes_on"])
        if not (live and follow):
            return
        time.sleep(POLL_S)
