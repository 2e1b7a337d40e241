"""Tags: short labels that people give to things, to find them by."""

from __future__ import annotations

from collections.abc import Sequence

from vizsla.api import workspace
from vizsla.api.served import served
from vizsla.errors import NotFound
from vizsla.store import tagging, tagnames
from vizsla.store.rows import Kind, Used
from vizsla.store.workspace import Workspace


@served
def read(ws: Workspace, kind: Kind, reference: str) -> list[str]:
    """The tags of a thing, sorted."""
    return tagnames.of_folder(ws.folder(kind, ws.store.find(reference, kind).id))


@served
def write(ws: Workspace, kind: Kind, reference: str, wanted: Sequence[str]) -> list[str]:
    """Replace the tags of a thing, also of a run that is at work; returns them as they are kept.

    Raises:
        NotFound: there is no such thing.
        Forbidden: it belongs to another.
        InvalidInput: see `vizsla.store.tagnames.cleaned`.
        Conflict: the thing is in the making.
        Busy: others change tags for long.
    """
    entry = workspace.to_change(ws, kind, reference)
    found = tagnames.cleaned(wanted)
    workspace.require_finished(ws, entry)
    try:
        tagging.write(ws, kind, entry.id, found)
    except FileNotFoundError:
        raise NotFound(f"The {kind} {entry.name!r} was deleted at this moment.") from None
    return found


@served
def used(ws: Workspace, kind: Kind, *, limit: int = 100) -> list[Used]:
    """The tags that most things of a kind have, and how many have each; at most `limit`, the commonest first."""
    return ws.store.tags.used(kind, limit)
