"""`vizsla run sweep`: one run for each pair of a learning rate and a batch size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter

from vizsla.api import sweeps
from vizsla.api.sweeps import Tried
from vizsla.cli.opening import own_path
from vizsla.cli.options import Common, make, with_options
from vizsla.cli.output import next_step, out, print_json, safe, state, table
from vizsla.cli.queued import QueuedForGpu, attend
from vizsla.cli.queued import as_json as job_as_json
from vizsla.cli.run import EXIT_STOPPED, as_json
from vizsla.errors import InvalidInput
from vizsla.events import Event
from vizsla.jobs.waiting import OnInterrupt
from vizsla.store.rows import Job
from vizsla.training.spec import GROUPS, TrainingSpec
from vizsla.words import percent, seconds

Number = TypeVar("Number", int, float)
OnEvent = Callable[[Event], None]


@with_options(TrainingSpec, skip=("learning_rate", "batch_size"), groups=GROUPS)
def sweep(
    dataset: str,
    /,
    *,
    options: dict[str, Any],
    learning_rates: Annotated[str, Parameter(help="Learning rates to try, such as 0.1,0.01.", show_default=False)] = "",
    batch_sizes: Annotated[str, Parameter(help="Batch sizes to try, such as 16,32.", show_default=False)] = "",
    name: Annotated[
        str | None, Parameter(help="What the runs are called, with numbers. Default: made of dataset and network.")
    ] = None,
    queued: QueuedForGpu = QueuedForGpu(),
    common: Common = Common(),
) -> int:
    """Train once for each pair of a learning rate and a batch size, and compare what came of it.

    Args:
        dataset: Id or name of the dataset, or the beginning of one.
    """
    rates, sizes = _numbers(learning_rates, float, "--learning-rates"), _numbers(batch_sizes, int, "--batch-sizes")
    spec = make(TrainingSpec, **options | {"net": own_path(options["net"], common)})
    with common.open_here(why="It waits for many runs at once.") as ws:

        def finish(_: object, work: list[Job], /, on_event: OnEvent, on_interrupt: OnInterrupt) -> list[Tried]:
            return sweeps.finish(ws, work, on_event, on_interrupt)

        submit = partial(
            sweeps.submit,
            ws,
            dataset,
            spec,
            learning_rates=rates,
            batch_sizes=sizes,
            name=name,
            job=queued.spec(),
        )
        tried = attend(ws, submit, finish, queued, common)
    if tried is None:  # they go on without this command
        return 0
    if common.json:
        print_json([_as_json(one) for one in tried])
    else:
        _show(tried)
    states = {one.job.state for one in tried}
    return EXIT_STOPPED if "stopped" in states else int(states != {"done"})


def _numbers(text: str, kind: Callable[[str], Number], option: str) -> list[Number]:
    try:
        return [kind(part) for part in text.split(",")] if text.strip() else []
    except ValueError:
        raise InvalidInput(
            f"{option}: {text!r} is no list of numbers.", remedy="Put commas between them, as in 16,32."
        ) from None


def _show(tried: list[Tried]) -> None:
    columns = ("name", "learning rate", "batch size", "state", "best val accuracy (95 %)", "n", "at epoch", "time")
    out.print(table(columns, [_row(one) for one in tried], right=("learning rate", "batch size", "n", "at epoch")))
    for one in tried:
        if one.error:
            out.print(f"[red]{safe(one.job.name)}:[/] {safe(one.error.what)}", soft_wrap=True)
    best = tried[0]
    if best.status and best.accuracy >= 0:
        if len(tried) > 1:
            text = "The best of several is flattered by the choice: the pictures of val have made it."
            out.print(f"[dim]{text}[/]", soft_wrap=True)
        split = "test" if best.status.run.num_test else "val"
        next_step(["vizsla", "evaluate", best.job.name, "--split", split], "Look closer at the best one:")


def _row(one: Tried) -> tuple[object, ...]:
    if one.status is None:
        return (safe(one.job.name), "", "", state(one.job.state), "–", "", "", "")
    run, progress = one.status.run, one.status.progress
    best = progress.best
    return (
        safe(run.name),
        f"{run.spec.learning_rate:g}",
        run.spec.batch_size,
        state(one.job.state),
        percent(best["best_accuracy"]) if best else "–",
        f"{best['best_accuracy']['num_pictures']:,}" if best else "",
        f"{best['best_epoch']:g}" if best else "",
        seconds(progress.elapsed_s),
    )


def _as_json(one: Tried) -> dict[str, Any]:
    return {
        "job": job_as_json(one.job),
        "run": as_json(one.status) if one.status else None,
        "error": one.error.as_dict() if one.error else None,
    }
