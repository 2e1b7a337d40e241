"""Finding things, by what people call them, and calling them otherwise."""

from __future__ import annotations

from vizsla.api import workspace
from vizsla.api.served import served
from vizsla.store.rows import Entry, Kind
from vizsla.store.workspace import Workspace


@served
def find(ws: Workspace, reference: str, *kinds: Kind) -> Entry:
    """The one thing of these kinds that `reference` means: an id, a name, or the beginning of just one of them.

    Raises:
        NotFound: nothing, or more than one thing, is meant.
    """
    return ws.store.find(reference, *kinds)


@served
def rename(ws: Workspace, kind: Kind, reference: str, name: str) -> Entry:
    """Give a thing another name; see `workspace.rename`."""
    return workspace.rename(ws, kind, reference, name)
