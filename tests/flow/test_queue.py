"""The queue with real work: who waits, what is killed and goes on, what is left alone, and what is stopped."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.postgres import programs
from tests.support import TINY, Cli, command, draw_shapes, environment, kill_process

import vizsla
from vizsla import events, files
from vizsla.api import datasets, evaluations, jobs, machine, models, runs
from vizsla.errors import Conflict, InvalidInput, NotFound, Unavailable, WorkerDied
from vizsla.jobs import queue
from vizsla.jobs.schedule import Need
from vizsla.jobs.spec import JobSpec
from vizsla.store.rows import Job
from vizsla.store.workspace import Workspace
from vizsla.training.run import find_checkpoint

pytestmark = pytest.mark.slow

WAIT_S = 120
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
LONG = TINY.model_copy(update={"epochs": 400, "checkpoint_every_s": 0.01})


@pytest.fixture(scope="module")
def pictures(ws: Workspace) -> Path:
    return datasets.get(ws, "shapes").spec.source


@pytest.fixture
def cli(ws: Workspace) -> Cli:
    return Cli(ws.root)


@pytest.fixture(autouse=True)
def nothing_is_left(ws: Workspace) -> Iterator[None]:
    """After each test the queue is empty, and nobody holds a device."""
    yield
    for job in ws.store.jobs.live():
        queue.stop(ws, job)
    _until(lambda: not any(job.live for job in jobs.list_all(ws)))
    _until(lambda: jobs.keeper_of(ws) is None)


def _until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def _dataset(pictures: Path, **settings: object) -> vizsla.DatasetSpec:
    return vizsla.DatasetSpec(**{"source": pictures, "width": 32, "height": 32, "val_percent": 20} | settings)  # type: ignore[arg-type]


def _states(ws: Workspace, job: Job) -> list[str]:
    return [change.state for change in ws.store.jobs.history(job.id)]


def _worker(ws: Workspace, job: Job) -> int | None:
    return files.lock_holder(ws.folder(job.kind, job.thing))


def _reached(ws: Workspace, job: Job, step: int) -> Callable[[], bool]:
    def check() -> bool:
        queue.turn(ws)
        lines, _ = events.read(ws.folder("run", job.thing) / "events.jsonl")
        return any(line["event"] == "step" and line["step"] >= step for line in lines)

    return check


def test_a_training_waits_for_the_processor_and_says_so(ws: Workspace) -> None:
    first = runs.submit(ws, "shapes", TINY, name="first")
    second = runs.submit(ws, "shapes", TINY, name="second")
    told: list[dict[str, Any]] = []
    with pytest.raises(Conflict, match="has not begun"):
        runs.get(ws, "second")
    done = runs.finish(ws, second, told.append)
    assert done.progress.state == "done"
    assert {"event": "waiting", "text": "waits for cpu, held by run first"}.items() <= told[0].items()
    for job in (first, second):  # whether somebody saw it running is a matter of chance
        assert [state for state in _states(ws, job) if state != "running"] == ["queued", "starting", "done"]
    ended = ws.store.jobs.history(first.id)[-1].at
    assert ws.store.jobs.history(second.id)[1].at >= ended, "never two trainings on one processor"


def test_pictures_are_classified_while_every_device_is_busy(ws: Workspace, pictures: Path) -> None:
    run = runs.start(ws, "shapes", TINY, name="classifies").run
    models.export(ws, run.id, name="classifies")
    busy = runs.submit(ws, "shapes", LONG.model_copy(update={"epochs": 4000}), name="hogs")
    waits = runs.submit(ws, "shapes", TINY, name="waits")
    _until(_reached(ws, busy, 1))
    some = sorted(pictures.rglob("*.png"))[:40]
    found = list(models.predict(ws, "classifies", some))
    assert [prediction.error for prediction in found] == [None] * 40
    assert all(abs(sum(score.probability for score in prediction.scores) - 1) < 1e-4 for prediction in found)
    # Evaluations and exports have places of their own.
    assert evaluations.create(ws, run.id, split="val").num_pictures == 24
    models.export(ws, run.id, name="second")
    assert ws.store.jobs.get(waits.id).state == "queued"
    assert (ws.store.jobs.get(busy.id).state, ws.store.jobs.get(busy.id).attempt) == ("running", 1)


def test_a_higher_priority_starts_first(ws: Workspace) -> None:
    busy = runs.submit(ws, "shapes", LONG, name="busy")
    queue.turn(ws)
    low = runs.submit(ws, "shapes", TINY, name="low")
    high = runs.submit(ws, "shapes", TINY, name="high", job=JobSpec(priority=5))
    jobs.stop(ws, busy.id)
    runs.finish(ws, low)
    assert ws.store.jobs.history(high.id)[1].at < ws.store.jobs.history(low.id)[1].at


def test_a_killed_worker_goes_on_by_itself_to_the_same_weights(ws: Workspace) -> None:
    spec = TINY.model_copy(update={"epochs": 12, "batch_size": 4, "checkpoint_every_s": 0.01, "shift": 2})
    alone = runs.start(ws, "shapes", spec, name="alone")
    job = runs.submit(ws, "shapes", spec, name="killed")
    for step in (20, 120):
        _until(_reached(ws, job, step))
        worker = _worker(ws, job)
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        _until(lambda gone=worker: _worker(ws, job) != gone)
    killed = runs.finish(ws, ws.store.jobs.get(job.id))
    weights = [find_checkpoint(status.folder, "last").folder / "weights.safetensors" for status in (alone, killed)]
    assert files.sha256(weights[0]) == files.sha256(weights[1])
    history = ws.store.jobs.history(job.id)
    assert [change.state for change in history].count("starting") == 3
    causes = [change.cause for change in history if change.state == "queued" and change.attempt]
    assert all("was killed by SIGKILL" in cause and "from its last checkpoint" in cause for cause in causes), causes
    assert ws.store.jobs.get(job.id).attempt == 3


def test_what_is_killed_too_often_has_failed(ws: Workspace) -> None:
    job = runs.submit(ws, "shapes", LONG, name="doomed", job=JobSpec(retries=1))
    for attempt in (1, 2):
        worker = _until(lambda n=attempt: _turned(ws, job).attempt == n and _worker(ws, job))
        os.kill(worker, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="killed by SIGKILL"):
        runs.finish(ws, job)
    ended = ws.store.jobs.get(job.id)
    assert (ended.state, ended.failure, ended.attempt, ended.held) == ("failed", "killed", 2, ())


def _turned(ws: Workspace, job: Job) -> Job:
    queue.turn(ws)
    return ws.store.jobs.get(job.id)


def test_a_run_waits_for_its_dataset(ws: Workspace, pictures: Path) -> None:
    building = datasets.submit(ws, "coming", _dataset(pictures))
    run = runs.submit(ws, "coming", TINY)
    queue.turn(ws)
    assert ws.store.jobs.get(run.id).cause == "waits for the dataset coming"
    assert runs.finish(ws, run).run.dataset.name == "coming"
    assert _states(ws, building)[-1] == "done"


def test_what_needs_a_dataset_that_fails_fails_with_its_reason(ws: Workspace, tmp_path: Path) -> None:
    draw_shapes(tmp_path / "one", labels=("disc",))
    building = datasets.submit(ws, "bad", _dataset(tmp_path / "one"))
    run = runs.submit(ws, "bad", TINY, name="hopeless")
    with pytest.raises(InvalidInput):
        datasets.finish(ws, building)
    ended = ws.store.jobs.get(run.id)
    assert (ended.state, ended.failure) == ("failed", "parent")
    assert ended.error is not None
    assert "dataset 'bad', which it needs, was not made" in ended.error["what"]
    assert ws.store.jobs.get(building.id).failure == "error"
    for name, kind in (("bad", "dataset"), ("hopeless", "run")):
        with pytest.raises(NotFound):
            ws.store.find(name, kind)  # type: ignore[arg-type]
    assert not ws.folder("run", run.thing).exists()
    assert not ws.folder("dataset", building.thing).exists()


def test_an_evaluation_and_an_export_wait_for_their_run(ws: Workspace) -> None:
    runs.submit(ws, "shapes", TINY, name="awaited")
    measured = evaluations.submit(ws, "awaited", split="val")
    exported = models.submit(ws, "awaited", checkpoint="last")
    queue.turn(ws)
    for job in (measured, exported):
        assert ws.store.jobs.get(job.id).cause == "waits for the run awaited"
    card, report = models.finish(ws, exported), evaluations.finish(ws, measured)
    assert (card.run.checkpoint, report.subject.checkpoint) == (3, "3")
    assert [(figure["split"], figure["role"]) for figure in card.figures][:1] == [("val", "chose the checkpoint")]
    assert card.figures[0]["accuracy"]["value"] == report.headline["accuracy"].value


def test_work_that_comes_in_the_middle_of_a_turn_waits_too(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.submit(ws, "shapes", LONG, name="in the middle")
    looked, children = ws.store.jobs.needed, []

    def needed() -> dict[str, list[Job]]:
        found = looked()
        if not children:  # somebody asks for it just after it was looked at what waits for what
            children.append(evaluations.submit(ws, "in the middle", split="val"))
        return found

    monkeypatch.setattr(ws.store.jobs, "needed", needed)
    queue.turn(ws)
    queue.turn(ws)
    assert ws.store.jobs.get(children[0].id).cause == "waits for the run in the middle"
    jobs.stop(ws, run.id)


def test_what_waits_for_a_run_that_is_stopped_fails_with_its_reason(ws: Workspace) -> None:
    run = runs.submit(ws, "shapes", LONG, name="cut short")
    _until(_reached(ws, run, 6))
    step = str(runs.checkpoints(ws, "cut short")[-1].step)
    children = [evaluations.submit(ws, "cut short", split="val"), models.submit(ws, "cut short", checkpoint="999999")]
    jobs.stop(ws, run.id)
    with pytest.raises(Conflict, match=r"'cut short', which it needs, is stopped: asked to stop[^\0]*run resume"):
        models.finish(ws, children[1])
    _until(lambda: _turned(ws, children[0]).failure == "parent")
    last = runs.checkpoints(ws, "cut short")[-1]
    assert int(step) <= last.step
    assert evaluations.create(ws, "cut short", split="val", checkpoint="last").subject.checkpoint == str(last.step)


def test_a_step_that_is_there_is_not_waited_for(ws: Workspace) -> None:
    run = runs.submit(ws, "shapes", LONG.model_copy(update={"epochs": 4000, "keep_every": 1}), name="goes on")
    _until(_reached(ws, run, 6))
    report = evaluations.create(ws, "goes on", split="val", checkpoint="3")
    assert (report.subject.checkpoint, report.device) == ("3", "cpu")
    assert ws.store.jobs.get(run.id).state == "running"


def test_an_evaluation_takes_a_card_as_a_training_does(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card is declared, and torch finds none: what was given one computes on the processor, and says so."""
    trained = runs.start(ws, "shapes", TINY, name="on a card").run
    monkeypatch.setenv("VIZSLA_DEVICES", "cpu=1,cuda:0=24")
    need = Need(("cuda:0",), 1, 16.0).as_dict()
    moved = ws.store.jobs.add("run", trained.id, "on a card", owner=ws.user, need=need)
    ws.store.jobs.change(moved, "done")
    first, second = (evaluations.submit(ws, trained.id, split="val") for _ in range(2))
    queue.turn(ws)
    assert ws.store.jobs.get(first.id).held == ("cuda:0",)
    assert ws.store.jobs.get(second.id).cause == f"waits for cuda:0, held by evaluation {first.name}"
    told: list[dict[str, Any]] = []
    assert evaluations.finish(ws, second, told.append).device == "cpu"
    notices = [event["text"] for event in told if event["event"] == "notice"]
    assert notices == ["There is no GPU 0: 0 were found. It is done on the processor."]
    ended = ws.store.jobs.history(first.id)[-1].at
    assert ws.store.jobs.history(second.id)[1].at >= ended, "16 GB each do not fit into 24"


