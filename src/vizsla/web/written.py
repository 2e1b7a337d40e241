"""What people write about things, and what they call them: the same for every noun."""

from __future__ import annotations

from fastapi import Request, Response

from vizsla.api import notes, workspace
from vizsla.store.rows import Kind
from vizsla.store.workspace import Workspace
from vizsla.web.etags import tagged, unchanged
from vizsla.web.kept import Kept
from vizsla.web.schema import Changed, NotesAnswer, exact


def changed(request: Request, ws: Workspace, kind: Kind, reference: str, body: Changed) -> Response:
    """Change the name of a thing, or its notes, or both; answers the thing."""
    kept: Kept = request.app.state.kept
    id = exact(ws, reference, kind)

    def current() -> bytes:
        # Notes are no part of what a thing is, so they have a tag of their own.
        return _notes(ws, kind, id) if body.name is None else kept.require(ws, kind, id).body

    with unchanged(request, current):
        workspace.to_change(ws, kind, id)
        text = None if body.notes is None else notes.cleaned(body.notes)  # before anything is changed
        if body.name is not None:
            workspace.rename(ws, kind, id, body.name)
        if text is not None:
            notes.write(ws, kind, id, text)
    return tagged(request, kept.require(ws, kind, id).body)


def noted(request: Request, ws: Workspace, kind: Kind, reference: str) -> Response:
    """The notes on a thing, with their tag."""
    return tagged(request, _notes(ws, kind, exact(ws, reference, kind)))


def _notes(ws: Workspace, kind: Kind, id: str) -> bytes:
    return NotesAnswer(notes=notes.read(ws, kind, id)).model_dump_json().encode()
