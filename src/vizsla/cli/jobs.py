"""`vizsla jobs`: what is in the queue, and why it waits."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated

from cyclopts import App, Parameter

from vizsla.api import jobs, logs
from vizsla.cli.options import Common, count
from vizsla.cli.output import (
    err,
    facts,
    next_step,
    out,
    print_error,
    print_json,
    printable,
    safe,
    say_more,
    state,
    table,
)
from vizsla.cli.plot import sparkline
from vizsla.cli.queued import as_json
from vizsla.jobs.schedule import HOST
from vizsla.machine.usage import Sample
from vizsla.store.rows import Job
from vizsla.words import num_bytes, seconds

app = App(name="jobs", help="List, show, stop and look after the work in the queue.")


@app.command(name="list")
def list_(
    *,
    limit: Annotated[int, Parameter(help="Jobs to show at most.", converter=count)] = 50,
    common: Common = Common(),
) -> None:
    """List the work in the queue and what has ended last: its state, its devices, and why it waits."""
    with common.open() as ws:
        found = jobs.list_all(ws, limit=limit)
        keeper = jobs.keeper_of(ws)
    if common.json:
        print_json([as_json(job) for job in found])
        return
    if not found:
        out.print("The queue is empty.")
        next_step(["vizsla", "train", "DATASET"], "Train a network on a dataset:")
        return
    columns = ("job", "work", "state", "since", "on", "why")
    out.print(table(columns, [_row(job) for job in found], right=("since",)))
    say_more(len(found), limit, which="that matter most")
    if keeper is None and any(job.state == "queued" for job in found):
        next_step(
            ["vizsla", "jobs", "keep"],
            "What is queued starts while some command waits for its own work. To start it in any case:",
        )


@app.command
def keep(*, common: Common = Common()) -> None:
    """Look after the queue until Ctrl-C: start what there are devices for, and go on with what was killed.

    Commands that wait for their work look after the queue too, and so does a process that `--detach` leaves behind.
    This one does not end when the queue is empty, so it is the one to start with the machine.
    """
    with common.open_here(why="A server looks after its queue itself.") as ws:
        root = safe(ws.root)

        def say() -> None:
            if not common.json:
                err.print(f"Looking after the queue of {root}. Ctrl-C ends that; what is at work goes on.")

        with contextlib.suppress(KeyboardInterrupt):
            jobs.keep(ws, say)


@app.command
def show(name: str, /, *, common: Common = Common()) -> None:
    """Show a job: its state, every state that it was in, and why.

    Args:
        name: Id of a job or its beginning, or the name of a run, dataset, model or evaluation.
    """
    with common.open() as ws:
        job, history = jobs.get(ws, name)
        used = jobs.usage(ws, job.id)
    if common.json:
        samples = [sample.model_dump(mode="json") for sample in used]
        print_json(as_json(job) | {"history": [change._asdict() for change in history], "usage": samples})
        return
    out.print(f"\n[bold]{job.kind} {safe(job.name)}[/]  [dim]job {job.id}[/]  {state(job.state)}")
    pairs: list[tuple[str, object]] = [
        ("owner", safe(job.owner)),
        ("priority", job.priority),
        ("started", f"{job.attempt} of at most {job.retries + 1} times"),
    ]
    if devices := [device for device in job.held if device != HOST]:
        pairs.append(("on", ", ".join(devices)))
    if job.state == "queued" and job.cause:
        pairs.append(("why", safe(job.cause)))
    out.print(facts(pairs + _usage(used)))
    rows = [(change.at[11:19], change.state, change.attempt or "", safe(change.cause)) for change in history]
    out.print(table((f"{history[0].at[:10]} UTC", "state", "attempt", "why"), rows))
    if job.error:
        print_error(job.error)


def _usage(samples: list[Sample]) -> list[tuple[str, object]]:
    """A line for what a job used of each part of the machine over time, with the most of it."""
    if not samples:
        return []
    cores, memory = [one.cores for one in samples], [float(one.memory_bytes) for one in samples]
    disk = [(one.read_bytes_s or 0.0) + (one.written_bytes_s or 0.0) for one in samples]
    found: list[tuple[str, object]] = [
        ("processor", f"{sparkline(cores)} at most {max(cores):.1f} cores"),
        ("memory", f"{sparkline(memory)} at most {num_bytes(max(memory))}"),
        ("disk", f"{sparkline(disk)} at most {num_bytes(max(disk))}/s; {num_bytes(samples[-1].free_disk_bytes)} free"),
    ]
    for name in dict.fromkeys(gpu.name for one in samples for gpu in one.gpus):
        cards = [gpu for one in samples for gpu in one.gpus if gpu.name == name]
        use = [gpu.use or 0.0 for gpu in cards]
        most = [f"at most {100 * max(use):.0f} % busy"]
        most += _most([gpu.memory_bytes for gpu in cards], num_bytes)
        most += _most([gpu.temperature_c for gpu in cards], lambda value: f"{value:.0f} °C")
        most += _most([gpu.power_w for gpu in cards], lambda value: f"{value:.0f} W")
        found.append((name, f"{sparkline(use, highest=1.0)} {', '.join(most)}"))
    return found


def _most(values: Sequence[float | None], say: Callable[[float], str]) -> list[str]:
    told = [value for value in values if value is not None]
    return [say(max(told))] if told else []


@app.command
def log(
    name: str,
    /,
    *,
    follow: Annotated[
        bool, Parameter(negative="", show_default=False, help="Go on until the job has ended, or Ctrl-C.")
    ] = False,
    common: Common = Common(),
) -> None:
    """Show what the worker of a job printed: what libraries say, and tracebacks. --json has an object for each line.

    Args:
        name: Id of a job or its beginning, or the name of a run, dataset, model or evaluation.
    """
    with common.open() as ws, contextlib.suppress(KeyboardInterrupt):
        for line in logs.lines(ws, name, follow=follow):
            if common.json:
                sys.stdout.write(json.dumps(line._asdict() | {"next": str(line.next)}) + "\n")
            else:
                sys.stdout.write(printable(line.text.expandtabs()) + ("" if line.goes_on else "\n"))
            sys.stdout.flush()


@app.command
def stop(
    name: str,
    /,
    *,
    at_once: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="End its process now; of a run stays what its last checkpoint holds.",
        ),
    ] = False,
    common: Common = Common(),
) -> None:
    """Stop a job: at its next safe point when it is at work, at once when it waits.

    Args:
        name: Id of a job or its beginning, or the name of a run, dataset, model or evaluation.
    """
    with common.open() as ws:
        job = jobs.stop(ws, name, at_once=at_once)
    if common.json:
        print_json(as_json(job))
    elif job.live:
        out.print(f"Asked the {job.kind} {safe(job.name)} to stop.")
    else:
        out.print(f"Took the {job.kind} {safe(job.name)} out of the queue.")


def _row(job: Job) -> tuple[object, ...]:
    since = datetime.now(UTC) - datetime.fromisoformat(job.changed_at)
    why = [f"priority {job.priority}"] if job.priority and job.live else []
    if job.cause and job.state != "running":  # there it says where
        why.append(safe(job.cause))
    return (
        job.id,
        f"{job.kind} {safe(job.name)}",
        state(job.state),
        f"{seconds(max(0.0, since.total_seconds()))}{'' if job.live else ' ago'}",
        ", ".join(device for device in job.held if device != HOST),
        ", ".join(why),
    )
