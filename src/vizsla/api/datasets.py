"""Verbs on datasets."""

from __future__ import annotations

from collections.abc import Callable

from vizsla.api import workspace
from vizsla.api.workspace import Workspace
from vizsla.datasets.build import build
from vizsla.datasets.dataset import Dataset, open_dataset
from vizsla.datasets.spec import DatasetSpec
from vizsla.store.queries import Entry


def ignore_progress(stage: str, done: int, total: int) -> None:
    """Take no notice of progress."""


def create(
    ws: Workspace, name: str, spec: DatasetSpec, *, progress: Callable[[str, int, int], None] = ignore_progress
) -> Dataset:
    """Build a dataset from a folder of pictures.

    Args:
        progress: called with the stage, the pictures done and the pictures in all.

    Raises:
        InvalidInput: the folder, its pictures or the settings cannot be used; nothing is left behind.
        Conflict: the name is taken.
        DiskFull: there is no room.
    """
    with workspace.claim(ws, "dataset", name) as claim:
        return build(spec, claim.folder, id=claim.entry.id, name=name, progress=progress)


def get(ws: Workspace, reference: str) -> Dataset:
    """The dataset of this id, name or beginning of one."""
    return open_dataset(ws.folder("dataset", ws.store.find(reference, "dataset").id))


def list_all(ws: Workspace) -> list[Dataset]:
    """All datasets, oldest first."""
    return workspace.readable(ws, "dataset", open_dataset)


def delete(ws: Workspace, reference: str) -> Entry:
    """Delete a dataset; refused while runs were made from it."""
    return workspace.delete(ws, "dataset", reference)