def test_what_waits_is_stopped_at_once_and_leaves_nothing(ws: Workspace) -> None:
    busy = runs.submit(ws, "shapes", LONG, name="in front")
    waiting = runs.submit(ws, "shapes", TINY, name="unwanted")
    queue.turn(ws)
    with pytest.raises(Conflict, match="is in the queue"):
        runs.delete(ws, "unwanted")
    assert jobs.stop(ws, waiting.id).state == "stopped"
    assert not ws.folder("run", waiting.thing).exists()
    with pytest.raises(Conflict, match="has ended: it is stopped"):
        jobs.stop(ws, waiting.id)
    with pytest.raises(KeyboardInterrupt):
        runs.finish(ws, waiting)
    jobs.stop(ws, busy.id)


def test_what_can_never_start_is_refused_and_leaves_nothing(ws: Workspace) -> None:
    with pytest.raises(Unavailable, match=r"There is no GPU 0: 0 were found\."):
        runs.submit(ws, "shapes", TINY.model_copy(update={"device": "cuda"}), name="no such")
    with pytest.raises(NotFound):
        ws.store.find("no such", "run")


def test_a_slip_of_the_pen_is_told_before_it_is_queued(ws: Workspace) -> None:
    runs.start(ws, "shapes", TINY)  # by then the names are known
    before = ws.store.jobs.newest(1)
    with pytest.raises(NotFound, match=r"no network named 'lenett'.*\n.*Did you mean 'lenet'"):
        runs.submit(ws, "shapes", TINY.model_copy(update={"net": "lenett"}), name="slip")
    assert ws.store.jobs.newest(1) == before


