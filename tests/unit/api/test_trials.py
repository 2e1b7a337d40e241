"""A learning rate is looked for in the queue: what waits too long, hangs or is stopped leaves nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import vizsla
from vizsla import files
from vizsla.api import trials, workspace
from vizsla.errors import InvalidInput, TooSlow, Unavailable, WorkerDied
from vizsla.jobs import devices, queue
from vizsla.jobs.schedule import Need
from vizsla.jobs.spec import JobSpec
from vizsla.store.rows import Job
from vizsla.store.workspace import Workspace

SPEC = vizsla.TrainingSpec(net="lenet", device="cuda", processes=2)
HANGING = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace with the dataset `d` on a machine with a card."""
    monkeypatch.setenv(devices.DECLARED, "cuda:0=24")
    with vizsla.open(tmp_path / "workspace") as opened:
        with workspace.claim(opened, "dataset", "d") as claim:
            files.write_json(claim.folder / "dataset.json", {})
        yield opened
        assert opened.store.all("rate") == []
        assert list((opened.root / "rates").iterdir()) == []


@pytest.fixture
def full(ws: Workspace) -> Workspace:
    """The same while the card is kept for a training that comes first, and waits for another one."""
    need = Need(("cuda:0", "cuda:1"), 2).as_dict()
    ws.store.jobs.add("run", "1aaaaaaaaa", "first", owner="ada", need=need, priority=5)
    return ws


def _newest(ws: Workspace) -> Job:
    return ws.store.jobs.newest(1)[0]


def test_it_does_not_overtake_a_training(full: Workspace) -> None:
    with pytest.raises(TooSlow, match="It still waits for cuda:0: others come first"):
        trials.find_rate(full, "d", SPEC, timeout_s=0.2)
    job = _newest(full)
    assert (job.kind, job.name, job.state, job.attempt) == ("rate", "d-1", "stopped", 0)
    assert Need.of(job.need) == Need(("cuda:0",), 1), "one process is enough"
    assert job.retries == 0


def test_it_goes_through_the_queue_as_is_asked(full: Workspace) -> None:
    with pytest.raises(TooSlow):
        trials.find_rate(full, "d", SPEC, job=JobSpec(priority=-3, retries=1, gpu_memory=8.0), timeout_s=0.2)
    job = _newest(full)
    assert (job.priority, job.retries, Need.of(job.need)) == (-3, 1, Need(("cuda:0",), 1, 8.0))


def test_off_the_main_thread_one_that_is_stopped_is_an_error(full: Workspace) -> None:
    raised: list[BaseException] = []

    def find() -> None:
        try:
            trials.find_rate(full, "d", SPEC)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=find)
    thread.start()
    while _newest(full).kind != "rate":
        time.sleep(0.01)
    queue.stop(full, _newest(full))
    thread.join()
    assert [type(error) for error in raised] == [WorkerDied]


def test_one_that_hangs_is_killed_at_the_end_of_its_time(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hanging_worker.py").write_text(HANGING)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setitem(queue.WORKERS, "rate", "hanging_worker")
    monkeypatch.setattr(trials, "STOP_S", 0.1)
    with pytest.raises(TooSlow):
        trials.find_rate(ws, "d", SPEC, timeout_s=3)
    assert (_newest(ws).state, _newest(ws).attempt, _newest(ws).held) == ("stopped", 1, ())


def test_what_can_never_be_is_refused_at_once(ws: Workspace) -> None:
    with pytest.raises(Unavailable, match=r"There is no GPU 7: 1 was found\."):
        trials.find_rate(ws, "d", SPEC.model_copy(update={"device": "cuda:7"}))
    ws.store.add("dataset", "coming", id="1bbbbbbbbb")
    with pytest.raises(InvalidInput, match="is not finished"):
        trials.find_rate(ws, "coming", SPEC)
    assert ws.store.jobs.live() == []
