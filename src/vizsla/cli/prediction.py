"""`vizsla prediction`: classify many pictures, list, show, export and delete what came out."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from vizsla import files
from vizsla.api import predictions
from vizsla.cli.naming import Tagged, add_notes, add_rename, add_tags, say_no_tagged, show_written
from vizsla.cli.opening import require_whole
from vizsla.cli.options import SHOWN, Common, Limit, count
from vizsla.cli.output import facts, next_step, out, print_json, safe, say_more, table
from vizsla.cli.queued import Queued, attend
from vizsla.cli.sending import Uploading, require_server, sent
from vizsla.errors import InvalidInput
from vizsla.models.predictions import Prediction, Row
from vizsla.words import percent

app = App(name="prediction", help="Classify many pictures, list, show, export and delete what came out.")

REASONS_SHOWN = 5


@app.command
def create(
    model: str,
    source: Path,
    /,
    *,
    name: Annotated[str | None, Parameter(help="Name of the prediction. Default: made of the model's.")] = None,
    base: Annotated[
        Path | None, Parameter(help="To which the paths of a list are relative. Default: the list's own folder.")
    ] = None,
    top: Annotated[int, Parameter(help="How many classes to keep for each picture.", converter=count)] = 5,
    upload: Uploading = False,
    queued: Queued = Queued(),
    common: Common = Common(),
) -> None:
    """Classify the pictures of a folder, of an archive or of a text list, and keep what came out.

    Args:
        model: Id or name of a model, or the beginning of one.
        source: A folder or an archive, searched to the bottom; upload:ID; or a text file with a path in each line,
            behind which the number of its class may stand, or a space or a tab and its name.
    """
    if upload:
        require_server(common)
    else:
        require_whole(common, source, base)
    job = queued.spec()
    with common.open() as ws, sent(ws, common, source) if upload else nullcontext([source]) as (found_at,):
        submit = partial(predictions.submit, ws, model, found_at, base=base, top=top, name=name, job=job)
        found = attend(ws, submit, predictions.finish, queued, common)
    if found is None:
        return
    if common.json:
        print_json(found)
        return
    show_prediction(found)
    next_step(["vizsla", "prediction", "show", found.name, "--top", "9"], "See the surest pictures of each class:")


add_rename(app, "prediction")
add_notes(app, "prediction")
add_tags(app, "prediction")


@app.command(name="list")
def list_(*, limit: Limit = SHOWN, tag: Tagged = (), common: Common = Common()) -> None:
    """List the newest predictions, the newest last."""
    with common.open() as ws:
        found = predictions.list_all(ws, limit=limit, tags=tag)
    if common.json:
        print_json(found)
    elif not found and tag:
        say_no_tagged("prediction", tag)
    elif not found:
        out.print("There are no predictions yet.")
        next_step(["vizsla", "prediction", "create", "MODEL", "FOLDER"], "Classify the pictures of a folder:")
    else:
        rows = [
            (safe(p.name), p.id, safe(p.model.name), p.num_pictures, sum(p.rejected.values()), p.created_at[:10])
            for p in found
        ]
        out.print(
            table(("name", "id", "of model", "pictures", "rejected", "made"), rows, right=("pictures", "rejected"))
        )
        say_more(len(found), limit)


@app.command
def show(
    name: str,
    /,
    *,
    top: Annotated[int, Parameter(help="So many of the surest pictures of each class too.", converter=count)] = 0,
    common: Common = Common(),
) -> None:
    """Show what came out of a prediction: how many pictures of each class, and what could not be looked at.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        found = predictions.get(ws, name)
        surest = {
            label: predictions.rows(ws, found.id, limit=top, label=label).items
            for label, num in found.classes.items()
            if num and top > 0
        }
        if not common.json:
            show_prediction(found)
            show_written(ws, "prediction", found.id)
    if common.json:
        shown = {label: [row.model_dump() for row in rows] for label, rows in surest.items()}
        print_json(found.model_dump(mode="json") | ({"surest": shown} if top > 0 else {}))
        return
    for label, rows in surest.items():
        _show_surest(label, rows)


@app.command
def export(name: str, file: Path | None = None, /, *, common: Common = Common()) -> None:
    """Write all rows of a prediction as CSV: path, label, predicted, probability, error.

    Args:
        name: Id, name, or the beginning of one.
        file: The file to write. Default: standard output.
    """
    with common.open_here(why="It writes what lies in the folder.") as ws:
        if file is None:
            predictions.write_csv(ws, name, sys.stdout)
            return
        if file.is_dir() or not file.absolute().parent.is_dir():
            raise InvalidInput("No file can be written there.", where=str(file), remedy="Name a file in a folder.")
        with files.atomic(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as opened:
            predictions.write_csv(ws, name, opened)
    if common.json:
        print_json({"written": str(file)})
    else:
        out.print(f"Written to {safe(file)}.")


@app.command
def delete(name: str, /, *, common: Common = Common()) -> None:
    """Delete a prediction; the pictures stay.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        entry = predictions.delete(ws, name)
    if common.json:
        print_json({"deleted": entry.id})
    else:
        out.print(f"Deleted the prediction {safe(entry.name)} ({entry.id}).")


def show_prediction(found: Prediction) -> None:
    """Print what came out of a prediction."""
    out.print(f"\n[bold]{safe(found.name)}[/]  [dim]{found.id}[/]")
    rejected = sum(found.rejected.values())
    pairs: list[tuple[str, object]] = [
        ("model", f"{safe(found.model.name)}, {safe(found.model.network)}, step {found.model.checkpoint}"),
        ("pictures of", safe(found.source)),
        ("pictures", f"{found.num_pictures - rejected:,} classified, {rejected:,} rejected"),
    ]
    for reason, num in list(found.rejected.items())[:REASONS_SHOWN]:
        pairs.append(("rejected", f"{num:,}: {safe(reason)}"))
    if found.accuracy:
        text = f"{percent(found.accuracy)} of the {found.accuracy['num_pictures']:,} whose class the list names"
        pairs.append(("right", text))
    out.print(facts(pairs))
    rows = [(safe(label), f"{num:,}") for label, num in found.classes.items() if num]
    out.print(table(("class", "pictures"), rows, right=("pictures",)))


def _show_surest(label: str, rows: list[Row]) -> None:
    out.print(f"\n[bold]{safe(label)}[/]")
    for row in rows:
        out.print(f"  {100 * row.scores[0].probability:5.1f} %  {safe(row.path)}", soft_wrap=True)
