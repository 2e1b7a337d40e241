"""`vizsla run find-rate`: which learning rate to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from vizsla.api import trials
from vizsla.cli.opening import own_path
from vizsla.cli.options import Common, given, make, with_options
from vizsla.cli.output import facts, next_step, out, print_json, safe
from vizsla.cli.progress import Bars
from vizsla.cli.queued import Waited
from vizsla.training.spec import GROUPS, TrainingSpec


@with_options(TrainingSpec, groups=GROUPS)
def find_rate(
    dataset: str,
    /,
    *,
    options: dict[str, Any],
    folder: Annotated[
        Path | None, Parameter(name="--out", help="Folder for rates.json and a chart; it is made if need be.")
    ] = None,
    waited: Waited = Waited(),
    common: Common = Common(),
) -> None:
    """Find the learning rate to begin with, by a short training in which it rises until the loss grows.

    Args:
        dataset: Id or name of the dataset, or the beginning of one.
    """
    spec = make(TrainingSpec, **options | {"net": own_path(options["net"], common)})
    with common.open_here(why="It looks at a workspace of this machine.") as ws, Bars(quiet=common.json) as bars:
        found = trials.find_rate(ws, dataset, spec, out=folder, job=waited.spec(), on_event=bars.event)
    if common.json:
        print_json(found.model_dump(mode="json"))
        return
    best = min(found.points, key=lambda point: point.loss)
    pairs: list[tuple[str, object]] = [
        ("loss is half way down at", f"{found.suggested:.1e}"),
        ("loss is lowest at", f"{best.rate:.1e} ({best.loss:.3f}, on {found.num_pictures:,} pictures of train)"),
    ]
    if folder is not None:
        pairs.append(("chart", safe(folder / "rates.png")))
    out.print(facts(pairs))
    wanted = spec.model_copy(update={"learning_rate": float(f"{found.suggested:.1e}")})
    next_step(["vizsla", "train", dataset, *given(wanted)], "Train with it:")
