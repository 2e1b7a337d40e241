"""What is sent goes on wherever it was, waits for what passes, and is there for who asks again."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import vizsla
from vizsla.api import datasets, uploads
from vizsla.api.receiving import WrongOffset, locking
from vizsla.cli import sending
from vizsla.cli.options import Common
from vizsla.cli.output import err
from vizsla.client.server import Away
from vizsla.datasets import upload
from vizsla.errors import Conflict, DiskFull, VizslaError
from vizsla.jobs import queue
from vizsla.store.workspace import Workspace

DATA = b"PK\3\4" + bytes(1000)


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setattr(uploads, "PAUSE_S", 0.01)
    with vizsla.open(tmp_path / "workspace") as opened:
        yield opened


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "packed.zip"
    path.write_bytes(DATA)
    return path


def _came_without_a_mark(ws: Workspace) -> str:
    """An upload of which all bytes are there, and whose server died before it said so."""
    begun = uploads.create(ws, "packed.zip", size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
    (ws.root / "uploads" / begun.upload.id / upload.DATA).write_bytes(DATA)
    return begun.upload.id


def test_one_that_is_all_there_and_not_marked_is_ended(ws: Workspace, packed: Path) -> None:
    id = _came_without_a_mark(ws)
    sent = uploads.send(ws, packed)
    assert (sent.upload.id, sent.upload.complete) == (id, True)


def test_who_looks_whether_it_is_whole_is_waited_for(ws: Workspace, packed: Path) -> None:
    """As a server that hashes what came, while the line of who sent it was cut."""
    id = _came_without_a_mark(ws)
    folder = ws.root / "uploads" / id
    lock = locking(folder)

    def end() -> None:
        upload.write(folder, upload.open_upload(folder).model_copy(update={"complete": True}))
        lock.release()

    ending = threading.Timer(0.5, end)
    ending.start()
    sent = uploads.send(ws, packed)
    ending.join()
    assert (sent.upload.id, sent.upload.complete) == (id, True)


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (WrongOffset(3), 2),
        (Away("It does not answer."), 2),
        (Conflict("The dataset 'd' is being made from the upload.", where="1aaaaaaaaa"), 1),
        (Conflict("It is a folder and a picture at once.", where="disc"), 1),
    ],
)
def test_only_what_passes_is_waited_for(ws: Workspace, error: VizslaError, times: int) -> None:
    status = uploads.create(ws, "x", kind="folder")
    asked = 0

    def act() -> upload.Status:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise error
        return status

    if times == 1:
        with pytest.raises(type(error)):
            uploads._once_more(act)
    else:
        assert uploads._once_more(act) is status
    assert asked == times


def test_a_lock_is_a_conflict_that_passes(ws: Workspace) -> None:
    id = uploads.create(ws, "x", size=3).upload.id
    lock, waited = locking(ws.root / "uploads" / id), False

    def moved() -> None:
        nonlocal waited
        waited = True
        lock.release()

    uploads._once_more(lambda: uploads.append(ws, id, 0, b"abc"), moved)
    assert waited


def test_after_a_job_that_made_nothing_it_need_not_be_sent_again(ws: Workspace, packed: Path) -> None:
    sent = uploads.send(ws, packed)
    spec = vizsla.DatasetSpec(source=sent.source)
    with pytest.raises(DiskFull):
        datasets.submit(replace(ws, keep_free_bytes=10**18), "d", spec)
    assert upload.open_upload(ws.root / "uploads" / sent.upload.id).used_by is None
    job = datasets.submit(ws, "d", spec)
    assert [one.upload.used_by for one in uploads.list_all(ws)] == [job.thing]
    queue.stop(ws, job)
    assert [one.upload.used_by for one in uploads.list_all(ws)] == [None]
    assert uploads.send(ws, packed).upload.id == sent.upload.id


def test_who_interrupts_the_work_is_told_what_was_sent(ws: Workspace, packed: Path) -> None:
    with err.capture() as told, pytest.raises(KeyboardInterrupt), sending.sent(ws, Common(json=True), packed) as found:
        raise KeyboardInterrupt
    assert str(found[0]) in told.get()
