"""The process that looks after the queue for jobs that nobody waits for: `python -m vizsla.api.keeper WORKSPACE`.

It ends when the queue is empty, or never, as `vizsla jobs keep` asks.
"""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from vizsla import files
from vizsla.api.workspace import open_workspace
from vizsla.errors import Conflict
from vizsla.jobs import queue
from vizsla.jobs.adopt import adopt
from vizsla.store.workspace import QUEUE, Workspace

TURN_EVERY_S = 0.5
# Longer than a keeper that has just found the queue empty takes to end.
PATIENCE_S = 5


def keeper_folder(ws: Workspace) -> Path:
    """The folder whose lock the keeper holds."""
    return _folder(ws, "keeper")


def _successor_folder(ws: Workspace) -> Path:
    """The folder whose lock is held by who wants to take a keeper's place."""
    return _folder(ws, "successor")


def _folder(ws: Workspace, name: str) -> Path:
    folder = ws.root / QUEUE / name
    folder.mkdir(exist_ok=True)
    return folder


def take(ws: Workspace) -> files.Lock:
    """Become the one who looks after the queue for good. A keeper that `--detach` left behind gives way.

    Raises:
        Conflict: another process does.
    """
    try:
        with files.Lock(_successor_folder(ws)):
            lock = _lock(keeper_folder(ws))
    except Conflict as busy:
        holder = files.lock_holder(keeper_folder(ws))
        what = f"Process {holder} looks after this queue already: a server, or `vizsla jobs keep`."
        raise Conflict(what, where=str(ws.root), remedy="One is enough; stop it first to take its place.") from busy
    try:
        adopt(ws)
    except BaseException:
        lock.release()
        raise
    return lock


def _lock(folder: Path) -> files.Lock:
    lock = files.Lock(folder)
    lock.acquire(PATIENCE_S)
    return lock


def keep(
    ws: Workspace, lock: files.Lock, *, wanted: Callable[[], bool], on_turn: Callable[[], None] = lambda: None
) -> None:
    """Look after the queue as long as `wanted()`, and let go of `lock`, which `take` gave.

    Args:
        on_turn: called after each turn that went well.
    """
    told = ""
    try:
        while True:
            # A disk that is full, a database that is busy for long: all others depend on this one to go on.
            try:
                if not wanted():
                    break
                queue.turn(ws)
                on_turn()
            except Exception as error:
                with contextlib.suppress(OSError):
                    if told != (told := repr(error)):
                        traceback.print_exc()
            time.sleep(TURN_EVERY_S)
    finally:
        lock.release()


def main() -> int:
    """Look after the queue until it is empty or another process wants to, unless one does."""
    with open_workspace(Path(sys.argv[1])) as ws:
        try:
            lock = _lock(keeper_folder(ws))
        except Conflict:
            return 0
        successor = _successor_folder(ws)
        keep(ws, lock, wanted=lambda: bool(ws.store.jobs.live()) and files.lock_holder(successor) is None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
