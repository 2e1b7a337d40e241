"""The curves of runs, on a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vizsla.client import things
from vizsla.client.server import Server
from vizsla.training.history import Curves, Series


def get(server: Server, reference: str, *, points: int = 500, since: int = 0, series: Sequence[str] = ()) -> Curves:
    """See `vizsla.api.history.get`."""
    place = things.at(server, "run", reference, "history")
    found = server.get(*place, points=points, since=since, series=list(series))
    return Curves([_series(one) for one in found["series"]], int(found["next"]), found["undone_after"])


def _series(told: dict[str, Any]) -> Series:
    """A curve; what was not told of a point is no number, as it is where it was written."""
    columns = {name: np.array(told[name], dtype=float) for name in ("epoch", "elapsed_s", "value")}
    return Series(told["name"], np.array(told["step"], dtype=np.int64), **columns, num_points=told["num_points"])
