"""Verbs on evaluations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from vizsla import files, work
from vizsla.api import parents, workspace
from vizsla.api.served import served
from vizsla.client.server import Server
from vizsla.datasets.dataset import open_dataset, require_known_split, split_arrays
from vizsla.errors import InvalidInput, NotFound
from vizsla.evaluation.predictions import FILE_NAME, Place, Slice, Top, read
from vizsla.evaluation.predictions import place as read_place
from vizsla.evaluation.predictions import tops as read_tops
from vizsla.evaluation.report import Report, Request, read_report
from vizsla.events import Event, ignore_event
from vizsla.jobs import follow, queue
from vizsla.jobs.launch import interruptions
from vizsla.jobs.schedule import BESIDE, Need
from vizsla.jobs.spec import JobSpec
from vizsla.jobs.waiting import OnInterrupt, to_stop
from vizsla.models.card import Card, open_model
from vizsla.store.rows import Entry, Job
from vizsla.store.workspace import FINAL_FILE, Workspace

HTML = "report.html"


class _Subject(NamedTuple):
    kind: Literal["run", "model"]
    entry: Entry
    folder: Path
    checkpoint: str
    dataset_id: str
    need: Need
    needed: tuple[str, ...] = ()
    """ids of the jobs that have to be done before"""


def create(
    ws: Workspace | Server,
    subject: str,
    *,
    split: str = "test",
    checkpoint: str = "best",
    name: str | None = None,
    job: JobSpec = JobSpec(),
    on_event: Callable[[Event], None] = ignore_event,
) -> Report:
    """Evaluate a run's checkpoint, or a model, on a split of the dataset it was trained on.

    Args:
        subject: a run or a model, by id, name or beginning of one.
        split: "test", "val" or "train"; the report says what part the split played in training.
        checkpoint: of a run: "best", "last" or a step. A model has only one. Of a run that waits or trains, "best"
            and "last" are those that it ends with: the evaluation waits until then.

    Raises:
        NotFound: there is no such run, model or checkpoint.
        InvalidInput: the dataset has no pictures in that split.
        Conflict: the run was stopped, or failed, before the evaluation could begin.
    """
    with interruptions():
        wanted = submit(ws, subject, split=split, checkpoint=checkpoint, name=name, job=job)
        return finish(ws, wanted, on_event)


@served
def finish(
    ws: Workspace,
    job: Job,
    on_event: Callable[[Event], None] = ignore_event,
    on_interrupt: OnInterrupt = to_stop,
) -> Report:
    """Wait for the end of an evaluation that was put into the queue; see `runs.finish`."""
    follow.wait(ws, job, on_event, on_interrupt=on_interrupt)
    return get(ws, job.thing)


@served
def submit(
    ws: Workspace,
    subject: str,
    *,
    split: str = "test",
    checkpoint: str = "best",
    name: str | None = None,
    job: JobSpec = JobSpec(),
) -> Job:
    """Put an evaluation into the queue, as `create` does, and return at once."""
    found = _find(ws, subject, checkpoint, job)
    dataset_folder = ws.folder("dataset", found.dataset_id)
    if ws.is_finished("dataset", found.dataset_id):
        split_arrays(dataset_folder, split)  # refuses an empty split before a process is started
    else:  # the run, which is waited for, waits for it
        require_known_split(split)
    dataset = next(row for row in ws.store.all("dataset") if row.id == found.dataset_id)
    name = name or ws.store.free_name("evaluation", f"{found.entry.name}-{split}")
    with workspace.claim(ws, "evaluation", name, parents=[found.entry.id, dataset.id]) as claim:
        request = Request(
            id=claim.entry.id,
            name=name,
            kind=found.kind,
            subject_folder=found.folder,
            subject_name=found.entry.name,
            checkpoint=found.checkpoint,
            dataset_folder=dataset_folder,
            dataset_name=dataset.name,
            split=split,
        )
        files.write_json(claim.folder / work.REQUEST, request.model_dump(mode="json"))
        return queue.submit(ws, claim.entry, found.need, job, needed=found.needed)


def _find(ws: Workspace, subject: str, checkpoint: str, job: JobSpec) -> _Subject:
    entry = ws.store.find(subject, "run", "model")
    folder = ws.folder(entry.kind, entry.id)
    if entry.kind == "model":
        card = open_model(folder)
        return _Subject("model", entry, folder, str(card.run.checkpoint), _dataset_of(ws, card), BESIDE)
    source = parents.checkpoint_of(ws, entry, checkpoint)
    need = parents.need_of_passes(ws, entry, gpu_memory=job.gpu_memory)
    if source.passing:
        need = parents.need_now(ws, need)
    return _Subject("run", entry, folder, source.checkpoint, source.dataset, need, source.needed)


def _dataset_of(ws: Workspace, card: Card) -> str:
    """The id of the dataset that a model was trained on; of one from elsewhere, of a dataset of the same pictures."""
    rows = {row.id: row for row in ws.store.all("dataset") if ws.is_finished("dataset", row.id)}
    if card.dataset.id in rows:
        return card.dataset.id
    for id in rows:
        with contextlib.suppress(InvalidInput):  # damaged
            if open_dataset(ws.folder("dataset", id)).fingerprint == card.dataset.fingerprint:
                return id
    raise NotFound(
        f"The dataset {card.dataset.name!r}, on which the model {card.name!r} was trained, is not here.",
        remedy="Build it here, from the same pictures with the same settings.",
    )


def folder(ws: Workspace, reference: str) -> Path:
    """Where an evaluation lies: `report.html` in it is for people, `report.json` for programs."""
    return ws.folder("evaluation", ws.store.find(reference, "evaluation").id)


@served
def get(ws: Workspace, reference: str) -> Report:
    """The report of the evaluation of this id, name or beginning of one."""
    return read_report(workspace.finished(ws, "evaluation", reference))


def predictions(
    ws: Workspace,
    reference: str,
    *,
    label: str | None = None,
    predicted: str | None = None,
    wrong: bool = False,
    surest: bool = False,
    after: int = 0,
    limit: int = 100,
) -> Slice:
    """Some of what was answered for the pictures of an evaluation; see `vizsla.evaluation.predictions.read`."""
    path = workspace.finished(ws, "evaluation", reference) / FILE_NAME
    return read(path, label=label, predicted=predicted, wrong=wrong, surest=surest, after=after, limit=limit)


def place(
    ws: Workspace,
    reference: str,
    index: int,
    *,
    label: str | None = None,
    predicted: str | None = None,
    wrong: bool = False,
    surest: bool = False,
) -> Place:
    """What was answered for a picture, and which stand beside it; see `vizsla.evaluation.predictions.place`.

    Raises:
        NotFound: it is not among those that fit.
    """
    path = workspace.finished(ws, "evaluation", reference) / FILE_NAME
    found = read_place(path, index, label=label, predicted=predicted, wrong=wrong, surest=surest)
    if found is None:
        raise NotFound(
            f"Picture {index} is not among those that were asked for.",
            where="index",
            remedy="Take the number of one that is in the list of what was answered.",
        )
    return found


def tops(ws: Workspace, reference: str, *, first: int = 0, limit: int = 20, num: int = 9) -> list[Top]:
    """The pictures that were most surely taken for each of `limit` classes, from the class at `first` on."""
    folder = workspace.finished(ws, "evaluation", reference)
    return read_tops(folder / FILE_NAME, read_report(folder).labels[first : first + limit], num)


def predictions_path(ws: Workspace, reference: str) -> Path:
    """The file with what was answered for each picture."""
    return workspace.finished(ws, "evaluation", reference) / FILE_NAME


def page(ws: Workspace, reference: str) -> str:
    """The report for people: one HTML page without scripts, and without anything from elsewhere."""
    return (workspace.finished(ws, "evaluation", reference) / HTML).read_text(encoding="utf-8")


def of(ws: Workspace, parent_id: str) -> list[Report]:
    """The reports of all evaluations of a run or model, oldest first."""
    found = (ws.folder("evaluation", row.id) for row in ws.store.children(parent_id) if row.kind == "evaluation")
    return [read_report(path) for path in found if (path / FINAL_FILE["evaluation"]).exists()]


@served
def list_all(ws: Workspace, *, limit: int | None = None, tags: Sequence[str] = ()) -> list[Report]:
    """The reports of all evaluations, or of the newest `limit`, oldest first; with `tags` of those with all these."""
    return workspace.readable(ws, "evaluation", read_report, limit, tags=tags)


@served
def delete(ws: Workspace, reference: str) -> Entry:
    """Delete an evaluation."""
    return workspace.delete(ws, "evaluation", reference)
