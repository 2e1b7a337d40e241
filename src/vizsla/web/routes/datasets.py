"""`/api/v1/datasets`: pictures, decoded and divided."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from vizsla.api import datasets
from vizsla.datasets.dataset import Dataset
from vizsla.datasets.spec import DatasetSpec, upload_id
from vizsla.web.paths import allowed
from vizsla.web.schema import (
    After,
    EntryAnswer,
    JobAnswer,
    Limit,
    Order,
    Page,
    Queued,
    Ws,
    exact,
    finished,
    queued,
    read,
)

router = APIRouter(prefix="/datasets", tags=["datasets"])


class NewDataset(Queued):
    """A dataset to build."""

    name: str
    spec: DatasetSpec


@router.get("")
def list_datasets(ws: Ws, limit: Limit = 50, after: After = None, order: Order = "newest") -> Page[Dataset]:
    """The datasets that are built."""
    return finished(ws, "dataset", datasets.get, limit=limit, after=after, order=order)


@router.post("", status_code=202)
def create_dataset(ws: Ws, body: NewDataset, request: Request, response: Response) -> JobAnswer:
    """Put the building of a dataset into the queue, from folders or archives that the server may read, or from uploads.

    A source such as `upload:1swk2a7qx4` names an upload, which is gone when the dataset is there.
    """
    named = {name: getattr(body.spec, name) for name in ("source", "val_folder", "test_folder")}
    paths = {
        name: allowed(request, path, where=f"spec.{name}")
        for name, path in named.items()
        if path is not None and upload_id(path) is None
    }
    return queued(datasets.submit(ws, body.name, body.spec.model_copy(update=paths), job=body.job), response)


@router.get("/{reference}")
def get_dataset(ws: Ws, reference: str) -> Dataset:
    """A dataset: its classes, splits, and what was rejected."""
    return read(ws, "dataset", reference, datasets.get)


@router.delete("/{reference}")
def delete_dataset(ws: Ws, reference: str) -> EntryAnswer:
    """Delete a dataset; refused while runs were made from it."""
    return EntryAnswer.model_validate(datasets.delete(ws, exact(ws, reference, "dataset")))
