"""`vizsla run history`: the curves of a run."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

from vizsla.cli.options import Common, count
from vizsla.cli.output import out, print_json, table


def history(
    name: str,
    /,
    *,
    points: Annotated[
        int, Parameter(help="Points of each curve at most, chosen to show its shape.", converter=count)
    ] = 500,
    since: Annotated[
        int, Parameter(help="Only what was added since this place, the `next` of an earlier --json.", converter=count)
    ] = 0,
    common: Common = Common(),
) -> None:
    """Show the curves of a run: loss, learning rate, accuracy, usage. --json has their points.

    Args:
        name: Id, name, or the beginning of one.
    """
    from vizsla.api import history

    with common.open() as ws:
        curves = history.get(ws, name, points=points, since=since)
    if common.json:
        print_json(json.loads(curves.json))
        return
    if not curves.series:
        out.print("There is nothing to show yet.")
        return
    rows = [
        (
            one.name,
            f"{one.num_points:,}",
            f"{one.step[-1]:,}",
            *(f"{value:.4g}" for value in (one.value[0], one.value.min(), one.value.max(), one.value[-1])),
        )
        for one in curves.series
    ]
    columns = ("curve", "points", "last step", "first", "lowest", "highest", "last")
    out.print(table(columns, rows, right=columns[1:]))
