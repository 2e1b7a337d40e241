"""Verbs on models."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from vizsla import files, work
from vizsla.api import evaluations, parents, workspace
from vizsla.api.served import served
from vizsla.client.server import Server
from vizsla.errors import Conflict, InvalidInput, NotFound
from vizsla.evaluation.report import Figure
from vizsla.events import Event, ignore_event, now
from vizsla.jobs import follow, launch, queue
from vizsla.jobs.launch import interruptions
from vizsla.jobs.schedule import BESIDE
from vizsla.jobs.spec import JobSpec
from vizsla.jobs.waiting import OnInterrupt, to_stop
from vizsla.models import archive
from vizsla.models.card import CARD, GRAPH, LABELS, WEIGHTS, Card, Imported, Request, check_file, open_model
from vizsla.models.predictor import Prediction, Predictor
from vizsla.store.rows import Entry, Job
from vizsla.store.workspace import Workspace
from vizsla.training.run import find_checkpoint

CHECK_S = 120.0
"""how long the graph of a model that comes in an archive may compute: it may be made to go on for ever"""


def export(
    ws: Workspace | Server,
    run: str,
    *,
    name: str | None = None,
    checkpoint: str = "best",
    job: JobSpec = JobSpec(),
    on_event: Callable[[Event], None] = ignore_event,
) -> Card:
    """Make a model of a run's checkpoint: a folder with its card, weights and a checked ONNX graph.

    Args:
        checkpoint: "best", "last" or a step. Of a run that waits or trains, "best" and "last" are those that it ends
            with: the export waits until then.

    Raises:
        ExportFailed: torch and ONNX do not agree, or torch cannot make the graph.
        NotFound: the run has no such checkpoint.
        Conflict: the run was stopped, or failed, before the export could begin.
    """
    with interruptions():
        return finish(ws, submit(ws, run, name=name, checkpoint=checkpoint, job=job), on_event)


@served
def finish(
    ws: Workspace,
    job: Job,
    on_event: Callable[[Event], None] = ignore_event,
    on_interrupt: OnInterrupt = to_stop,
) -> Card:
    """Wait for the end of an export that was put into the queue; see `runs.finish`."""
    follow.wait(ws, job, on_event, on_interrupt=on_interrupt)
    return get(ws, job.thing)


@served
def submit(
    ws: Workspace, run: str, *, name: str | None = None, checkpoint: str = "best", job: JobSpec = JobSpec()
) -> Job:
    """Put an export into the queue, as `export` does, and return at once."""
    parent = ws.store.find(run, "run")
    source = parents.checkpoint_of(ws, parent, checkpoint)
    name = name or ws.store.free_name("model", parent.name)
    with workspace.claim(ws, "model", name, parents=[parent.id]) as claim:
        request = Request(
            id=claim.entry.id,
            name=name,
            created_at=claim.entry.created_at,
            run_folder=source.folder,
            dataset_folder=ws.folder("dataset", source.dataset),
            checkpoint=source.checkpoint,
            figures=tuple(_figures(ws, parent.id, source.checkpoint)),
        )
        files.write_json(claim.folder / work.REQUEST, request.model_dump(mode="json"))
        return queue.submit(ws, claim.entry, BESIDE, job, needed=source.needed)


def _figures(ws: Workspace, run_id: str, checkpoint: str) -> list[dict[str, object]]:
    """The headline figures of every evaluation that was made of a step of a run."""
    return [
        {
            "split": report.split,
            "role": report.split_role,
            "accuracy": report.headline["accuracy"].model_dump(),
            "precision": "fp32",
            "evaluation": report.id,
        }
        for report in evaluations.of(ws, run_id)
        if report.subject.checkpoint == checkpoint
    ]


def pack(ws: Workspace, reference: str, out: Path) -> Path:
    """Write a model as one file; the ending of its name says the format: .zip, .tar, .tar.gz or .tar.bz2.

    Raises:
        NotFound: there is no such model.
        InvalidInput: the ending is another, or the model has been changed since it was exported.
        Conflict: there is such a file.
    """
    format = archive.format_of(out)
    return archive.write(pieces(ws, reference, format), out)


def pieces(ws: Workspace, reference: str, format: archive.Format) -> Iterator[bytes]:
    """A model as an archive, piece by piece; see `archive.pieces`."""
    return archive.pieces(ws.folder("model", ws.store.find(reference, "model").id), format)


def file(ws: Workspace, reference: str, name: str) -> Path:
    """Where a file of a model lies, after checking that it is the file that was exported.

    Raises:
        NotFound: there is no such model.
        InvalidInput: it is none of its files, or has been changed.
    """
    folder = workspace.finished(ws, "model", reference)
    return check_file(folder, open_model(folder), name)


def bring(ws: Workspace, path: Path, *, name: str | None = None) -> Card:
    """Take a model from an archive that `pack` has written, perhaps elsewhere.

    Its files have to be those of its card, and the graph is computed once; see `vizsla.models.check`.

    Args:
        name: of the model here; by default the one that it had.

    Raises:
        InvalidInput: the archive holds no whole model, or anything else.
        Conflict: the name is taken.
        Busy: the graph takes longer than `CHECK_S`, or much else is asked.
    """
    if not path.is_file():
        raise NotFound("There is no such file.", where=str(path), remedy="Check the path.")
    (ws.root / "cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ws.root / "cache", prefix="import-") as temporary:
        unpacked = Path(temporary)
        archive.unpack(path, unpacked)
        card = open_model(unpacked)
        if set(card.files) != {GRAPH, WEIGHTS, LABELS}:
            raise InvalidInput(
                "The card names other files than those of a model.", where=str(path), remedy="Pack it again."
            )
        for part in card.files:
            check_file(unpacked, card, part)
        _check_figures(card)
        launch.ask("vizsla.models.check", {"folder": str(unpacked)}, timeout_s=CHECK_S)
        with workspace.claim(ws, "model", name or card.name) as claim:
            for part in card.files:
                (unpacked / part).rename(claim.folder / part)
            entry = claim.entry
            came = Imported(id=card.id, name=card.name, created_at=card.created_at, at=now(), sha256=files.sha256(path))
            changed = {"id": entry.id, "name": entry.name, "created_at": entry.created_at, "imported": came}
            files.write_json(claim.folder / CARD, card.model_copy(update=changed).model_dump(mode="json"))
    return get(ws, claim.entry.id)


class _Headline(BaseModel):
    """A figure on a card."""

    split: str
    role: str
    accuracy: Figure
    evaluation: str | None


def _check_figures(card: Card) -> None:
    try:
        TypeAdapter(tuple[_Headline, ...]).validate_python(card.figures)
    except ValidationError as error:
        raise InvalidInput(
            f"The figures of the card are damaged: {error.errors()[0]['msg']}.", where=CARD, remedy="Pack it again."
        ) from None


def predict(ws: Workspace, model: str, pictures: Sequence[Path | bytes], *, top: int = 5) -> Iterator[Prediction]:
    """Classify pictures with a model; one that cannot be read fails alone.

    Args:
        model: id, name or beginning of one, or the path of a model folder from anywhere.
        top: how many classes each prediction names.
    """
    if not pictures:
        raise InvalidInput("There is no picture to classify.", remedy="Name one or more picture files.")
    return _predictor(ws, model).predict(pictures, top=top)


def _predictor(ws: Workspace, model: str) -> Predictor:
    path = Path(model)
    if "/" in model and path.is_dir():
        return Predictor(path)
    return Predictor(ws.folder("model", ws.store.find(model, "model").id))


def newest_of(ws: Workspace, run: str, checkpoint: str | None = None) -> Card:
    """The card of the newest model that was made of a run, or of one of its checkpoints: "best", "last" or a step.

    Raises:
        NotFound: the run has no such checkpoint.
        Conflict: no model was made of it yet.
    """
    parent = ws.store.find(run, "run")
    step = None if checkpoint is None else find_checkpoint(ws.folder("run", parent.id), checkpoint).step
    for row in reversed(ws.store.children(parent.id)):
        if row.kind == "model" and ws.is_finished("model", row.id):
            card = get(ws, row.id)
            if step in (None, card.run.checkpoint):
                return card
    of = f"the run {parent.name!r}" if step is None else f"step {step} of the run {parent.name!r}"
    command = shlex.join(["vizsla", "model", "export", parent.name, "--checkpoint", checkpoint or "best"])
    raise Conflict(f"There is no model of {of} yet.", remedy=f"Make one: POST /api/v1/models, or {command}")


@served
def get(ws: Workspace, reference: str) -> Card:
    """The card of the model of this id, name or beginning of one."""
    return open_model(workspace.finished(ws, "model", reference))


@served
def list_all(ws: Workspace, *, limit: int | None = None, tags: Sequence[str] = ()) -> list[Card]:
    """All models, or the newest `limit`, oldest first; with `tags` only those with all these."""
    return workspace.readable(ws, "model", open_model, limit, tags=tags)


@served
def delete(ws: Workspace, reference: str) -> Entry:
    """Delete a model; refused while evaluations, predictions or runs were made from it."""
    return workspace.delete(ws, "model", reference)