def test_folders_that_are_not_there_are_refused_at_once(ws: Workspace, pictures: Path, tmp_path: Path) -> None:
    before = ws.store.jobs.newest(1)
    for field in ("source", "val_folder", "test_folder"):
        with pytest.raises(InvalidInput, match="There is no such folder"):
            datasets.submit(ws, "nowhere", _dataset(pictures, **{field: tmp_path / "none"}))
    assert ws.store.jobs.newest(1) == before, "nothing was queued"


def test_detached_work_is_done_though_nobody_waits(ws: Workspace, cli: Cli, pictures: Path) -> None:
    made = cli("dataset", "create", "detached", pictures, "--size", 32, "--detach", "--json").json
    assert made["state"] in ("queued", "starting", "running", "done")
    training = ("--net", "lenet", "--tune", "scratch", "--epochs", 1, "--name", "by itself")
    shown = cli("train", "detached", *training, "--detach")
    assert "is left to itself" in shown.err
    _until(lambda: ws.store.jobs.find("by itself").state == "done")
    assert runs.get(ws, "by itself").progress.state == "done"
    _until(lambda: jobs.keeper_of(ws) is None)  # it ends when the queue is empty
    listed = cli("jobs", "list")
    assert "run by itself" in listed.out
    history = cli("jobs", "show", "by itself", "--json").json["history"]
    assert [change["state"] for change in history if change["state"] != "running"] == ["queued", "starting", "done"]


