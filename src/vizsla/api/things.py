"""Finding things, by what people call them."""

from __future__ import annotations

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
