"""Things as JSON, kept in memory as long as their files are as they were."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Request
from pydantic import BaseModel

from vizsla import files, work
from vizsla.datasets.dataset import open_dataset
from vizsla.errors import VizslaError
from vizsla.evaluation.report import read_report
from vizsla.events import FINAL
from vizsla.models.card import open_model
from vizsla.models.predictions import open_prediction
from vizsla.serving.figures import FIGURES
from vizsla.serving.hosting import open_hosted
from vizsla.store.rows import Kind
from vizsla.store.workspace import FINAL_FILE, LASTING, Workspace
from vizsla.training import run
from vizsla.web.schema import RunAnswer, read

MAX_BYTES = 64_000_000
# What an item takes beside its JSON.
OVERHEAD_BYTES = 1000
# More would not read faster, and keep those waiting who need no file.
READ_AT_ONCE = 2


Reader = Callable[[Path], BaseModel]
"""what makes a record of a folder"""


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
    """The things that were asked for last, in bounded memory. Safe to be asked by several threads.

    What several ask for at a time is read once, and no more than `READ_AT_ONCE` things are.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self.num_bytes = 0
        """memory that they take, nearly"""
        self._lock = threading.Lock()
        self._reading = [threading.Lock() for _ in range(READ_AT_ONCE)]
        self._known: OrderedDict[tuple[Kind, str], _Known] = OrderedDict()

    def get(self, ws: Workspace, kind: Kind, id: str, wanted: Mapping[str, str] = MappingProxyType({})) -> Item | None:
        """The thing of this id as it is now; None: it is not finished, or is damaged, or gone, or not what is wanted.

        Args:
            wanted: facts that it is to have, see `Item`.
        """
        if kind == "run" and wanted.get("state") == "running" and files.lock_holder(ws.folder(kind, id)) is None:
            return None  # nearly no run is: none of its files need be read for that
        try:
            item = self._get(ws, kind, id, READERS[kind]) if _stamps(ws, kind, id) else None
        except VizslaError:
            return None
        return item if item and all(item.facts.get(name) == value for name, value in wanted.items()) else None

    def require(self, ws: Workspace, kind: Kind, id: str) -> Item:
        """The thing of this id as it is now.

        Raises:
            VizslaError: as for `schema.read`.
        """

        def reasoned(folder: Path) -> BaseModel:
            return read(ws, kind, id, lambda ws, id: READERS[kind](folder))

        return self._get(ws, kind, id, reasoned)

    def _get(self, ws: Workspace, kind: Kind, id: str, open_: Reader) -> Item:
        found = self._as_known(ws, kind, id, _stamps(ws, kind, id))
        if found is not None:
            return found
        with self._reading[hash(id) % READ_AT_ONCE]:
            # Looked at before they are read: what changes in between is read again the next time. And looked at anew:
            # whoever was here before may have read them as they are now.
            stamps = _stamps(ws, kind, id)
            found = self._as_known(ws, kind, id, stamps)
            if found is not None:
                return found
            worker = files.lock_holder(ws.folder(kind, id)) if kind in LASTING else None
            answer = open_(ws.folder(kind, id))
            item = Item(answer.model_dump_json().encode(), _facts(answer))
            if stamps:
                self._keep(kind, id, _Known(stamps, worker, item))
            return item

    def _as_known(self, ws: Workspace, kind: Kind, id: str, stamps: tuple[int, ...]) -> Item | None:
        """What is kept of a thing, if that is how its files are now."""
        with self._lock:
            known = self._known.get((kind, id))
            if known is None or not stamps or known.files != stamps:
                return None
            self._known.move_to_end((kind, id))
        # A run that has ended says in its events that it goes on, before its worker begins.
        if kind not in LASTING or (known.worker is None and known.item.facts["state"] in FINAL):
            return known.item
        return known.item if known.worker == files.lock_holder(ws.folder(kind, id)) else None

    def _keep(self, kind: Kind, id: str, known: _Known) -> None:
        with self._lock:
            self._drop(self._known.pop((kind, id), None))
            self._known[kind, id] = known
            self.num_bytes += len(known.item.body) + OVERHEAD_BYTES
            while self.num_bytes > self._max_bytes:
                self._drop(self._known.popitem(last=False)[1])

    def _drop(self, known: _Known | None) -> None:
        self.num_bytes -= len(known.item.body) + OVERHEAD_BYTES if known else 0


def _run(folder: Path) -> RunAnswer:
    return RunAnswer.of(run.status(folder))


GROWING: dict[Kind, tuple[str, ...]] = {"run": (work.EVENTS,), "service": (work.EVENTS, FIGURES)}
"""the files that tell how work stands that is taken up again and again"""
READERS: dict[Kind, Reader] = {
    "dataset": open_dataset,
    "run": _run,
    "model": open_model,
    "evaluation": read_report,
    "prediction": open_prediction,
    "service": open_hosted,
}


def _facts(answer: Any) -> dict[str, str]:
    if isinstance(answer, RunAnswer):
        return {"state": answer.progress.state, "network": answer.run.network}
    return {name: str(getattr(answer, name)) for name in ("network", "split", "state") if hasattr(answer, name)}


def _stamps(ws: Workspace, kind: Kind, id: str) -> tuple[int, ...]:
    """What changes when the files of a thing do: written anew they are others, and events grow. (): not finished."""
    folder = f"{ws.root}/{kind}s/{id}"  # a Path for each of 500 things would cost more than to look at them
    try:
        found = _stamp(f"{folder}/{FINAL_FILE[kind]}")
    except OSError:
        return ()
    for name in GROWING.get(kind, ()):
        with contextlib.suppress(FileNotFoundError):
            found += _stamp(f"{folder}/{name}")
    return found


def _stamp(path: str) -> tuple[int, ...]:
    stat = os.stat(path)  # noqa: PTH116 - see above
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def kept(request: Request) -> Kept:
    """What the server has kept."""
    found: Kept = request.app.state.kept
    return found


Known = Annotated[Kept, Depends(kept)]
