"""`/api/v1/datasets`: pictures, decoded and divided."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from vizsla.api import datasets
from vizsla.datasets.dataset import Dataset
from vizsla.datasets.plan import Plan
from vizsla.datasets.scan import Root, Split
from vizsla.datasets.spec import PATHS, UPLOADABLE, DatasetSpec, upload_id
from vizsla.web.etags import tagged, unchanged
from vizsla.web.kept import Known
from vizsla.web.lists import Listing, page
from vizsla.web.once import KEYED, Once
from vizsla.web.paths import allowed
from vizsla.web.schema import (
    PNG,
    Answer,
    Body,
    Changed,
    EntryAnswer,
    JobAnswer,
    Limit,
    Name,
    NotesAnswer,
    Page,
    Queued,
    RowAfter,
    TagsAnswer,
    Things,
    Ws,
    exact,
    queued,
    read,
)
from vizsla.web.written import changed, labelled, noted

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=Once)


class NewDataset(Queued):
    """A dataset to build."""

    name: Name
    spec: DatasetSpec


@router.get("", response_model=Things[Dataset])
def list_datasets(ws: Ws, kept: Known, wanted: Annotated[Listing, Query()]) -> Response:
    """The datasets that are built."""
    return page(ws, kept, "dataset", wanted)


@router.post("", status_code=202, dependencies=KEYED)
def create_dataset(ws: Ws, body: NewDataset, request: Request, response: Response) -> JobAnswer:
    """Put the building of a dataset into the queue: from folders, archives or lists that may be read, or from uploads.

    A source such as `upload:1swk2a7qx4` names an upload, which is gone when the dataset is there.
    """
    spec, folders = _readable(request, body.spec), request.app.state.allowed
    return queued(datasets.submit(ws, body.name, spec, job=body.job, allowed=folders), response)


def _readable(request: Request, spec: DatasetSpec) -> DatasetSpec:
    """The settings with the links of their paths followed; refused unless all may be read."""
    named = {name: getattr(spec, name) for name in PATHS}
    paths = {
        name: allowed(request, path, where=f"spec.{name}")
        for name, path in named.items()
        if path is not None and (name not in UPLOADABLE or upload_id(path) is None)
    }
    return spec.model_copy(update=paths)


class Scanned(Body):
    """A dataset that might be built."""

    spec: DatasetSpec


@router.post("/scan")
def scan_dataset(ws: Ws, body: Scanned, request: Request) -> Plan:
    """What a dataset would be, before it is built: pictures by class and split, and the files that will be rejected.

    The names of all files are looked at, and some of them are opened. An archive of 500 MB at most is unpacked for it.
    """
    return datasets.scan(ws, _readable(request, body.spec), allowed=request.app.state.allowed)


@router.post("/fit", response_class=Response, responses=PNG)
def fit_picture(ws: Ws, body: Scanned, request: Request) -> Response:
    """The first picture of a source as a dataset with these settings would keep it, 320 px wide and high at most."""
    spec = _readable(request, body.spec)
    return Response(datasets.fitted(ws, spec, allowed=request.app.state.allowed), media_type="image/png")


class PictureAnswer(Answer):
    """A file that was found. It is used if `reason` is null; `index` is its number among the pictures."""

    root: Root
    path: str
    label: str | None
    split: Split | None
    index: int | None
    width: int | None
    height: int | None
    bytes: int | None
    sha256: str | None
    reason: str | None


@router.get("/{reference}/pictures")
def list_pictures(
    ws: Ws,
    reference: str,
    *,
    split: Annotated[Split | None, Query(description="Only those of this split.")] = None,
    label: Annotated[str | None, Query(alias="class", description="Only those of this class.")] = None,
    rejected: Annotated[bool, Query(description="Those that were rejected, in place of those that are used.")] = False,
    limit: Limit = 50,
    after: RowAfter = "0",
) -> Page[PictureAnswer]:
    """The files that a dataset was made from, by folder and path."""
    id = read(ws, "dataset", reference, datasets.get).id
    found = datasets.pictures(ws, id, split=split, label=label, rejected=rejected, after=int(after), limit=limit)
    items = [PictureAnswer.model_validate(row) for row in found.rows]
    return Page(items=items, next=None if found.next is None else str(found.next))


@router.get("/{reference}/pictures/{index}", response_class=Response, responses=PNG)
def get_picture(
    ws: Ws,
    reference: str,
    index: Annotated[int, Path(ge=0, lt=2**53)],
    side: Annotated[int | None, Query(ge=16, le=4096, description="px that it is wide and high at most")] = None,
) -> Response:
    """A picture as the dataset keeps it, or smaller."""
    id = read(ws, "dataset", reference, datasets.get).id
    return _png(datasets.picture(ws, id, index, side=side), forever=reference == id)


@router.get("/{reference}/mean", response_class=Response, responses=PNG)
def get_mean_picture(ws: Ws, reference: str) -> Response:
    """The mean of the training pictures."""
    id = read(ws, "dataset", reference, datasets.get).id
    return _png(datasets.mean_picture(ws, id), forever=reference == id)


def _png(content: bytes, *, forever: bool) -> Response:
    """A picture. Of an id it never becomes another; a name may come to mean another dataset."""
    caching = {"Cache-Control": "private, max-age=604800, immutable"} if forever else {}
    return Response(content, media_type="image/png", headers=caching)


@router.get("/{reference}", response_model=Dataset)
def get_dataset(ws: Ws, kept: Known, reference: str, request: Request) -> Response:
    """A dataset: its classes, splits, and what was rejected."""
    return tagged(request, kept.require(ws, "dataset", exact(ws, reference, "dataset")).body)


@router.patch("/{reference}", response_model=Dataset)
def change_dataset(ws: Ws, reference: str, body: Changed, request: Request) -> Response:
    """Give a dataset another name, other notes, or other tags."""
    return changed(request, ws, "dataset", reference, body)


@router.get("/{reference}/notes", response_model=NotesAnswer)
def get_notes(ws: Ws, reference: str, request: Request) -> Response:
    """What people have written about a dataset."""
    return noted(request, ws, "dataset", reference)


@router.get("/{reference}/tags", response_model=TagsAnswer)
def get_tags(ws: Ws, reference: str, request: Request) -> Response:
    """The tags of a dataset."""
    return labelled(request, ws, "dataset", reference)


@router.delete("/{reference}")
def delete_dataset(ws: Ws, kept: Known, reference: str, request: Request) -> EntryAnswer:
    """Delete a dataset; refused while runs were made from it."""
    id = exact(ws, reference, "dataset")
    with unchanged(request, lambda: kept.require(ws, "dataset", id).body):
        return EntryAnswer.model_validate(datasets.delete(ws, id))
