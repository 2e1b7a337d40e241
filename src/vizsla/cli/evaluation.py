"""`vizsla evaluate` and `vizsla evaluation`: measure runs and models, list, show and delete the reports."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Literal

from cyclopts import App, Parameter

from vizsla.api import evaluations
from vizsla.cli.naming import Tagged, add_notes, add_rename, add_tags, say_no_tagged, show_written
from vizsla.cli.opening import place
from vizsla.cli.options import SHOWN, Common, Limit
from vizsla.cli.output import facts, next_step, out, print_json, safe, say_more, table
from vizsla.cli.queued import QueuedForGpu, attend
from vizsla.evaluation.report import Figure, Report
from vizsla.words import percent, seconds

app = App(name="evaluation", help="List, show and delete evaluations.")

TITLES = {
    "accuracy": "accuracy",
    "top5": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auc": "area under the ROC curve",
}
WORST_SHOWN = 5


def evaluate(
    subject: str,
    /,
    *,
    split: Annotated[Literal["train", "val", "test"], Parameter(help="The pictures to measure on.")] = "test",
    checkpoint: Annotated[str, Parameter(help="Of a run: best, last or a step.")] = "best",
    name: Annotated[str | None, Parameter(help="Name of the evaluation. Default: made of subject and split.")] = None,
    queued: QueuedForGpu = QueuedForGpu(),
    common: Common = Common(),
) -> None:
    """Measure a run or a model on a split of its dataset: figures with intervals, mistakes, and a report to look at.

    Of a run that waits or trains it is the checkpoint that the run ends with, and is waited for.

    Args:
        subject: Id or name of a run or a model, or the beginning of one.
    """
    with common.open() as ws:
        submit = partial(
            evaluations.submit, ws, subject, split=split, checkpoint=checkpoint, name=name, job=queued.spec()
        )
        report = attend(ws, submit, evaluations.finish, queued, common)
        if report is None:
            return
        folder = place(ws, "evaluation", report.id)
    if common.json:
        print_json(report)
        return
    show_report(report, folder)
    if report.subject.kind == "run":
        next_step(["vizsla", "model", "export", report.subject.name], "Make a model of it, to use anywhere:")


add_rename(app, "evaluation")
add_notes(app, "evaluation")
add_tags(app, "evaluation")


@app.command(name="list")
def list_(*, limit: Limit = SHOWN, tag: Tagged = (), common: Common = Common()) -> None:
    """List the newest evaluations, the newest last."""
    with common.open() as ws:
        found = evaluations.list_all(ws, limit=limit, tags=tag)
    if common.json:
        print_json(found)
    elif not found and tag:
        say_no_tagged("evaluation", tag)
    elif not found:
        out.print("There are no evaluations yet.")
        next_step(["vizsla", "evaluate", "RUN", "--split", "test"], "Measure a run:")
    else:
        rows = [
            (
                safe(r.name),
                r.id,
                safe(r.subject.name),
                r.split,
                r.num_pictures,
                percent(r.headline["accuracy"].model_dump()),
            )
            for r in found
        ]
        columns = ("name", "id", "of", "split", "pictures", "accuracy (95 %)")
        out.print(table(columns, rows, right=("pictures",)))
        say_more(len(found), limit)


@app.command
def show(name: str, /, *, common: Common = Common()) -> None:
    """Show an evaluation: figures with their intervals, the worst classes, and where the report lies.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        report = evaluations.get(ws, name)
        if common.json:
            print_json(report)
        else:
            show_report(report, place(ws, "evaluation", report.id))
            show_written(ws, "evaluation", report.id)


@app.command
def delete(name: str, /, *, common: Common = Common()) -> None:
    """Delete an evaluation.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        entry = evaluations.delete(ws, name)
    if common.json:
        print_json({"deleted": entry.id})
    else:
        out.print(f"Deleted the evaluation {safe(entry.name)} ({entry.id}).")


def show_report(report: Report, folder: str) -> None:
    """Print what an evaluation found."""
    out.print(f"\n[bold]{safe(report.subject.name)}[/] on [bold]{safe(report.dataset.name)}[/]  [dim]{report.id}[/]")
    out.print(
        f"{report.num_pictures:,} pictures of the {report.split} split ({report.split_role}), "
        f"checkpoint of step {report.subject.checkpoint}, {seconds(report.seconds)}\n"
    )
    figures = [(TITLES.get(key, key), percent(figure.model_dump())) for key, figure in report.headline.items()]
    out.print(facts([*figures, ("calibration error", f"{report.calibration_error:.3f}")]))
    seen = [c for c in report.per_class if c.support]
    worst = sorted(seen, key=lambda c: c.f1.value if c.f1 else 0.0)[:WORST_SHOWN]
    rows = [(safe(c.label), *map(_in_short, (c.precision, c.recall, c.f1)), c.support) for c in worst]
    columns = ("weakest classes", "precision, %", "recall, %", "F1, %", "pictures")
    out.print(table(columns, rows, right=columns[1:], whole=columns[1:]))
    out.print("[dim]in brackets: 95 % interval, of each figure by itself[/]")
    for warning in report.warnings:
        out.print(f"[yellow]Note:[/] {safe(warning)}", soft_wrap=True)
    page = folder if "://" in folder else f"{folder}/report.html"
    out.print(f"[dim]report to look at:[/] {safe(page)}", soft_wrap=True)


def _in_short(figure: Figure | None) -> str:
    """As short as three of them in a line have to be: `58.1 (35–78)`, the bounds rounded outwards."""
    if figure is None:
        return "–"
    return f"{100 * figure.value:.1f} ({math.floor(100 * figure.low)}–{math.ceil(100 * figure.high)})"
