"""Opening a workspace, and making, sweeping and deleting the folders in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vizsla import files
from vizsla.datasets.upload import UPLOADS
from vizsla.errors import Conflict, InvalidInput, VizslaError
from vizsla.ids import new_id
from vizsla.jobs import queue
from vizsla.jobs.adopt import adopt
from vizsla.store import tagging
from vizsla.store.address import DATABASE, REMEMBERED, open_store
from vizsla.store.rows import Entry, Kind
from vizsla.store.tagnames import of_folder
from vizsla.store.workspace import FINAL_FILE, PASSING, QUEUE, Workspace, discard_unfinished, require_maker, require_own

Thing = TypeVar("Thing")

NETWORKS = "networks"
NETWORK_PATHS = "VIZSLA_NETWORK_PATHS"
KEEP_FREE = "VIZSLA_KEEP_FREE"
MAX_KEPT_GB = 1e6

# Lies in a folder while its thing is renamed, in the database and then in its file.
RENAMING = ".renaming"

# A folder without a row in the database is being made at this moment, or was left behind long ago.
ORPHAN_AGE_S = 3600


def open_workspace(root: Path, database: str | None = None) -> Workspace:
    """See `vizsla.open`."""
    root = root.expanduser().resolve()
    if root.exists() and not root.is_dir():
        raise InvalidInput("The workspace is a file.", where=str(root), remedy="Give a folder with --workspace.")
    places = (QUEUE, tagging.TAGGING, *(f"{kind}s" for kind in FINAL_FILE))
    ours = {DATABASE, REMEMBERED, "cache", "examples", NETWORKS, UPLOADS, *places}
    if root.is_dir() and not (root / DATABASE).exists() and not (root / REMEMBERED).exists():
        copies = (DATABASE, "database.")
        foreign = sorted(p.name for p in root.iterdir() if p.name not in ours and not p.name.startswith(copies))
        if foreign:
            raise InvalidInput(
                f"The folder is not a workspace and holds other things, such as {foreign[0]!r}.",
                where=str(root),
                remedy="Give a new or empty folder with --workspace.",
            )
    try:
        for name in places:
            (root / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"The workspace cannot be made: {error.strerror}.", where=str(root), remedy="Choose another --workspace."
        ) from None
    kept = _keep_free()
    with files.disk_errors(root / DATABASE):
        store = open_store(root, database)
    workspace = Workspace(root, store, (root / NETWORKS, *_further_networks()), keep_free_bytes=kept)
    if store.created:
        sweep(workspace)
        if adopt(workspace):
            queue.keep(workspace)
    else:
        tagging.heal(workspace)
    return workspace


def _keep_free() -> int | None:
    """What VIZSLA_KEEP_FREE says in GB; None where it says nothing.

    Raises:
        InvalidInput: it is no amount.
    """
    text = os.environ.get(KEEP_FREE, "")
    return keep_free_bytes(text, where=KEEP_FREE) if text else None


def keep_free_bytes(gigabytes: str | float, *, where: str) -> int:
    """GB of the disk that are to stay free, in bytes.

    Raises:
        InvalidInput: it is no amount.
    """
    try:
        amount = float(gigabytes)
        if not 0 <= amount < MAX_KEPT_GB:
            raise ValueError
    except ValueError:
        raise InvalidInput(
            f"{gigabytes!r} is no amount of room on the disk.", where=where, remedy="Give GB, such as 20."
        ) from None
    return int(amount * 1e9)


def _further_networks() -> tuple[Path, ...]:
    """The folders that the administrator names. An empty part is none: as a path it would be the working folder."""
    return tuple(Path(part) for part in os.environ.get(NETWORK_PATHS, "").split(os.pathsep) if part)


@dataclass(frozen=True)
class Claim:
    """A name that was taken and a locked, empty folder to fill."""

    entry: Entry
    folder: Path
    lock: files.Lock


@contextlib.contextmanager
def claim(ws: Workspace, kind: Kind, name: str, parents: Sequence[str] = (), *, swept: bool = False) -> Iterator[Claim]:
    """Take a name and a folder for a thing to be made; give both back unless it is finished, or a job is to make it.

    Args:
        parents: ids of what it is made from.
        swept: a sweep has just been made, so that none is needed.

    Raises:
        Conflict: the name is taken, or another process is making a thing of that name.
    """
    require_maker(ws)
    if not swept:
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
        discard_unfinished(ws, kind, id)


def _take_name(ws: Workspace, kind: Kind, name: str, parents: Sequence[str], id: str) -> Entry:
    try:
        return ws.store.add(kind, name, owner=ws.user, parents=parents, id=id)
    except Conflict:
        other = next((row for row in ws.store.all(kind) if row.name == name), None)
        making = ws.store.jobs.live_of(other.id) if other else None
        if making and not ws.is_finished(kind, making.thing):
            raise Conflict(
                f"The {kind} {name!r} is in the making: its job {making.id} is {making.state}.",
                remedy="Wait until it is done, or choose another name.",
            ) from None
        holder = files.lock_holder(ws.folder(kind, other.id)) if other else None
        if other and holder and not (ws.folder(kind, other.id) / FINAL_FILE[kind]).exists():
            raise Conflict(
                f"Process {holder} is making the {kind} {name!r} at this moment.",
                remedy="Wait until it is done, or choose another name.",
            ) from None
        raise


def sweep(ws: Workspace) -> list[Entry]:
    """Bring folders and database into agreement after crashes; returns what was removed.

    Unfinished work of processes that are gone is removed with its row, a row without a folder too. A whole folder
    without a row, as after the loss of the database, gets its row again: the facts win, as they do with tags. A
    renaming that was cut short is brought to its end.
    """
    tagging.heal(ws)
    swept = []
    for kind, final in FINAL_FILE.items():
        rows = {row.id: row for row in ws.store.all(kind)}
        place = str(ws.root / f"{kind}s")
        with os.scandir(place) as found:
            folders = {item.name for item in found if item.is_dir()}
        for id in sorted(folders):
            if kind in PASSING and _age_s(ws.folder(kind, id)) > ORPHAN_AGE_S and not ws.store.jobs.live_of(id):
                (ws.folder(kind, id) / final).unlink(missing_ok=True)  # who asked for it is gone
            # A Path for each of 10,000 folders would cost more than to look into them.
            if os.path.exists(f"{place}/{id}/{final}"):  # noqa: PTH110
                if id not in rows and kind not in PASSING:
                    _register(ws, kind, ws.folder(kind, id) / final)
                elif id in rows and os.path.exists(f"{place}/{id}/{RENAMING}"):  # noqa: PTH110
                    _end_renaming(ws, rows[id])
                continue
            abandoned = id in rows or _age_s(ws.folder(kind, id)) > ORPHAN_AGE_S
            if abandoned and discard_unfinished(ws, kind, id) and id in rows:
                swept.append(rows[id])
        for id in rows.keys() - folders:
            with contextlib.suppress(Conflict):  # others were made from it: its name and lineage stay
                ws.store.remove(id)
                swept.append(rows[id])
    return swept


def _age_s(folder: Path) -> float:
    """How long ago something was put into a folder, or taken from it."""
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:  # deleted while this looked
        return 0.0


def require_finished(ws: Workspace, entry: Entry) -> None:
    """Raise `Conflict` unless a thing is finished, or a run has begun: it says how the making of it stands."""
    if ws.is_finished(entry.kind, entry.id):
        return
    what = f"The {entry.kind} {entry.name!r} {'has not begun' if entry.kind == 'run' else 'is not finished'}"
    job = ws.store.jobs.live_of(entry.id)
    if job is None:
        raise Conflict(f"{what}.", remedy="Make it again.")
    stands: str = job.state
    if job.state == "queued" and job.cause:
        stands = f"queued: it {job.cause}"
    elif job.state == "running" and entry.kind == "run":  # its worker is, and what it asks for is not yet accepted
        stands = "being prepared"
    raise Conflict(f"{what}; it is {stands}.", remedy=f"`vizsla jobs show {job.id}` shows how it stands.")


def finished(ws: Workspace, kind: Kind, reference: str) -> Path:
    """The folder of the finished thing of this id, name or beginning of one.

    Raises:
        NotFound: there is none.
        Conflict: it is not finished.
    """
    entry = ws.store.find(reference, kind)
    require_finished(ws, entry)
    return ws.folder(kind, entry.id)


def readable(
    ws: Workspace,
    kind: Kind,
    read: Callable[[Path], Thing],
    limit: int | None = None,
    *,
    tags: Sequence[str] = (),
) -> list[Thing]:
    """All finished things of a kind, or the newest `limit`, oldest first; the files of others are not read.

    With `tags` only those that have all of these. One whose files are damaged is left out, with a warning.
    """
    sweep(ws)
    found: list[Thing] = []
    for entry in reversed(ws.store.all(kind, tags=tags)):
        if len(found) == limit:
            break
        folder = ws.folder(kind, entry.id)
        if not (folder / FINAL_FILE[kind]).exists():
            continue
        try:
            found.append(read(folder))
        except InvalidInput as error:
            warnings.warn(f"The {kind} {entry.name!r} ({entry.id}) is left out: {error.what}", stacklevel=2)
    return found[::-1]


def _register(ws: Workspace, kind: Kind, final: Path) -> None:
    """Give a whole folder its row. What it was made from has its row already: kinds are swept in that order."""
    try:
        facts = files.read_json(final)
        ids = [facts.get(part, {}).get("id") for part in ("dataset", "run", "subject", "model")]
        ids += facts.get("model_names", {})
        known = ws.store.known([facts["id"], *ids])
        if facts["id"] in known:
            return  # it was finished while the sweep looked
        parents = [id for id in ids if id in known]
        tags = of_folder(final.parent)
        ws.store.add(kind, facts["name"], parents=parents, id=facts["id"], created_at=facts["created_at"], tags=tags)
    except (VizslaError, OSError, KeyError, AttributeError) as error:
        warnings.warn(f"{final} is left out: {error}", stacklevel=2)


def to_change(ws: Workspace, kind: Kind, reference: str) -> Entry:
    """The thing of this id, name or beginning of one, which the user may change.

    Raises:
        NotFound: there is no such thing.
        Forbidden: it belongs to another.
    """
    entry = ws.store.find(reference, kind)
    require_own(ws, f"{kind} {entry.name!r}", entry.owner)
    return entry


def rename(ws: Workspace, kind: Kind, reference: str, name: str) -> Entry:
    """Give a finished thing, or a run that has begun, another name. What was made from it keeps the name it knows.

    Raises:
        NotFound: there is no such thing.
        Forbidden: it belongs to another.
        InvalidInput: the name cannot be used.
        Conflict: the name is taken, or the thing is in the making.
    """
    entry = to_change(ws, kind, reference)
    folder = ws.folder(kind, entry.id)
    require_finished(ws, entry)
    with files.Lock(folder):
        files.read_json(folder / FINAL_FILE[kind])  # refused before anything is changed, where it is damaged
        files.write_text(folder / RENAMING, "")
        try:
            ws.store.rename(entry.id, name)
            _name_in_folder(folder, kind, name)
        except (VizslaError, OSError):
            ws.store.rename(entry.id, entry.name)
            _name_in_folder(folder, kind, entry.name)
            raise
    return entry._replace(name=name)


def _name_in_folder(folder: Path, kind: Kind, name: str) -> None:
    """The last step of a renaming. The folder is locked."""
    facts = files.read_json(folder / FINAL_FILE[kind])
    if facts.get("name") != name:
        files.write_json(folder / FINAL_FILE[kind], facts | {"name": name})
    (folder / RENAMING).unlink(missing_ok=True)


def _end_renaming(ws: Workspace, entry: Entry) -> None:
    """Give a thing whose renaming was cut short the name that the database has for it."""
    folder = ws.folder(entry.kind, entry.id)
    lock = files.Lock(folder)
    try:
        lock.acquire(patience_s=0)
    except (VizslaError, FileNotFoundError):  # it is being renamed, or worked on: a later sweep does it
        return
    try:
        # As it is now: it may have been renamed again before the lock was taken.
        _name_in_folder(folder, entry.kind, ws.store.exact(entry.id, entry.kind).name)
    except (VizslaError, OSError, AttributeError) as error:
        warnings.warn(f"{folder} does not have its new name yet: {error}", stacklevel=2)
    finally:
        lock.release()


def delete(ws: Workspace, kind: Kind, reference: str) -> Entry:
    """Delete a thing and its files.

    Raises:
        NotFound: there is no such thing.
        Forbidden: it belongs to another.
        Conflict: other things were made from it, or a process is at work on it.
    """
    entry = to_change(ws, kind, reference)
    _forget_passing(ws, entry)
    _erase(ws, entry)
    return entry


def _forget_passing(ws: Workspace, entry: Entry) -> None:
    """Erase what was left of passing things that were made from one, which nobody can name to delete it."""
    made = ws.store.children(entry.id)
    if not all(child.kind in PASSING for child in made):
        return  # the rest is refused with
    for child in made:
        job = ws.store.jobs.live_of(child.id)
        if job is not None:
            raise Conflict(
                f"It is in use by the {job.kind} {job.name}, which is {job.state}.",
                remedy=f"Wait until it has ended, or stop it: vizsla jobs stop {job.id}",
            )
        _erase(ws, child)


def _erase(ws: Workspace, entry: Entry) -> None:
    kind, folder = entry.kind, ws.folder(entry.kind, entry.id)
    waiting = ws.store.jobs.live_of(entry.id)
    if waiting and waiting.state == "queued":
        raise Conflict(
            f"The {kind} {entry.name!r} is in the queue.", remedy=f"Stop it first: vizsla jobs stop {waiting.id}"
        )
    lock = files.Lock(folder)
    try:
        lock.acquire(patience_s=0.3)  # who only looks holds it for a moment
    except Conflict as busy:
        raise Conflict(
            f"{busy.what.removesuffix('here.')}on the {kind} {entry.name!r}.", remedy="Stop it first."
        ) from None
    except FileNotFoundError:
        ws.store.remove(entry.id)
        return
    try:
        ws.store.remove(entry.id)
        # Without this file the rest is unfinished work, which a sweep removes should this process be killed here.
        (folder / FINAL_FILE[kind]).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.release()
