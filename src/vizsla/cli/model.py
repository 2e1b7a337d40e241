"""`vizsla model` and `vizsla predict`: export, list, show and delete models, and classify pictures with them."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from vizsla import files
from vizsla.api import models
from vizsla.cli.naming import Tagged, add_notes, add_rename, add_tags, say_no_tagged, show_written
from vizsla.cli.opening import place
from vizsla.cli.options import SHOWN, Common, Limit, count
from vizsla.cli.output import facts, next_step, out, print_json, safe, say_more, table
from vizsla.cli.output import out as console
from vizsla.cli.queued import Queued, attend
from vizsla.errors import InvalidInput
from vizsla.models.card import Card
from vizsla.models.predictor import Prediction
from vizsla.words import num_bytes, percent

app = App(name="model", help="Export, list, show and delete models.")

BAR_WIDTH = 24


@app.command
def export(
    run: str,
    /,
    *,
    name: Annotated[str | None, Parameter(help="Name of the model. Default: made of the run's.")] = None,
    checkpoint: Annotated[str, Parameter(help="best, last or a step.")] = "best",
    queued: Queued = Queued(),
    common: Common = Common(),
) -> None:
    """Make a model of a run: a folder with weights, a checked ONNX graph and a card, to copy and use anywhere.

    Of a run that waits or trains it is the checkpoint that the run ends with, and is waited for.

    Args:
        run: Id or name of the run, or the beginning of one.
    """
    with common.open() as ws:
        submit = partial(models.submit, ws, run, name=name, checkpoint=checkpoint, job=queued.spec())
        card = attend(ws, submit, models.finish, queued, common)
        if card is None:
            return
        folder = place(ws, "model", card.id)
    if common.json:
        print_json(card)
        return
    show_card(card, folder)
    next_step(["vizsla", "predict", card.name, "PHOTO"], "Classify pictures with it:")


@app.command
def pack(
    name: str,
    /,
    *,
    out: Annotated[Path, Parameter(help="File to write: .zip, .tar, .tar.gz or .tar.bz2.")],
    common: Common = Common(),
) -> None:
    """Write a model as one file, to be taken elsewhere.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open_here(why="It writes a file here.") as ws:
        card = models.get(ws, name)
        path = models.pack(ws, card.id, out)
    if common.json:
        print_json({"archive": str(path), "bytes": path.stat().st_size, "sha256": files.sha256(path)})
    else:
        console.print(
            f"Wrote the model {safe(card.name)} to {safe(path)}, {num_bytes(path.stat().st_size)}.", soft_wrap=True
        )


@app.command(name="import")
def import_(
    archive: Path,
    /,
    *,
    name: Annotated[str | None, Parameter(help="Name of the model here. Default: the one that it had.")] = None,
    common: Common = Common(),
) -> None:
    """Take a model from an archive that `vizsla model pack` has written, after checking what is in it.

    Args:
        archive: The file.
    """
    with common.open_here(why="It reads a file here.") as ws:
        card = models.bring(ws, archive, name=name)
        folder = place(ws, "model", card.id)
    if common.json:
        print_json(card)
        return
    show_card(card, folder)
    next_step(["vizsla", "predict", card.name, "PHOTO"], "Classify pictures with it:")


add_rename(app, "model")
add_notes(app, "model")
add_tags(app, "model")


@app.command(name="list")
def list_(*, limit: Limit = SHOWN, tag: Tagged = (), common: Common = Common()) -> None:
    """List the newest models, the newest last."""
    with common.open() as ws:
        found = models.list_all(ws, limit=limit, tags=tag)
    if common.json:
        print_json(found)
    elif not found and tag:
        say_no_tagged("model", tag)
    elif not found:
        out.print("There are no models yet.")
        next_step(["vizsla", "model", "export", "RUN"], "Make one of a run:")
    else:
        rows = [
            (safe(c.name), c.id, safe(c.network), len(c.labels), safe(c.run.name), c.created_at[:10]) for c in found
        ]
        out.print(table(("name", "id", "network", "classes", "of run", "made"), rows, right=("classes",)))
        say_more(len(found), limit)


