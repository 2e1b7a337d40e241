"""What people write about things, and what they call them: the same for every noun."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from fastapi import Request, Response

from vizsla.api import notes, tags, workspace
from vizsla.store.rows import Kind
from vizsla.store.tagnames import cleaned
from vizsla.store.workspace import Workspace
from vizsla.web.etags import tagged, unchanged
from vizsla.web.kept import Kept
from vizsla.web.schema import Changed, NotesAnswer, TagsAnswer, exact


def changed(request: Request, ws: Workspace, kind: Kind, reference: str, body: Changed) -> Response:
    """Change the name of a thing, or its notes, or its tags, or all of them; answers the thing."""
    kept: Kept = request.app.state.kept
    id = exact(ws, reference, kind)
    current: list[Callable[[], bytes]] = [partial(part, ws, kind, id) for part in _written(body)]
    if body.name is not None:
        current = [lambda: kept.require(ws, kind, id).body]
    with unchanged(request, *current):
        workspace.to_change(ws, kind, id)
        # All is looked at before anything is changed.
        text = None if body.notes is None else notes.cleaned(body.notes)
        labels = None if body.tags is None else cleaned(body.tags)
        if body.name is not None:
            workspace.rename(ws, kind, id, body.name)
        if text is not None:
            notes.write(ws, kind, id, text)
        if labels is not None:
            tags.write(ws, kind, id, labels)
    return tagged(request, kept.require(ws, kind, id).body)


def _written(body: Changed) -> Sequence[Callable[[Workspace, Kind, str], bytes]]:
    """What tells whether what a request changes is as it knows it: notes and tags are no part of what a thing is."""
    parts = [part for part, wanted in ((_notes, body.notes), (_tags, body.tags)) if wanted is not None]
    return parts or [_notes]


def noted(request: Request, ws: Workspace, kind: Kind, reference: str) -> Response:
    """The notes on a thing, with an ETag of their own."""
    return tagged(request, _notes(ws, kind, exact(ws, reference, kind)))


def labelled(request: Request, ws: Workspace, kind: Kind, reference: str) -> Response:
    """The tags of a thing, with an ETag of their own."""
    return tagged(request, _tags(ws, kind, exact(ws, reference, kind)))


def _notes(ws: Workspace, kind: Kind, id: str) -> bytes:
    return NotesAnswer(notes=notes.read(ws, kind, id)).model_dump_json().encode()


def _tags(ws: Workspace, kind: Kind, id: str) -> bytes:
    return TagsAnswer(tags=tags.read(ws, kind, id)).model_dump_json().encode()
