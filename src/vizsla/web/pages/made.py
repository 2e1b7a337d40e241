"""What pages of things share: a thing that is there, one in the making or never made, what is written about it."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson
from fastapi import Request
from fastapi.responses import HTMLResponse

from vizsla.api import jobs
from vizsla.api import tags as verbs
from vizsla.errors import NotFound
from vizsla.store.rows import Entry, Kind
from vizsla.store.workspace import PASSING, Workspace
from vizsla.web.kept import Kept
from vizsla.web.pages import progress
from vizsla.web.pages.render import render
from vizsla.web.written import labelled, noted


class Made(NamedTuple):
    """A finished thing."""

    entry: Entry
    body: bytes
    """its JSON, as REST answers it"""

    @property
    def facts(self) -> dict[str, Any]:
        """What REST answers."""
        found: dict[str, Any] = orjson.loads(self.body)
        return found

    def shared(self, request: Request, ws: Workspace) -> dict[str, Any]:
        """What the templates of every thing name."""
        return {"entry": self.entry, **written(request, ws, self.entry)}


class Written(NamedTuple):
    """What people have written about a thing, each with its ETag; and what keeps it from being deleted."""

    notes: str
    notes_etag: str
    tags: list[str]
    tags_etag: str
    used_by: list[Entry]
    """none where who asks may not delete it"""


def written(request: Request, ws: Workspace, entry: Entry) -> dict[str, Any]:
    """What people have written about a thing, and whether who asks may change it: for `written.html`."""
    notes, tags = noted(request, ws, entry.kind, entry.id), labelled(request, ws, entry.kind, entry.id)
    mine = may_change(ws, entry.owner)
    # What passes holds up no deletion. The newest come first, in the order in which they have to go.
    used_by = [child for child in reversed(ws.store.children(entry.id)) if child.kind not in PASSING] if mine else []
    return {
        "about_it": Written(
            orjson.loads(bytes(notes.body))["notes"].strip(),
            notes.headers["etag"],
            orjson.loads(bytes(tags.body))["tags"],
            tags.headers["etag"],
            used_by,
        ),
        "may_change": mine,
    }


def tags_of(ws: Workspace, kind: Kind, tags: dict[str, list[str]]) -> dict[str, Any]:
    """The tags of the things of a list, and those to choose from: for the macros of `macros.html`."""
    return {"tags": tags, "used_tags": [one.tag for one in verbs.used(ws, kind)]}


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
    return Made(entry, kept.require(ws, kind, entry.id).body)


def unmade(request: Request, ws: Workspace, kept: Kept, entry: Entry) -> HTMLResponse:
    """The page of a thing that is not finished: how the making of it stands, or why there will be none."""
    changes = progress.last_change(ws)
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
        changes=changes,
        work=[progress.of(ws, kept, shown.job)] if shown and shown.job.live else [],
        may_change=may_change(ws, entry.owner),
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


def may_change(ws: Workspace, owner: str) -> bool:
    """Whether who asks may change what belongs to `owner`."""
    return ws.role == "admin" or (ws.role == "member" and owner == ws.user)
