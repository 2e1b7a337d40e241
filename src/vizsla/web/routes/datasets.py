"""`/api/v1/datasets`: pictures, decoded and divided."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from vizsla.api import datasets
from vizsla.datasets.dataset import Dataset
from vizsla.datasets.spec import DatasetSpec
from vizsla.errors import VizslaError
from vizsla.store.queries import Entry
from vizsla.web.paths import require_allowed
from vizsla.web.schema import After, EntryAnswer, JobAnswer, Limit, Order, Page, Queued, Ws, page

router = APIRouter(prefix="/datasets", tags=["datasets"])


class NewDataset(Queued):
    """A dataset to build."""

    name: str
    spec: DatasetSpec


@router.get("")
def list_datasets(ws: Ws, limit: Limit = 50, after: After = None, order: Order = "newest") -> Page[Dataset]:
    """The datasets that are built."""

    def read(entry: Entry) -> Dataset | None:
        try:
            return datasets.get(ws, entry.id)
        except VizslaError:  # in the making, damaged, or deleted at this moment
            return None

    items, following = page(ws.store.all("dataset"), read, limit=limit, after=after, order=order)
    return Page(items=items, next=following)


@router.post("", status_code=202)
def create_dataset(ws: Ws, body: NewDataset, request: Request, response: Response) -> JobAnswer:
    """Put the building of a dataset into the queue, from folders that the server may read."""
    for field in ("source", "val_folder", "test_folder"):
        require_allowed(request, getattr(body.spec, field), where=f"spec.{field}")
    job = datasets.submit(ws, body.name, body.spec, job=body.job)
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return JobAnswer.model_validate(job)


@router.get("/{reference}")
def get_dataset(ws: Ws, reference: str) -> Dataset:
    """A dataset: its classes, splits, and what was rejected."""
    return datasets.get(ws, reference)


@router.delete("/{reference}")
def delete_dataset(ws: Ws, reference: str) -> EntryAnswer:
    """Delete a dataset; refused while runs were made from it."""
    return EntryAnswer.model_validate(datasets.delete(ws, reference))
