"""The whole queue on PostgreSQL, whose server is killed and comes back."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.postgres import PASSWORD, Postgres
from tests.support import Cli, Server, command, draw_shapes, environment

import vizsla
from vizsla import files
from vizsla.api import jobs
from vizsla.errors import DatabaseUnavailable
from vizsla.store.rows import Job
from vizsla.store.workspace import Workspace

pytestmark = pytest.mark.slow

WAIT_S = 120
LENET = ("--net", "lenet", "--tune", "scratch")
LONG = vizsla.TrainingSpec(net="lenet", tune="scratch", epochs=400, batch_size=32, checkpoint_every_s=0.01)


@pytest.fixture(scope="module")
def url(postgres: Postgres) -> str:
    return postgres.create(f"d{secrets.token_hex(4)}")


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory, url: str) -> Iterator[Workspace]:
    """A workspace on PostgreSQL with the dataset `shapes`, made by commands."""
    folder = tmp_path_factory.mktemp("postgres")
    pictures = draw_shapes(folder / "pictures")
    made = ("dataset", "create", "shapes", pictures, "--size", 32, "--val-percent", 20)
    env = environment(folder / "workspace") | {"VIZSLA_DATABASE": url}
    done = subprocess.run(command(*made), env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with vizsla.open(folder / "workspace") as opened:
        assert opened.store.engine.dialect.name == "postgresql"
        yield opened


@pytest.fixture
def cli(ws: Workspace) -> Cli:
    """Commands that are not told which database there is."""
    return Cli(ws.root)


def _until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def _worker(ws: Workspace, job: Job) -> int | None:
    return files.lock_holder(ws.folder(job.kind, job.thing))


def test_work_is_queued_stopped_killed_and_goes_on(ws: Workspace, cli: Cli) -> None:
    cli("train", "shapes", *LENET, "--epochs", 400, "--name", "first", "--detach")
    job = _until(lambda: ws.store.jobs.find("first"))
    keeper = _until(lambda: jobs.keeper_of(ws))
    worker = _until(lambda: (pid := _worker(ws, job)) != keeper and pid)
    for pid in (keeper, worker):
        shown = " ".join(psutil.Process(pid).cmdline())
        assert str(ws.root) in shown
        assert "postgres" not in shown.replace(str(ws.root), "")
        assert PASSWORD not in shown
    os.kill(worker, signal.SIGKILL)
    _until(lambda: ws.store.jobs.get(job.id).attempt == 2)
    waiting = cli("train", "shapes", *LENET, "--epochs", 1, "--name", "second", "--detach", "--json").json
    _until(lambda: "held by run first" in ws.store.jobs.get(waiting["id"]).cause)
    _until(lambda: ws.is_finished("run", job.thing) and ws.store.jobs.get(job.id).state == "running")
    cli("jobs", "stop", "first")
    _until(lambda: ws.store.jobs.get(job.id).state == "stopped")
    _until(lambda: ws.store.jobs.get(waiting["id"]).state == "done")
    states = [change.state for change in ws.store.jobs.history(job.id)]
    assert (states.count("starting"), states.count("queued"), states[-1]) == (2, 2, "stopped")
    assert cli("run", "show", "second", "--json").json["progress"]["state"] == "done"
    assert cli("dataset", "delete", "shapes", status=1).err.count("in use by run") == 1
    shown = cli("jobs", "show", "first", "--json")
    assert shown.json["state"] == "stopped"
    assert PASSWORD not in shown.out


def test_a_command_waits_while_the_database_is_away(ws: Workspace, postgres: Postgres) -> None:
    training = command("train", "shapes", *LENET, "--epochs", 60, "--name", "patient")
    process = subprocess.Popen(training, env=environment(ws.root), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    job = _until(lambda: next((job for job in ws.store.jobs.live() if job.name == "patient"), None))
    _until(lambda: ws.store.jobs.get(job.id).state == "running")
    postgres.kill()
    try:
        with pytest.raises(DatabaseUnavailable):
            ws.store.jobs.live()
        time.sleep(2)
        assert process.poll() is None
    finally:
        postgres.start()
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, said
    assert b"Waiting for it" in said
    assert PASSWORD.encode() not in said
    ended = ws.store.jobs.get(job.id)
    assert (ended.state, ended.attempt, ended.held) == ("done", 1, ())
    assert [c.state for c in ws.store.jobs.history(job.id)] == ["queued", "starting", "running", "done"]


def test_the_server_answers_again_when_the_database_does(ws: Workspace, postgres: Postgres) -> None:
    server = Server(ws.root)
    root = str(server.client.base_url).removesuffix("/api/v1/")
    asked = {"dataset": "shapes", "name": "by rest", "spec": LONG.model_dump(mode="json", exclude_unset=True)}
    made = server.client.post("/runs", json=asked)
    assert made.status_code == 202, made.text
    job = ws.store.jobs.get(made.json()["id"])
    worker = _until(lambda: (pid := _worker(ws, job)) != server.process.pid and pid)
    postgres.kill()
    try:
        for path in ("/jobs", "/runs/shapes", f"/jobs/{job.id}"):
            problem = server.client.get(path)
            assert problem.status_code == 503, problem.text
            assert problem.json()["kind"] == "database-unavailable"
            assert PASSWORD not in problem.text
        assert server.client.get(root + "/readyz").status_code == 503
        assert server.client.get(root + "/healthz").status_code == 200
    finally:
        postgres.start()
    _until(lambda: server.client.get(root + "/readyz").status_code == 200)
    assert server.client.get(f"/jobs/{job.id}").json()["attempt"] == 1
    assert _worker(ws, job) == worker, "the database is nothing to those who are at work"
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    again = Server(ws.root)
    assert _worker(ws, job) == worker
    assert again.client.get("/runs/nul%00nul").status_code == 404
    assert again.client.post(f"/jobs/{job.id}/stop").status_code in (200, 202)
    _until(lambda: again.client.get(f"/jobs/{job.id}").json()["state"] == "stopped")
    assert again.stop() == 0
    assert _worker(ws, job) is None


RACE = """
import sys, time, vizsla
from vizsla.errors import Conflict
with vizsla.open(sys.argv[1]) as ws:
    ws.store.jobs.live()
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(100):
        try:
            ws.store.jobs.add("run", f"t{number}", "raced", owner=sys.argv[2], need={})
        except Conflict:
            pass
    for number in range(100):
        seen = ws.store.jobs.live_of(f"t{number}")
        if seen.attempt == 0:
            ws.store.jobs.change(seen, "starting", sys.argv[2], attempt=1)
"""


def test_two_processes_that_race_make_each_job_once(tmp_path: Path, database: str) -> None:
    with vizsla.open(tmp_path / "w", database=database) as ws:
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", RACE, str(tmp_path / "w"), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in ("ada", "bob")
        ]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        for racer in racers:
            racer.communicate(timeout=WAIT_S)
            assert racer.returncode == 0
        made = ws.store.jobs.live()
        assert sorted(job.thing for job in made) == sorted(f"t{number}" for number in range(100))
        for job in made:
            assert [change.state for change in ws.store.jobs.history(job.id)] == ["queued", "starting"]