def test_a_killed_command_leaves_its_training_and_another_takes_over(ws: Workspace, cli: Cli) -> None:
    process = subprocess.Popen(
        command("train", "shapes", "--net", "lenet", "--tune", "scratch", "--epochs", 60, "--name", "adopted"),
        env=environment(ws.root),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    job = _until(lambda: next((job for job in ws.store.jobs.live() if job.name == "adopted"), None))
    worker = _until(lambda: (pid := _worker(ws, job)) != process.pid and pid)
    process.kill()
    process.wait()
    os.kill(worker, signal.SIGKILL)
    cli("run", "follow", "adopted")
    ended = ws.store.jobs.get(job.id)
    assert (ended.state, ended.attempt) == ("done", 2)
    causes = [change.cause for change in ws.store.jobs.history(job.id) if change.state == "queued" and change.attempt]
    assert ["nobody knows how" in cause for cause in causes] == [True]


def test_a_training_that_outlives_its_database_keeps_its_device(ws: Workspace, pictures: Path, tmp_path: Path) -> None:
    with vizsla.open(tmp_path / "w") as lost:
        datasets.create(lost, "shapes", _dataset(pictures))
        before = runs.submit(lost, "shapes", LONG.model_copy(update={"epochs": 4000}), name="outlives")
        _until(_reached(lost, before, 1))
    for path in (tmp_path / "w").glob("vizsla.db*"):
        path.unlink()
    with vizsla.open(tmp_path / "w") as found:
        (job,) = found.store.jobs.live()
        assert (job.name, job.state, job.held) == ("outlives", "running", ("cpu",))
        (processor, *_) = machine.held(found)
        assert [holder.name for holder in processor.runs] == ["outlives"]
        waits = runs.submit(found, "shapes", TINY, name="waits")
        queue.turn(found)
        assert found.store.jobs.get(waits.id).cause == "waits for cpu, held by run outlives"
        kill_process(_worker(found, job))  # it goes on from its checkpoint
        _until(lambda: queue.turn(found) is None and _states(found, job)[-2:] == ["starting", "running"])
        assert found.store.jobs.get(job.id).attempt == 2
        runs.stop(found, "outlives")
        runs.finish(found, waits)
        assert runs.get(found, "outlives").progress.state == "stopped"


def test_ctrl_c_at_a_terminal_asks_and_leaves_the_training_running(ws: Workspace) -> None:
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        command("train", "shapes", "--net", "lenet", "--tune", "scratch", "--epochs", 100, "--name", "left"),
        env=environment(ws.root) | {"TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    said: list[bytes] = []
    threading.Thread(target=_listen, args=(controller, said), daemon=True).start()
    job = _until(lambda: next((job for job in ws.store.jobs.live() if job.name == "left"), None))
    _until(lambda: ws.store.jobs.get(job.id).state == "running")
    process.send_signal(signal.SIGINT)
    _until(lambda: b"eave it running?" in b"".join(said))
    os.write(controller, b"l\n")
    assert process.wait(WAIT_S) == 0
    _until(lambda: ws.store.jobs.get(job.id).state == "done")
    assert b"is left to itself" in b"".join(said)


def _listen(terminal: int, said: list[bytes]) -> None:
    while True:
        try:
            said.append(os.read(terminal, 65536))
        except OSError:  # the other side was closed
            return


def test_the_keeper_of_detached_work_gives_way(ws: Workspace, cli: Cli) -> None:
    cli("train", "shapes", "--net", "lenet", "--tune", "scratch", "--epochs", 5000, "--name", "kept", "--detach")
    left_behind = _until(lambda: jobs.keeper_of(ws))
    keeper = subprocess.Popen(command("jobs", "keep"), env=environment(ws.root), stderr=subprocess.DEVNULL)
    _until(lambda: jobs.keeper_of(ws) == keeper.pid != left_behind)
    assert cli("jobs", "stop", "kept", "--json").json["stop_asked"]
    _until(lambda: not ws.store.jobs.live())
    assert jobs.keeper_of(ws) == keeper.pid, "it stays when the queue is empty"
    keeper.send_signal(signal.SIGTERM)
    assert keeper.wait(WAIT_S) == 0


def test_what_waits_is_said_wherever_one_looks(ws: Workspace, cli: Cli) -> None:
    busy = runs.submit(ws, "shapes", LONG, name="the first")
    queue.turn(ws)
    _until(lambda: ws.is_finished("run", busy.thing))
    waiting = runs.submit(ws, "shapes", TINY, name="behind it")
    queue.turn(ws)
    assert "1 more is in the queue" in cli("run", "list").out
    for command_line in (("run", "show"), ("run", "rename", "behind it")):
        refused = cli(*command_line, "behind it", status=1).err
        assert "has not begun; it is queued: it waits for cpu, held by run the first" in " ".join(refused.split())
    follower = subprocess.Popen(
        command("run", "follow", "behind it"), env=environment(ws.root), stdout=subprocess.PIPE, text=True
    )
    assert follower.stdout is not None
    assert follower.stdout.readline() == "In the queue: waits for cpu, held by run the first\n"
    assert "Took the run behind it out of the queue" in cli("run", "stop", "behind it").out
    assert "its job was stopped: stopped before it began" in " ".join(
        cli("run", "show", "behind it", status=1).err.split()
    )
    follower.communicate(timeout=WAIT_S)
    assert waiting.id in cli("jobs", "list").out
    jobs.stop(ws, busy.id)


def test_one_looks_after_the_queue_and_a_second_is_refused(ws: Workspace, cli: Cli) -> None:
    keeper = subprocess.Popen(command("jobs", "keep"), env=environment(ws.root), stderr=subprocess.DEVNULL)
    _until(lambda: jobs.keeper_of(ws) == keeper.pid)
    refused = cli("jobs", "keep", status=1)
    assert f"Process {keeper.pid} looks after this queue already" in refused.err
    keeper.send_signal(signal.SIGTERM)
    assert keeper.wait(WAIT_S) == 0


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_whatever_is_killed_every_job_is_done_exactly_once(pictures: Path, tmp_path: Path, database: str) -> None:
    """Kills keepers, servers, workers and the database, and fills the disk, at random moments over real work.

    These are a few rounds of the benchmark, which does so for longer.
    """
    if database == "postgres" and programs() is None:
        pytest.skip("needs PostgreSQL: apt install postgresql")
    options = ["--data", pictures, "--rounds", 6, "--span", 2, "--seed", 1, "--out", tmp_path / "found.json"]
    options += ["--postgres"] if database == "postgres" else []
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "faults.py", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=5 * WAIT_S,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["jobs"] >= 6
    rules = ("broken_rules", "half_made", "locked", "processes_left")
    assert {name: found[name] for name in rules if found[name]} == {}, found
