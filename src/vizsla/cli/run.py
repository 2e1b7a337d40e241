"""`vizsla train` and `vizsla run`: train, list, show, resume, stop and delete runs."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Annotated, Any

from cyclopts import App, Parameter

from vizsla.api import jobs, runs, things
from vizsla.cli.naming import Tagged, add_notes, add_tags, say_no_tagged, show_written
from vizsla.cli.opening import own_path
from vizsla.cli.options import SHOWN, Common, Limit, count, make, with_options
from vizsla.cli.output import err, facts, next_step, out, print_json, safe, say_more, state, table
from vizsla.cli.progress import epoch_line
from vizsla.cli.queued import QueuedForGpu, attend
from vizsla.events import Event
from vizsla.training.run import Run, RunStatus
from vizsla.training.spec import GROUPS, TrainingSpec
from vizsla.words import percent, seconds

app = App(name="run", help="Preview, list, show, follow, resume, extend, clone, rename, stop and delete runs.")
app.command(
    "vizsla.cli.follow:follow",
    name="follow",
    help="Watch a run from another terminal until it ends; Ctrl-C leaves it alone.\n\n"
    "The exit status is 0 when the run is done, 130 when it was stopped, and 1 when it failed or was lost.",
)
app.command(
    "vizsla.cli.preview:preview",
    name="preview",
    help="Show what a training would be: its steps, memory, learning rate and augmented pictures. Nothing is trained.",
)
app.command("vizsla.cli.history:history", name="history", help="Show the curves of a run: loss, rate, accuracy, usage.")
app.command(
    "vizsla.cli.sweep:sweep",
    name="sweep",
    help="Train once for each pair of a learning rate and a batch size, and compare what came of it.",
)
app.command("vizsla.cli.find_rate:find_rate", name="find-rate", help="Find the learning rate to begin with.")

EXIT_STOPPED = 130
EPOCHS_SHOWN = 30


@with_options(TrainingSpec, groups=GROUPS)
def train(
    dataset: str,
    /,
    *,
    options: dict[str, Any],
    name: Annotated[str | None, Parameter(help="Name of the run. Default: made of dataset and network.")] = None,
    queued: QueuedForGpu = QueuedForGpu(),
    common: Common = Common(),
) -> int:
    """Train a network on a dataset. Ctrl-C stops at a checkpoint, or asks; `vizsla run resume` goes on from it.

    Args:
        dataset: Id or name of the dataset, or the beginning of one.
    """
    spec = make(TrainingSpec, **options | {"net": own_path(options["net"], common)})
    with common.open() as ws:
        submit = partial(runs.submit, ws, dataset, spec, name=name, job=queued.spec())
        return _finished(attend(ws, submit, runs.finish, queued, common), common)


@app.command
def resume(
    name: str,
    /,
    *,
    device: Annotated[
        str | None, Parameter(help="Go on on another device: auto, cpu, cuda, cuda:N or cuda:N,M.")
    ] = None,
    queued: QueuedForGpu = QueuedForGpu(),
    common: Common = Common(),
) -> int:
    """Go on with a run that was stopped, failed or lost, from its last checkpoint.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        before = runs.get(ws, name).run
        plan = (before.total_steps, before.spec.epochs or 0)
        submit = partial(runs.submit_resume, ws, before.id, device=device, job=queued.spec())
        return _finished(attend(ws, submit, runs.finish, queued, common, plan=plan), common)


@app.command
def extend(
    name: str,
    /,
    *,
    epochs: Annotated[int, Parameter(help="Epochs more.", converter=count)],
    device: Annotated[
        str | None, Parameter(help="Go on on another device: auto, cpu, cuda, cuda:N or cuda:N,M.")
    ] = None,
    queued: QueuedForGpu = QueuedForGpu(),
    common: Common = Common(),
) -> int:
    """Train a run that has ended for more epochs, from its last checkpoint.

    The learning rate follows the share of all epochs that is done. In a training that is made longer it therefore
    rises again, to where it would be at this epoch of a training planned for so long.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        before = runs.get(ws, name).run
        plan = (before.total_steps + epochs * before.steps_per_epoch, (before.spec.epochs or 0) + epochs)
        submit = partial(runs.submit_extend, ws, before.id, epochs, device=device, job=queued.spec())
        return _finished(attend(ws, submit, runs.finish, queued, common, plan=plan), common)


@app.command
@with_options(TrainingSpec, groups=GROUPS, given_only=True)
def clone(
    original: str,
    /,
    *,
    options: dict[str, Any],
    name: Annotated[str | None, Parameter(help="Name of the new run. Default: made of dataset and network.")] = None,
    queued: QueuedForGpu = QueuedForGpu(),
    common: Common = Common(),
) -> int:
    """Train anew on the dataset of a run, with the settings that it was asked for, but those that are given here.

    A setting that is given counts even when it is the default; `none`, as in `--epochs=none`, leaves it open again.

    Args:
        original: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        settings = runs.get(ws, original).run.asked.model_dump() | options
        settings["net"] = own_path(settings["net"], common)
        submit = partial(runs.submit_clone, ws, original, make(TrainingSpec, **settings), name=name, job=queued.spec())
        return _finished(attend(ws, submit, runs.finish, queued, common), common)