@app.command
def show(name: str, /, *, common: Common = Common()) -> None:
    """Show the card of a model: figures, lineage, licence of its weights, and where it lies.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        card = models.get(ws, name)
        if common.json:
            print_json(card)
        else:
            show_card(card, place(ws, "model", card.id))
            show_written(ws, "model", card.id)


@app.command
def delete(name: str, /, *, common: Common = Common()) -> None:
    """Delete a model; refused while evaluations, predictions or runs were made from it.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        entry = models.delete(ws, name)
    if common.json:
        print_json({"deleted": entry.id})
    else:
        out.print(f"Deleted the model {safe(entry.name)} ({entry.id}).")


def predict(
    model: str,
    /,
    *pictures: Path,
    top: Annotated[int, Parameter(help="How many classes to name for each picture.", converter=count)] = 5,
    common: Common = Common(),
) -> int:
    """Classify pictures with a model. The exit status is 1 when a picture could not be read.

    Args:
        model: Id or name of a model, or the beginning of one, or the path of a model folder.
        pictures: Picture files.
    """
    if folder := next((path for path in pictures if path.is_dir()), None):
        raise InvalidInput(
            "This is a folder.",
            where=str(folder),
            remedy=f"Classify all that is in it with `vizsla prediction create {shlex.join([model, str(folder)])}`.",
        )
    with common.open_here(why="It classifies with a model of this machine.") as ws:
        found = list(models.predict(ws, model, pictures, top=top))
    if common.json:
        print_json([_as_json(prediction) for prediction in found])
    else:
        for prediction in found:
            print_prediction(prediction)
    return int(any(prediction.error for prediction in found))


def print_prediction(prediction: Prediction) -> None:
    """Print the classes that a model sees in a picture, as bars."""
    out.print(f"\n[bold]{safe(prediction.picture)}[/]", soft_wrap=True)
    if prediction.error:
        out.print(f"  [red]{safe(prediction.error.what)}[/]")
    for score in prediction.scores:
        bar = "█" * round(score.probability * BAR_WIDTH)
        out.print(
            f"  {100 * score.probability:5.1f} %  [cyan]{bar:<{BAR_WIDTH}}[/]  {safe(score.label)}", soft_wrap=True
        )


def _as_json(prediction: Prediction) -> dict[str, Any]:
    return {
        "picture": prediction.picture,
        "scores": [score._asdict() for score in prediction.scores],
        "error": prediction.error.as_dict() if prediction.error else None,
    }


def show_card(card: Card, folder: str) -> None:
    """Print the card of a model."""
    out.print(f"\n[bold]{safe(card.name)}[/]  [dim]{card.id}[/]")
    pre = card.preprocess
    pairs: list[tuple[str, object]] = [
        ("network", f"{safe(card.network)}, {card.num_parameters:,} parameters, {len(card.labels):,} classes"),
        ("takes", f"{pre.width} x {pre.height} px {'grey' if pre.channels == 1 else 'colour'} pictures, {pre.resize}"),
        ("made of", f"run {safe(card.run.name)} at step {card.run.checkpoint}, dataset {safe(card.dataset.name)}"),
        ("weights' licence", safe(card.weights.licence) if card.weights else "trained from scratch: yours"),
    ]
    if card.imported:
        there = card.imported
        pairs.append(("came from", f"an archive of model {safe(there.name)} ({safe(there.id)}), {there.at[:10]}"))
    for figure in card.figures:
        accuracy = figure["accuracy"]
        when = "" if figure["evaluation"] else f", while training in {figure['precision']}"
        text = (
            f"{percent(accuracy)} on {accuracy['num_pictures']:,} {figure['split']} pictures ({figure['role']}{when})"
        )
        pairs.append(("accuracy", text))
    parity = card.parity
    seen = f"{parity.num_pictures} {parity.split} pictures"
    text = f"torch and ONNX differ by at most {parity.largest_difference:.1e} on {seen}"
    pairs += [("checked", text), ("lies in", safe(folder))]
    out.print(facts(pairs))
