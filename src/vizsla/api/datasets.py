"""Verbs on datasets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from vizsla import files, work
from vizsla.api import uploads, workspace
from vizsla.api.receiving import require_whole, taken
from vizsla.api.served import served
from vizsla.client.server import Server
from vizsla.datasets import plan, rows, sources, upload
from vizsla.datasets.dataset import Dataset, open_dataset
from vizsla.datasets.plan import Plan
from vizsla.datasets.scan import Split
from vizsla.datasets.spec import DatasetSpec, Request
from vizsla.datasets.store import PixelStore, encode, shrunk
from vizsla.errors import Busy, NotFound
from vizsla.events import Event, ignore_event
from vizsla.ids import new_id
from vizsla.jobs import follow, queue
from vizsla.jobs.launch import interruptions
from vizsla.jobs.schedule import BESIDE
from vizsla.jobs.spec import JobSpec
from vizsla.jobs.waiting import OnInterrupt, to_stop
from vizsla.store.rows import Entry, Job
from vizsla.store.workspace import Workspace

# Looking at a folder takes a processor and, of an archive, room on the disk.
SCANS, SCAN_PATIENCE_S = 2, 20.0
_scanning = threading.BoundedSemaphore(SCANS)


def create(
    ws: Workspace | Server,
    name: str,
    spec: DatasetSpec,
    *,
    job: JobSpec = JobSpec(),
    on_event: Callable[[Event], None] = ignore_event,
) -> Dataset:
    """Build a dataset from a folder or a text list of pictures, an archive or an upload, and wait for it.

    Args:
        spec: with `upload:ID` as a source for one of `ws.user`'s uploads, which is gone when the dataset is there.
        job: how it goes through the queue.
        on_event: told everything that happens, as it happens.

    Raises:
        InvalidInput: the folder or list, its pictures or the settings cannot be used; nothing is left behind.
        Conflict: the name is taken.
        DiskFull: there is no room.
    """
    with interruptions():
        return finish(ws, submit(ws, name, spec, job=job), on_event)


@served
def submit(
    ws: Workspace, name: str, spec: DatasetSpec, *, job: JobSpec = JobSpec(), allowed: Sequence[Path] | None = None
) -> Job:
    """Put the building of a dataset into the queue, as `create` does, and return at once.

    Args:
        allowed: folders, without links, below which the pictures of text lists have to lie; None: anywhere.
    """
    sources.require(spec)
    uploaded = sources.named_uploads(spec)
    for id in uploaded:
        uploads.get(ws, id)  # refused before a name is taken
    with workspace.claim(ws, "dataset", name) as claim:
        lies_in = None if allowed is None else tuple(allowed)
        request = Request(id=claim.entry.id, name=name, spec=spec, allowed=lies_in)
        files.write_json(claim.folder / work.REQUEST, request.model_dump(mode="json"))
        with taken(ws, uploaded, claim.entry.id):
            return queue.submit(ws, claim.entry, BESIDE, job)


@served
def finish(
    ws: Workspace,
    job: Job,
    on_event: Callable[[Event], None] = ignore_event,
    on_interrupt: OnInterrupt = to_stop,
) -> Dataset:
    """Wait for the end of a building that was put into the queue; see `runs.finish`."""
    follow.wait(ws, job, on_event, on_interrupt=on_interrupt)
    return get(ws, job.thing)


@served
def get(ws: Workspace, reference: str) -> Dataset:
    """The dataset of this id, name or beginning of one."""
    return open_dataset(workspace.finished(ws, "dataset", reference))


@served
def list_all(ws: Workspace, *, limit: int | None = None, tags: Sequence[str] = ()) -> list[Dataset]:
    """All datasets, or the newest `limit`, oldest first; with `tags` only those with all these."""
    return workspace.readable(ws, "dataset", open_dataset, limit, tags=tags)


@served
def scan(ws: Workspace, spec: DatasetSpec, *, allowed: Sequence[Path] | None = None) -> Plan:
    """What a dataset would be, found out by looking at the names of all its files and into some of them.

    Args:
        allowed: see `submit`.

    Raises:
        InvalidInput: the folder or list, or the settings, cannot be used.
        Busy: others are being looked at.
    """
    root = _require(ws, spec)
    if not _scanning.acquire(timeout=SCAN_PATIENCE_S):
        raise Busy("Other folders are being looked at.", remedy="Ask again in a moment.")
    try:
        # What is left there after a power cut is swept as an upload that nobody sends.
        folder = root / new_id()
        return plan.plan(spec, folder, uploads=root, allowed=allowed)
    finally:
        _scanning.release()


def fitted(ws: Workspace, spec: DatasetSpec, *, allowed: Sequence[Path] | None = None) -> bytes:
    """The first picture of a source as a dataset with these settings would keep it, smaller where that is large; PNG.

    Raises:
        InvalidInput: there is no picture among the first files.
    """
    return plan.fitted(spec, uploads=_require(ws, spec), allowed=allowed)


def _require(ws: Workspace, spec: DatasetSpec) -> Path:
    """Raise what `submit` does of a source; returns the folder in which uploads lie."""
    folder = ws.root / upload.UPLOADS
    sources.require(spec)
    for id in sources.named_uploads(spec):
        require_whole(ws, id)
    folder.mkdir(exist_ok=True)
    return folder


def pictures(
    ws: Workspace,
    reference: str,
    *,
    split: Split | None = None,
    label: str | None = None,
    rejected: bool = False,
    after: int = 0,
    limit: int = 100,
) -> rows.Slice:
    """Some of the files of a dataset: those that are used, or those that were rejected and why.

    Args:
        after: the `next` of the slice before.
    """
    folder = ws.folder("dataset", get(ws, reference).id)
    return rows.read(folder / "images.parquet", split=split, label=label, rejected=rejected, after=after, limit=limit)


def picture(ws: Workspace, reference: str, index: int, *, side: int | None = None) -> bytes:
    """A picture of a dataset as it is stored, as PNG.

    Args:
        index: its place in the pixel store, as the rows of `pictures` say.
        side: px that it is wide and high at most, for galleries of large pictures; None: as it is.

    Raises:
        NotFound: there is no such picture.
    """
    store = PixelStore.open(ws.folder("dataset", get(ws, reference).id) / "pixels")
    if not 0 <= index < store.shape.num_pictures:
        raise NotFound(f"The dataset has no picture {index}.", where="index")
    pixels = store.read([index])[0]
    if side is not None and max(pixels.shape[:2]) > side:
        pixels = shrunk(pixels, side)
    return encode(pixels, "png")


def mean_picture(ws: Workspace, reference: str) -> bytes:
    """The mean of the training pictures of a dataset, as PNG."""
    path = ws.folder("dataset", get(ws, reference).id) / "mean.png"
    try:
        return path.read_bytes()
    except OSError:
        raise NotFound("The dataset has no mean picture.", where=str(path)) from None


@served
def delete(ws: Workspace, reference: str) -> Entry:
    """Delete a dataset; refused while runs were made from it."""
    return workspace.delete(ws, "dataset", reference)