@app.command
def rename(original: str, name: str, /, *, common: Common = Common()) -> None:
    """Give a run another name.

    Args:
        original: Id, name, or the beginning of one.
        name: The new name.
    """
    with common.open() as ws:
        before = things.find(ws, original, "run").name
        status = runs.rename(ws, original, name)
    if common.json:
        print_json(as_json(status))
    else:
        out.print(f"The run {safe(before)} is now called {safe(name)}.")


add_notes(app, "run")
add_tags(app, "run")


@app.command(name="list")
def list_(*, limit: Limit = SHOWN, tag: Tagged = (), common: Common = Common()) -> None:
    """List the newest runs, the newest last."""
    with common.open() as ws:
        found = runs.list_all(ws, limit=limit, tags=tag)
        shown = {status.run.id for status in found}
        live = [job for job in jobs.live(ws) if job.kind == "run"]
        waiting = 0 if tag else sum(job.thing not in shown for job in live)
        queued = {job.thing for job in live if job.state == "queued"}
    if common.json:
        print_json([as_json(status) for status in found])
    elif not found and tag:
        say_no_tagged("run", tag)
    elif not found and not waiting:
        out.print("There are no runs yet.")
        next_step(["vizsla", "train", "DATASET"], "Train a network on a dataset:")
    else:
        columns = ("name", "id", "state", "epoch", "best val accuracy (95 %)", "n", "time")
        out.print(table(columns, [_row(status, queued) for status in found], right=("epoch", "n", "time")))
        say_more(len(found), limit)
        if waiting:
            why = f"{waiting} more {'is' if waiting == 1 else 'are'} in the queue:"
            next_step(["vizsla", "jobs", "list"], why)


@app.command
def show(name: str, /, *, common: Common = Common()) -> None:
    """Show a run: its settings, its epochs and where it lies.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        status = runs.get(ws, name)
        epochs = runs.epochs(ws, status.run.id)
        job = jobs.live_of(ws, status.run.id)
        if common.json:
            print_json(as_json(status) | {"epochs": epochs})
            return
        show_run(status)
        show_written(ws, "run", status.run.id)
    shown = epochs[-EPOCHS_SHOWN:]
    if len(shown) < len(epochs):
        out.print(f"[dim]… {len(epochs) - len(shown)} epochs before[/]")
    for epoch in shown:
        out.print(epoch_line(epoch, status.run.spec.epochs or 0), soft_wrap=True)
    if job is not None and status.progress.state != "running":
        out.print(f"It is in the queue to go on: {safe(job.cause or job.state)}.", soft_wrap=True)
        next_step(["vizsla", "run", "follow", status.run.name], "Look after the queue, and see how it goes:")
    else:
        suggest(status)


@app.command
def events(name: str, /, *, common: Common = Common()) -> None:
    """Print everything that happened in a run, one JSON object a line: steps, epochs, also what was undone later.

    Args:
        name: Id, name, or the beginning of one.
    """
    found: list[Event] = []
    with common.open() as ws:
        id = things.find(ws, name, "run").id
        after = 0
        while (part := runs.events(ws, id, after)).next != after:
            after = part.next
            if common.json:
                found += part.events
            else:
                sys.stdout.writelines(json.dumps(event) + "\n" for event in part.events)
    if common.json:
        print_json(found)


@app.command
def stop(name: str, /, *, common: Common = Common()) -> None:
    """Ask a running run to stop at a checkpoint.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        entry = runs.stop(ws, name)
        job = jobs.live_of(ws, entry.id)
    if common.json:
        print_json({"stopping": entry.id})
    elif job is None:
        out.print(f"Took the run {safe(entry.name)} out of the queue.")
    else:
        out.print(f"Asked the run {safe(entry.name)} to stop at a checkpoint.")


