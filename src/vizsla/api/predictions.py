"""Verbs on predictions of many pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from vizsla import files, work
from vizsla.api import uploads, workspace
from vizsla.api.receiving import taken
from vizsla.api.served import served
from vizsla.client.server import Server
from vizsla.datasets.spec import upload_id
from vizsla.errors import InvalidInput, did_you_mean
from vizsla.events import Event, ignore_event
from vizsla.jobs import follow, queue
from vizsla.jobs.launch import interruptions
from vizsla.jobs.schedule import BESIDE
from vizsla.jobs.spec import JobSpec
from vizsla.jobs.waiting import OnInterrupt, to_stop
from vizsla.models import predictions, sources
from vizsla.models.card import open_model
from vizsla.models.predictions import MAX_TOP, Prediction, Request, Rows, open_prediction
from vizsla.store.rows import Entry, Job
from vizsla.store.workspace import Workspace


def create(
    ws: Workspace | Server,
    model: str,
    source: Path,
    *,
    base: Path | None = None,
    top: int = 5,
    name: str | None = None,
    job: JobSpec = JobSpec(),
    on_event: Callable[[Event], None] = ignore_event,
) -> Prediction:
    """Classify the pictures of a folder, of an archive, of an upload or of a text list, and keep what came out.

    Args:
        model: a model, by id, name or beginning of one.
        source: a folder or an archive, searched to the bottom; `upload:ID` for one of `ws.user`'s uploads, which is
            gone when the prediction is there; or a text file with a path in each line, behind which the number of
            its class may stand, or a space or a tab and its name.
        base: to which the paths of a list are relative; the list's own folder by default.
        top: how many classes to name for each picture.

    Raises:
        NotFound: there is no such model.
        InvalidInput: there is no such source, or it has no pictures.
    """
    with interruptions():
        wanted = submit(ws, model, source, base=base, top=top, name=name, job=job)
        return finish(ws, wanted, on_event)


@served
def finish(
    ws: Workspace,
    job: Job,
    on_event: Callable[[Event], None] = ignore_event,
    on_interrupt: OnInterrupt = to_stop,
) -> Prediction:
    """Wait for the end of a prediction that was put into the queue; see `runs.finish`."""
    follow.wait(ws, job, on_event, on_interrupt=on_interrupt)
    return get(ws, job.thing)


@served
def submit(
    ws: Workspace,
    model: str,
    source: Path,
    *,
    base: Path | None = None,
    within: Sequence[Path] | None = None,
    top: int = 5,
    name: str | None = None,
    job: JobSpec = JobSpec(),
) -> Job:
    """Put a prediction into the queue, as `create` does, and return at once.

    Args:
        within: the folders in which the files of a list have to lie; None for anywhere.
    """
    if not 1 <= top <= MAX_TOP:
        raise InvalidInput(f"{top} classes cannot be named.", where="top", remedy=f"Choose 1 to {MAX_TOP}.")
    named = upload_id(source)
    uploaded = [] if named is None else [named]
    for id in uploaded:
        uploads.get(ws, id)  # refused before a name is taken
    if not uploaded:
        source = source.expanduser().absolute()
        sources.check(source)
    parent = ws.store.find(model, "model")
    folder = ws.folder("model", parent.id)
    open_model(folder)  # one that is not finished says so
    name = name or ws.store.free_name("prediction", parent.name)
    with workspace.claim(ws, "prediction", name, parents=[parent.id]) as claim:
        request = Request(
            id=claim.entry.id,
            name=name,
            created_at=claim.entry.created_at,
            model_folder=folder,
            model_name=parent.name,
            source=source,
            base=base.expanduser().absolute() if base else None,
            within=tuple(within) if within is not None else None,
            top=top,
        )
        files.write_json(claim.folder / work.REQUEST, request.model_dump(mode="json"))
        with taken(ws, uploaded, claim.entry.id):
            return queue.submit(ws, claim.entry, BESIDE, job)


@served
def get(ws: Workspace, reference: str) -> Prediction:
    """What came out of the prediction of this id, name or beginning of one."""
    return open_prediction(workspace.finished(ws, "prediction", reference))


def folder(ws: Workspace, reference: str) -> Path:
    """Where a prediction lies."""
    return ws.folder("prediction", ws.store.find(reference, "prediction").id)


@served
def rows(
    ws: Workspace, reference: str, *, first: int = 0, limit: int = 50, label: str | None = None, rejected: bool = False
) -> Rows:
    """Some rows of a prediction; with `label` the pictures that are most surely of that class; see `predictions.rows`.

    Raises:
        InvalidInput: the model has no such class.
    """
    path = folder(ws, reference)
    known = open_prediction(path).classes
    if label is not None and label not in known:
        raise InvalidInput(f"The model has no class {label[:100]!r}.", where="class", remedy=did_you_mean(label, known))
    return predictions.rows(path, first=first, limit=limit, label=label, rejected=rejected)


def write_csv(ws: Workspace, reference: str, file: IO[str]) -> None:
    """Write all rows of a prediction as CSV."""
    parts = csv_parts(ws, reference)  # refused before anything is written
    file.writelines(parts)


def csv_parts(ws: Workspace, reference: str) -> Iterator[str]:
    """All rows of a prediction as CSV, part by part."""
    path = folder(ws, reference)
    open_prediction(path)
    return predictions.csv_parts(path)


@served
def list_all(ws: Workspace, *, limit: int | None = None, tags: Sequence[str] = ()) -> list[Prediction]:
    """All predictions, or the newest `limit`, oldest first; with `tags` only those with all these."""
    return workspace.readable(ws, "prediction", open_prediction, limit, tags=tags)


@served
def delete(ws: Workspace, reference: str) -> Entry:
    """Delete a prediction."""
    return workspace.delete(ws, "prediction", reference)
