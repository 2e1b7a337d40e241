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
from vizsla.store.workspace import QUEUE, Workspace

TURN_EVERY_S = 0.5
# Longer than a keeper that has just found the queue empty takes to end.
PATIENCE_S = 5
# A file that asks the keeper to give way.
WANTED = "wanted"


def keeper_folder(ws: Workspace) -> Path:
    """The folder whose lock the keeper holds."""
    folder = ws.root / QUEUE / "keeper"
    folder.mkdir(exist_ok=True)
    return folder


def take(ws: Workspace) -> files.Lock:
    """Become the one who looks after the queue for good. A keeper that `--detach` left behind gives way.

    Raises:
        Conflict: another process does.
    """
    folder = keeper_folder(ws)
    (folder / WANTED).touch()
    try:
        return _lock(folder)
    except Conflict as busy:
        what = f"Process {files.lock_holder(folder)} looks after this queue already: a server, or `vizsla jobs keep`."
        raise Conflict(what, where=str(ws.root), remedy="One is enough; stop it first to take its place.") from busy
    finally:
        (folder / WANTED).unlink(missing_ok=True)


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
        folder = keeper_folder(ws)
        try:
            lock = _lock(folder)
        except Conflict:
            return 0
        keep(ws, lock, wanted=lambda: bool(ws.store.jobs.live()) and not (folder / WANTED).exists())
    return 0


if __name__ == "__main__":
    sys.exit(main())