@app.command
def delete(name: str, /, *, common: Common = Common()) -> None:
    """Delete a run with its checkpoints; refused while models, evaluations or runs were made from it.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        entry = runs.delete(ws, name)
    if common.json:
        print_json({"deleted": entry.id})
    else:
        out.print(f"Deleted the run {safe(entry.name)} ({entry.id}).")


def as_json(status: RunStatus) -> dict[str, Any]:
    """A run and its progress as one JSON object."""
    return {
        "run": status.run.model_dump(mode="json"),
        "progress": status.progress._asdict(),
        "folder": str(status.folder),
    }


def show_run(status: RunStatus) -> None:
    """Print a run: what was trained on what, how, and what came of it."""
    run, progress = status.run, status.progress
    spec = run.spec
    out.print(f"\n[bold]{safe(run.name)}[/]  [dim]{run.id}[/]  {state(progress.state)}")
    epoch = progress.last_epoch["epoch"] if progress.last_epoch else 0
    source = safe(run.weights.source) if run.weights else "none: trained from scratch"
    rate = f"{spec.optimizer}, learning rate {spec.learning_rate:g}, {spec.schedule}"
    pairs: list[tuple[str, object]] = [
        ("dataset", f"{safe(run.dataset.name)}, {run.num_train:,} train + {run.num_val:,} val pictures"),
        ("network", f"{safe(run.network)}, {run.num_parameters:,} parameters, tuned: {spec.tune}"),
        ("pretrained weights", source),
        ("settings", f"batch {spec.batch_size}, {rate}, seed {spec.seed}"),
        ("device", _devices(run)),
        *((("asked for", safe(_asked(run))),) if _asked(run) else ()),
        ("progress", f"epoch {epoch} of {spec.epochs}, {seconds(progress.elapsed_s)}"),
        *(((f"best of val, epoch {progress.best['best_epoch']:g}", _figure(progress.best)),) if progress.best else ()),
        ("lies in", safe(status.folder)),
    ]
    out.print(facts(pairs))
    if progress.error:
        out.print(f"[red]Failed:[/] {safe(progress.error['what'])} {safe(progress.error['remedy'])}", soft_wrap=True)


def _figure(event: dict[str, Any]) -> str:
    accuracy = event["best_accuracy"]
    return f"{percent(accuracy)} of {accuracy['num_pictures']:,} pictures, at step {event['best_step']:,}"


def _asked(run: Run) -> str:
    """The settings that were given and are no default, beside those that have a line of their own."""
    shown = {"net", "tune", "weights", "batch_size", "optimizer", "learning_rate", "schedule", "seed", "epochs"}
    given = run.asked.model_dump(exclude_defaults=True, exclude=shown)
    return ", ".join(f"{name} {value}" for name, value in given.items())


def _devices(run: Run) -> str:
    how = run.arithmetic
    kind = ", ".join((how.precision, "channels last" if how.channels_last else "channels first"))
    extra = (", compiled" if how.compiled else "") + (", fused optimiser" if how.fused else "")
    count = f"{len(run.devices)} processes on " if len(run.devices) > 1 else ""
    return f"{count}{', '.join(dict.fromkeys(run.devices))}: {kind}{extra} ({how.reason})"


def _finished(status: RunStatus | None, common: Common) -> int:
    if status is None:  # it goes on without this command
        return 0
    if common.json:
        print_json(as_json(status))
    elif status.progress.state == "stopped":
        err.print("Stopped at a checkpoint.")
        suggest(status)
    else:
        show_run(status)
        suggest(status)
    return EXIT_STOPPED if status.progress.state == "stopped" else 0


def suggest(status: RunStatus) -> None:
    """Say what to do next with a run: go on with it, or measure it on the pictures that there are for that."""
    run = status.run
    if status.progress.state == "running":
        return
    if status.progress.state != "done":
        next_step(["vizsla", "run", "resume", run.name], "Go on from its last checkpoint:")
    elif run.num_test:
        next_step(["vizsla", "evaluate", run.name, "--split", "test"], "Measure it on pictures it has not seen:")
    elif run.num_val:
        why = "Look closer at the val pictures (no test pictures were kept aside):"
        next_step(["vizsla", "evaluate", run.name, "--split", "val"], why)
    else:
        why = "No pictures were kept aside to measure it on. Make a model of it:"
        next_step(["vizsla", "model", "export", run.name], why)


def _row(status: RunStatus, queued: set[str]) -> tuple[object, ...]:
    run, progress = status.run, status.progress
    last = progress.last_epoch
    accuracy = percent(progress.best["best_accuracy"]) if progress.best else "–"
    return (
        safe(run.name),
        run.id,
        state("queued" if run.id in queued else progress.state),
        f"{last['epoch'] if last else 0}/{run.spec.epochs}",
        accuracy,
        f"{run.num_val:,}",
        seconds(progress.elapsed_s),
    )
