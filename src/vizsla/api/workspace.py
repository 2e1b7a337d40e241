"""The workspace: a root folder and its database. It has no verbs; they take it as their first argument."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vizsla import files, work
from vizsla.errors import Conflict, InvalidInput
from vizsla.ids import new_id
from vizsla.store.queries import Entry, Kind, Store

DATABASE = "vizsla.db"

# The file that makes a folder of each kind whole; it is written last.
FINAL_FILE: dict[Kind, str] = {
    "dataset": "dataset.json",
    "run": "run.json",
    "model": "model.json",
    "evaluation": "report.json",
}

# A folder without a row in the database is being made at this moment, or was left behind long ago.
ORPHAN_AGE_S = 3600


@dataclass(frozen=True)
class Workspace:
    """Where everything lies. Close it when done, or use it in a `with` statement."""

    root: Path
    store: Store

    def folder(self, kind: Kind, id: str) -> Path:
        """The folder of a thing."""
        return self.root / f"{kind}s" / id

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_workspace(root: Path) -> Workspace:
    """See `vizsla.open`."""
    root = root.expanduser().resolve()
    if root.exists() and not root.is_dir():
        raise InvalidInput("The workspace is a file.", where=str(root), remedy="Give a folder with --workspace.")
    ours = {DATABASE, "examples", *(f"{kind}s" for kind in FINAL_FILE)}
    if root.is_dir() and not (root / DATABASE).exists():
        foreign = sorted(p.name for p in root.iterdir() if p.name not in ours and not p.name.startswith(DATABASE))
        if foreign:
            raise InvalidInput(
                f"The folder is not a workspace and holds other things, such as {foreign[0]!r}.",
                where=str(root),
                remedy="Give a new or empty folder with --workspace.",
            )
    try:
        for kind in FINAL_FILE:
            (root / f"{kind}s").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"The workspace cannot be made: {error.strerror}.", where=str(root), remedy="Choose another --workspace."
        ) from None
    with files.disk_errors(root / DATABASE):
        store = Store(root / DATABASE)
    workspace = Workspace(root, store)
    if store.created:
        _register_folders(workspace)
    return workspace


def _register_folders(ws: Workspace) -> None:
    """Give the whole things in the folders their rows again, after the database was lost. The facts win."""
    for kind, final in FINAL_FILE.items():
        for path in sorted(ws.root.glob(f"{kind}s/*/{final}")):
            facts = files.read_json(path)
            known = {row.id for other in FINAL_FILE for row in ws.store.all(other)}
            ids = (facts.get(part, {}).get("id") for part in ("dataset", "run", "subject"))
            parents = [id for id in ids if id in known]
            ws.store.add(kind, facts["name"], parents=parents, id=facts["id"])


@dataclass(frozen=True)
class Claim:
    """A name that was taken and a locked, empty folder to fill."""

    entry: Entry
    folder: Path
    lock: files.Lock


@contextlib.contextmanager
def claim(ws: Workspace, kind: Kind, name: str, parents: Sequence[str] = ()) -> Iterator[Claim]:
    """Take a name and a folder for a thing to be made; give both back unless its final file was written.

    Raises:
        Conflict: the name is taken, or another process is making a thing of that name.
    """
    sweep(ws)
    id = new_id()
    folder = ws.folder(kind, id)
    with files.disk_errors(folder):
        folder.mkdir()
    lock = files.Lock(folder)
    entry: Entry | None = None
    try:
        lock.acquire()  # before the name is taken: a row whose folder nobody holds is unfinished work
        entry = _take_name(ws, kind, name, parents, id)
        yield Claim(entry, folder, lock)
    finally:
        lock.release()
        if not (folder / FINAL_FILE[kind]).exists() and files.lock_holder(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
            if entry is not None:
                ws.store.remove(id)


def _take_name(ws: Workspace, kind: Kind, name: str, parents: Sequence[str], id: str) -> Entry:
    try:
        return ws.store.add(kind, name, parents=parents, id=id)
    except Conflict:
        other = next((row for row in ws.store.all(kind) if row.name == name), None)
        holder = files.lock_holder(ws.folder(kind, other.id)) if other else None
        if other and holder and not (ws.folder(kind, other.id) / FINAL_FILE[kind]).exists():
            raise Conflict(
                f"Process {holder} is making the {kind} {name!r} at this moment.",
                remedy="Wait until it is done, or choose another name.",
            ) from None
        raise


def sweep(ws: Workspace) -> list[Entry]:
    """Remove what was left unfinished by processes that are gone; returns what was removed."""
    swept = []
    for kind, final in FINAL_FILE.items():
        rows = {row.id: row for row in ws.store.all(kind)}
        for folder in (ws.root / f"{kind}s").iterdir():
            if (folder / final).exists() or not folder.is_dir() or files.lock_holder(folder) is not None:
                continue
            row = rows.get(folder.name)
            if row is None and time.time() - folder.stat().st_mtime < ORPHAN_AGE_S:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            if row is not None:
                ws.store.remove(row.id)
                swept.append(row)
    return swept


def tidy(folder: Path) -> None:
    """Remove the traces of the worker from a finished folder: what remains is the thing itself."""
    for name in (work.REQUEST, work.EVENTS, work.LOG, files.LOCK):
        (folder / name).unlink(missing_ok=True)


def delete(ws: Workspace, kind: Kind, reference: str) -> Entry:
    """Delete a thing and its files.

    Raises:
        NotFound: there is no such thing.
        Conflict: other things were made from it, or a process is at work on it.
    """
    entry = ws.store.find(kind, reference)
    folder = ws.folder(kind, entry.id)
    holder = files.lock_holder(folder)
    if holder is not None:
        raise Conflict(
            f"Process {holder} is at work on the {kind} {entry.name!r}.", where=str(folder), remedy="Stop it first."
        )
    ws.store.remove(entry.id)
    shutil.rmtree(folder, ignore_errors=True)
    return entry
