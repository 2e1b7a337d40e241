"""What pages of things share: a thing that is there, one that is still in the making or was never made, its notes."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson
from fastapi import Request
from fastapi.responses import HTMLResponse

from vizsla.api import jobs, notes
from vizsla.errors import NotFound
from vizsla.store.rows import Entry, Kind
from vizsla.store.workspace import Workspace
from vizsla.web.kept import Kept
from vizsla.web.pages import progress
from vizsla.web.pages.render import render


class Made(NamedTuple):
    """A finished thing."""

    entry: Entry
    body: bytes
    """its JSON, as REST answers it"""
    notes: str
    may_change: bool

    @property
    def facts(self) -> dict[str, Any]:
        """What REST answers."""
        found: dict[str, Any] = orjson.loads(self.body)
        return found

    def shared(self) -> dict[str, Any]:
        """What the templates of every thing name."""
        return {"entry": self.entry, "notes": self.notes, "may_change": self.may_change}


def get(ws: Workspace, kept: Kept, kind: Kind, reference: str) -> Made | Entry:
    """A thing; its entry alone, where it is not finished.

    Raises:
        NotFound: there is none.
        Damaged: its files cannot be read.
    """
    try:
        entry = ws.store.exact(reference, kind)
    except NotFound:
        if (failed := _never_made(ws, kind, reference)) is not None:
            return failed
        raise
    if not ws.is_finished(kind, entry.id):
        return entry
    body = kept.require(ws, kind, entry.id).body
    return Made(entry, body, notes.read(ws, kind, entry.id).strip(), _may_change(ws, entry.owner))


def unmade(request: Request, ws: Workspace, kept: Kept, entry: Entry) -> HTMLResponse:
    """The page of a thing that is not finished: how the making of it stands, or why there will be none."""
    try:
        shown = jobs.get(ws, entry.id)
    except NotFound:
        shown = None
    return render(
        request,
        "unmade.html",
        twin=f"/api/v1/jobs/{shown.job.id}" if shown else "",
        entry=entry,
        job=shown.job if shown else None,
        history=shown.history if shown else [],
        work=[progress.of(ws, kept, shown.job)] if shown and shown.job.live else [],
        may_change=_may_change(ws, entry.owner),
        is_kept=(ws.folder(entry.kind, entry.id)).exists(),
    )


def _never_made(ws: Workspace, kind: Kind, id: str) -> Entry | None:
    """What was to become of a job that came to nothing: it has no row any more, but its address was given to people."""
    try:
        job = ws.store.jobs.find(id)
    except NotFound:
        return None
    if job.kind != kind or job.thing != id or job.state == "done":
        return None
    return Entry(job.thing, job.kind, job.name, job.created_at, job.owner)


def _may_change(ws: Workspace, owner: str) -> bool:
    return ws.role == "admin" or owner == ws.user
