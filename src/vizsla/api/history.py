"""The curves of runs."""

from __future__ import annotations

from collections.abc import Sequence

from vizsla import work
from vizsla.api.served import served
from vizsla.errors import InvalidInput, did_you_mean
from vizsla.store.workspace import Workspace
from vizsla.training.history import NAMES, Curves, Histories

MIN_POINTS, MAX_POINTS = 3, 50_000

_histories = Histories()
"""what this process has read of the curves of runs"""


@served
def get(ws: Workspace, reference: str, *, points: int = 500, since: int = 0, series: Sequence[str] = ()) -> Curves:
    """The curves of a run, each of at most `points` points that show its shape (see `metrics.downsample`).

    Steps that were undone by going on from a checkpoint are left out. Quick also when asked again and again.

    Args:
        since: a place in the events, the `next` of the answer before: only what has been added since. Where
            `undone_after` is not None, the points of later steps that were told before are to be forgotten.
        series: the curves wanted, from `training.history.NAMES`; all that there are when empty.

    Raises:
        NotFound: there is no such run.
        InvalidInput: the number of points, the place or a series cannot be used, or the events are damaged.
    """
    if not MIN_POINTS <= points <= MAX_POINTS:
        raise InvalidInput(f"A curve has {MIN_POINTS} to {MAX_POINTS:,} points, not {points}.", where="points")
    for name in series:
        if name not in NAMES:
            raise InvalidInput(
                f"There is no series {name[:40]!r}.",
                where="series",
                remedy=did_you_mean(name, NAMES) or f"Choose from {', '.join(NAMES)}.",
            )
    folder = ws.folder("run", ws.store.find(reference, "run").id)
    wanted = tuple(name for name in NAMES if not series or name in series)
    return _histories.of(folder / work.EVENTS).curves(points=points, since=since, names=wanted)
