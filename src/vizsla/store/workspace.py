"""The workspace: a root folder and its database. It has no verbs; they take it as their first argument."""

from __future__ import annotations

import getpass
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from vizsla import files
from vizsla.errors import Conflict, DiskFull, Forbidden
from vizsla.store.queries import Store
from vizsla.store.rows import Kind, Role

# The file that makes a folder of each kind whole; it is written last.
FINAL_FILE: dict[Kind, str] = {
    "dataset": "dataset.json",
    "run": "run.json",
    "model": "model.json",
    "evaluation": "report.json",
    "prediction": "prediction.json",
    "service": "hosting.json",
    "rate": "rates.json",
}

LASTING: frozenset[Kind] = frozenset({"run", "service"})
"""the kinds that are whole before the work on them begins, and whose work can be taken up again"""

PASSING: frozenset[Kind] = frozenset({"rate"})
"""the kinds of which nothing is kept once it was told to the one who asked"""

QUEUE = "queue"
"""the folder whose lock is held by the process that looks after the queue at this moment"""


def machine_user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a number without a name
        return str(os.getuid())


@dataclass(frozen=True)
class Workspace:
    """Where everything lies. Close it when done, or use it in a `with` statement."""

    root: Path
    store: Store
    network_folders: tuple[Path, ...] = ()
    """where the Python files lie that may be run as networks"""
    user: str = field(default_factory=machine_user)
    """on whose behalf things are made: the account that asks a server, else who runs this process"""
    role: Role = "admin"
    """what that user may do; who runs a process here can change the files anyway"""
    keep_free_bytes: int | None = None
    """of the disk, for new work to begin; None: see `files.require_space`"""

    def require_space(self, num_bytes: int = 0) -> None:
        """Raise `DiskFull` unless new work of so many bytes leaves free what has to stay free."""
        files.require_space(self.root, num_bytes, keep_free_bytes=self.keep_free_bytes)

    def folder(self, kind: Kind, id: str) -> Path:
        """The folder of a thing."""
        return self.root / f"{kind}s" / id

    def is_finished(self, kind: Kind, id: str) -> bool:
        """Whether the folder of a thing is whole; a run's is from when it was accepted."""
        return (self.folder(kind, id) / FINAL_FILE[kind]).exists()

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def require_maker(ws: Workspace) -> None:
    """Raise `Forbidden` where the user may only look."""
    if ws.role == "viewer":
        raise Forbidden(f"This takes the role of member; {ws.user} is a viewer.", remedy="Ask an admin.")


def require_own(ws: Workspace, what: str, owner: str) -> None:
    """Raise `Forbidden` where the user may not change what belongs to `owner`."""
    if ws.role != "admin" and (ws.role != "member" or owner != ws.user):
        raise Forbidden(
            f"The {what} belongs to {owner or 'nobody'}; you are {ws.user}, a {ws.role}.",
            remedy="Ask its owner or an admin.",
        )


def discard_unfinished(ws: Workspace, kind: Kind, id: str) -> bool:
    """Remove a folder and its row unless it is finished, or is worked on, or will be; returns whether it did.

    Looks and removes under the folder's lock, so that no work can be finished between the two.
    """
    if ws.store.jobs.live_of(id):
        return False  # before the lock is touched: it tells who is at work
    folder = ws.folder(kind, id)
    lock = files.Lock(folder)
    try:
        lock.acquire(patience_s=0)
    except (Conflict, DiskFull, FileNotFoundError):  # a later sweep does it
        return False
    try:
        if ws.is_finished(kind, id) or ws.store.jobs.live_of(id):
            return False
        ws.store.remove(id)
        shutil.rmtree(folder, ignore_errors=True)
    except Conflict:  # others are to be made from it; they go first
        return False
    finally:
        lock.release()
    return True
