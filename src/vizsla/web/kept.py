"""Things as JSON, kept in memory as long as their files are as they were."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Request
from pydantic import BaseModel

from vizsla import files, work
from vizsla.api import datasets, evaluations, models, runs
from vizsla.errors import VizslaError
from vizsla.events import FINAL
from vizsla.store.jobs import Kind
from vizsla.store.workspace import FINAL_FILE, Workspace
from vizsla.web.schema import RunAnswer, read

MAX_BYTES = 64_000_000
# What an item takes beside its JSON.
OVERHEAD_BYTES = 1000


class Item(NamedTuple):
    """A finished thing."""

    body: bytes
    """its JSON"""
    facts: dict[str, str]
    """what lists are filtered by and the database does not know"""


class _Known(NamedTuple):
    files: tuple[int, ...]
    worker: int | None
    item: Item


class Kept:
    """The things that were asked for last, in bounded memory. Safe to be asked by several threads."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Kind, str], _Known] = OrderedDict()

    def get(self, ws: Workspace, kind: Kind, id: str) -> Item | None:
        """The thing of this id as it is now; None: it is not finished, or is damaged, or gone."""
        try:
            return self.require(ws, kind, id) if ws.is_finished(kind, id) else None
        except VizslaError:
            return None

    def require(self, ws: Workspace, kind: Kind, reference: str) -> Item:
        """The thing of this whole name or id as it is now.

        Raises:
            VizslaError: as for `schema.read`.
        """
        # The files are looked at before they are read: what changes in between is read again the next time.
        folder = ws.folder(kind, reference)
        stamps = _stamps(ws, kind, reference)
        with self._lock:
            known = self._known.get((kind, reference))
        if known and stamps and known.files == stamps:
            # A run that has ended says in its events that it goes on, before its worker begins.
            if kind != "run" or (known.worker is None and known.item.facts["state"] in FINAL):
                return self._used(kind, reference, known)
            if known.worker == files.lock_holder(folder):
                return self._used(kind, reference, known)
        worker = files.lock_holder(folder) if kind == "run" else None
        answer = read(ws, kind, reference, READERS[kind])
        item = Item(answer.model_dump_json().encode(), _facts(answer))
        if stamps:
            self._keep(kind, reference, _Known(stamps, worker, item))
        return item

    def _used(self, kind: Kind, id: str, known: _Known) -> Item:
        with self._lock:
            if (kind, id) in self._known:
                self._known.move_to_end((kind, id))
        return known.item

    def _keep(self, kind: Kind, id: str, known: _Known) -> None:
        with self._lock:
            self._drop(self._known.pop((kind, id), None))
            self._known[kind, id] = known
            self._num_bytes += len(known.item.body) + OVERHEAD_BYTES
            while self._num_bytes > self._max_bytes:
                self._drop(self._known.popitem(last=False)[1])

    def _drop(self, known: _Known | None) -> None:
        self._num_bytes -= len(known.item.body) + OVERHEAD_BYTES if known else 0


def _run(ws: Workspace, id: str) -> RunAnswer:
    return RunAnswer.of(runs.get(ws, id))


READERS: dict[Kind, Callable[[Workspace, str], BaseModel]] = {
    "dataset": datasets.get,
    "run": _run,
    "model": models.get,
    "evaluation": evaluations.get,
}


def _facts(answer: Any) -> dict[str, str]:
    if isinstance(answer, RunAnswer):
        return {"state": answer.progress.state, "network": answer.run.network}
    return {name: str(getattr(answer, name)) for name in ("network", "split") if hasattr(answer, name)}


def _stamps(ws: Workspace, kind: Kind, id: str) -> tuple[int, ...]:
    """What changes when the files of a thing do: written anew they are other files, and events only grow."""
    folder = ws.folder(kind, id)
    found: list[int] = []
    for name in (FINAL_FILE[kind], work.EVENTS) if kind == "run" else (FINAL_FILE[kind],):
        try:
            stat = (folder / name).stat()
        except OSError:
            return ()
        found += [stat.st_ino, stat.st_mtime_ns, stat.st_size]
    return tuple(found)


def kept(request: Request) -> Kept:
    """What the server has kept."""
    found: Kept = request.app.state.kept
    return found


Known = Annotated[Kept, Depends(kept)]
