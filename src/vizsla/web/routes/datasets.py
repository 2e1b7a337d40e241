"""`/api/v1/datasets`: pictures, decoded and divided."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from vizsla.api import datasets
from vizsla.datasets.dataset import Dataset
from vizsla.datasets.spec import DatasetSpec
from vizsla.web.kept import Known
from vizsla.web.lists import Listing, page
from vizsla.web.once import KEYED, Once
from vizsla.web.paths import allowed
from vizsla.web.schema import EntryAnswer, JobAnswer, Name, Page, Queued, Ws, exact, queued
from vizsla.web.tags import tagged, unchanged

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=Once)


class NewDataset(Queued):
    """A dataset to build."""

    name: Name
    spec: DatasetSpec


@router.get("", response_model=Page[Dataset])
def list_datasets(ws: Ws, kept: Known, wanted: Annotated[Listing, Query()]) -> Response:
    """The datasets that are built."""
    return page(ws, kept, "dataset", wanted)


@router.post("", status_code=202, dependencies=KEYED)
def create_dataset(ws: Ws, body: NewDataset, request: Request, response: Response) -> JobAnswer:
    """Put the building of a dataset into the queue, from folders that the server may read."""
    named = {name: getattr(body.spec, name) for name in ("source", "val_folder", "test_folder")}
    paths = {name: allowed(request, path, where=f"spec.{name}") for name, path in named.items() if path is not None}
    return queued(datasets.submit(ws, body.name, body.spec.model_copy(update=paths), job=body.job), response)


@router.get("/{reference}", response_model=Dataset)
def get_dataset(ws: Ws, kept: Known, reference: str, request: Request) -> Response:
    """A dataset: its classes, splits, and what was rejected."""
    return tagged(request, kept.require(ws, "dataset", exact(ws, reference, "dataset")).body)


@router.delete("/{reference}")
def delete_dataset(ws: Ws, kept: Known, reference: str, request: Request) -> EntryAnswer:
    """Delete a dataset; refused while runs were made from it."""
    id = exact(ws, reference, "dataset")
    with unchanged(request, lambda: kept.require(ws, "dataset", id).body):
        return EntryAnswer.model_validate(datasets.delete(ws, id))
