"""Interrupted equals uninterrupted: killed, stopped and resumed runs end in the same weights and the same curve."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support import command, environment, kill_process

import vizsla
from vizsla import events, files
from vizsla.api import runs
from vizsla.errors import Conflict, WorkerDied
from vizsla.jobs.spec import JobSpec
from vizsla.store.workspace import Workspace
from vizsla.training.run import checkpoints, find_checkpoint

pytestmark = pytest.mark.slow

SPEC = vizsla.TrainingSpec(
    net="lenet", epochs=8, batch_size=2, learning_rate=0.002, shift=2, jitter=0.2, checkpoint_every_s=0.01
)
STEPS_PER_EPOCH = 48
WAIT_S = 120


@pytest.fixture(scope="module")
def uninterrupted(ws: Workspace) -> Path:
    """The folder of a run that was left alone."""
    return runs.start(ws, "shapes", SPEC, name="whole").folder


def _start(ws: Workspace, name: str, **changed: object) -> subprocess.Popen[bytes]:
    """`vizsla train` in a process of its own, as from a terminal."""
    settings = SPEC.model_dump(exclude_defaults=True) | changed
    options = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
    return subprocess.Popen(
        command("train", "shapes", "--name", name, "--retries", 0, *options),
        env=environment(ws.root),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _until(condition: Callable[[], Any], process: subprocess.Popen[bytes]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    return found


def _reached(ws: Workspace, name: str, step: int) -> Callable[[], bool]:
    def check() -> bool:
        found = [row for row in ws.store.all("run") if row.name == name]
        if not found:
            return False
        lines, _ = events.read(ws.folder("run", found[0].id) / "events.jsonl")
        return any(line["event"] == "step" and line["step"] >= step for line in lines)

    return check


def _curve(folder: Path) -> list[tuple[Any, ...]]:
    """What the curves are drawn from, without times and speeds."""
    lines = events.surviving(events.read(folder / "events.jsonl")[0])
    keys = ("event", "step", "epoch", "loss", "learning_rate", "train_loss", "val_loss", "val_accuracy", "best_epoch")
    return [tuple(json.dumps(line.get(key)) for key in keys) for line in lines if line["event"] in ("step", "epoch")]


def _same(folder: Path, other: Path) -> None:
    for which in ("last", "best"):
        mine, theirs = find_checkpoint(folder, which), find_checkpoint(other, which)
        assert mine.step == theirs.step
        for name in ("weights.safetensors", "optimizer.safetensors"):
            assert files.sha256(mine.folder / name) == files.sha256(theirs.folder / name), (which, name)
    assert _curve(folder) == _curve(other)


@pytest.mark.parametrize("step", [0, 70, 200])
def test_killed_in_mid_epoch_and_resumed(ws: Workspace, uninterrupted: Path, step: int) -> None:
    name = f"killed-{step}"
    process = _start(ws, name)
    _until(_reached(ws, name, step), process)
    worker = _until(lambda: runs.get(ws, name).progress.worker, process)
    os.kill(worker, signal.SIGKILL)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert b"killed by SIGKILL" in err

    status = runs.get(ws, name)
    assert status.progress.state == "lost", "a dead run is never shown as running"
    assert status.progress.worker is None
    position = find_checkpoint(status.folder, "last").step
    assert position < STEPS_PER_EPOCH * 8
    resumed = runs.resume(ws, name)
    assert resumed.progress.state == "done"
    _same(resumed.folder, uninterrupted)
    lines, _ = events.read(resumed.folder / "events.jsonl")
    assert [(line["step"], line["after"]) for line in lines if line["event"] == "resumed"] == [(position, "lost")]


def test_ctrl_c_stops_at_a_checkpoint_and_goes_on(ws: Workspace, uninterrupted: Path) -> None:
    process = _start(ws, "stopped")
    _until(_reached(ws, "stopped", 60), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, err
    assert b"Stopped at a checkpoint" in err
    status = runs.get(ws, "stopped")
    assert status.progress.state == "stopped"
    assert find_checkpoint(status.folder, "last").step >= 60
    _same(runs.resume(ws, "stopped").folder, uninterrupted)


def test_a_second_ctrl_c_kills_and_what_was_saved_goes_on(ws: Workspace, uninterrupted: Path) -> None:
    process = _start(ws, "impatient")
    _until(_reached(ws, "impatient", 60), process)
    worker = _until(lambda: runs.get(ws, "impatient").progress.worker, process)
    os.kill(worker, signal.SIGSTOP)  # it hears nothing of the first one
    assert process.stderr is not None
    for said in (b"Ctrl-C again kills it", b"Killed"):
        process.send_signal(signal.SIGINT)
        shown = b""
        while said not in shown:
            shown += os.read(process.stderr.fileno(), 65536)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert runs.get(ws, "impatient").progress.state == "lost"
    _same(runs.resume(ws, "impatient").folder, uninterrupted)


def test_the_worker_outlives_the_terminal(ws: Workspace, uninterrupted: Path) -> None:
    process = _start(ws, "orphan")
    _until(_reached(ws, "orphan", 10), process)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + WAIT_S
    while runs.get(ws, "orphan").progress.state == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    _same(runs.get(ws, "orphan").folder, uninterrupted)


def test_one_run_is_trained_by_one_worker(ws: Workspace) -> None:
    process = _start(ws, "busy", epochs=1000)
    _until(_reached(ws, "busy", 10), process)
    _until(lambda: ws.store.jobs.find("busy").state == "running", process)  # to resume what starts would be to wait
    with pytest.raises(Conflict, match="at work here"):
        runs.resume(ws, "busy")
    with pytest.raises(Conflict, match="at work on the run"):
        runs.delete(ws, "busy")
    runs.stop(ws, "busy")
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    runs.delete(ws, "busy")


def test_a_run_that_is_done_is_not_resumed(ws: Workspace, uninterrupted: Path) -> None:
    with pytest.raises(Conflict, match="is done"):
        runs.resume(ws, "whole")


def test_only_the_best_and_the_last_checkpoint_are_kept(ws: Workspace, uninterrupted: Path) -> None:
    kept = {checkpoint.step for checkpoint in checkpoints(uninterrupted)}
    assert kept == {find_checkpoint(uninterrupted, which).step for which in ("best", "last")}
    assert all(path.name.isdigit() for path in (uninterrupted / "checkpoints").iterdir()), "nothing half-written"


def test_a_moved_workspace_goes_on(ws: Workspace, uninterrupted: Path, tmp_path: Path) -> None:
    process = _start(ws, "moving")
    _until(_reached(ws, "moving", 60), process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=WAIT_S)
    # In a process of its own: closing a copy's source here would drop the locks of this process's own database.
    subprocess.run(["cp", "-r", ws.root, tmp_path / "moved ?#"], check=True)
    runs.delete(ws, "moving")
    with vizsla.open(tmp_path / "moved ?#") as moved:
        _same(runs.resume(moved, "moving").folder, uninterrupted)


def test_a_network_with_batch_norm_in_bf16_goes_on_as_well(ws: Workspace) -> None:
    """Stopped and resumed in another process, with other threads asked for; augmented by flips and crops."""
    spec = vizsla.TrainingSpec(
        net="test_resnet",
        tune="scratch",
        epochs=2,
        batch_size=8,
        crop=28,
        flip=True,
        jitter=0.3,
        precision="bf16",
        optimizer="sgd",
        checkpoint_every_s=0.01,
    )
    whole = runs.start(ws, "shapes", spec, name="norm-whole")

    def stop_early(event: events.Event) -> None:
        if event["event"] == "step" and event["step"] == 10:
            kill_process(runs.get(ws, "norm-cut").progress.worker)

    with pytest.raises(WorkerDied, match="SIGKILL"):
        runs.start(ws, "shapes", spec, name="norm-cut", job=JobSpec(retries=0), on_event=stop_early)
    _same(runs.resume(ws, "norm-cut").folder, whole.folder)


def test_a_caller_that_fails_leaves_nothing_running(ws: Workspace) -> None:
    def fail(event: events.Event) -> None:
        if event["event"] == "step":
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        runs.start(ws, "shapes", SPEC, name="abandoned", on_event=fail)
    deadline = time.monotonic() + WAIT_S
    while runs.get(ws, "abandoned").progress.state == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert runs.get(ws, "abandoned").progress.state == "stopped"


def test_ctrl_c_before_the_worker_is_ready_leaves_nothing(ws: Workspace) -> None:
    process = _start(ws, "early")
    _until(lambda: [row for row in ws.store.all("run") if row.name == "early"], process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, err
    assert b"nothing half-made" in err
    assert [row for row in ws.store.all("run") if row.name == "early"] == []


def test_a_worker_killed_before_its_run_was_accepted_leaves_its_log(ws: Workspace) -> None:
    def worker() -> int | None:
        rows = [row for row in ws.store.all("run") if row.name == "stillborn"]
        holder = files.lock_holder(ws.folder("run", rows[0].id)) if rows else None
        return holder if holder != process.pid else None

    process = _start(ws, "stillborn")
    os.kill(_until(worker, process), signal.SIGKILL)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert b"killed by SIGKILL" in err
    named = [line.split()[-1] for line in err.decode().splitlines() if line.endswith("log.txt")]
    assert len(named) == 1
    assert Path(named[0]).exists(), "the log that is named is there"
    assert [row for row in ws.store.all("run") if row.name == "stillborn"] == []


def test_ctrl_c_while_evaluating_leaves_nothing(ws: Workspace, uninterrupted: Path) -> None:
    process = subprocess.Popen(
        command("evaluate", "whole", "--split", "val", "--name", "early"),
        env=environment(ws.root),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _until(lambda: ws.store.all("evaluation"), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, err
    assert ws.store.all("evaluation") == []
    assert list((ws.root / "evaluations").iterdir()) == []
