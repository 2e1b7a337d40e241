"""Sweeps: a run for each pair, all of them or none, and what came of it in order."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable

import httpx
import pytest
from tests.support import Cli, Server, command, environment

import vizsla
from vizsla.api import jobs, runs, sweeps
from vizsla.errors import Conflict, InvalidInput, NotFound, VizslaError
from vizsla.store.workspace import Workspace

pytestmark = pytest.mark.slow

SPEC = vizsla.TrainingSpec(net="lenet", tune="scratch", epochs=2)
OPTIONS = ("--net", "lenet", "--tune", "scratch")


@pytest.fixture
def cli(ws: Workspace) -> Cli:
    return Cli(ws.root)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_run_for_each_pair_the_best_first(ws: Workspace) -> None:
    said: list[str] = []
    tried = sweeps.start(
        ws,
        "shapes",
        SPEC.model_copy(update={"epochs": 3}),
        learning_rates=[0.003, 1e-9],
        batch_sizes=[16, 48],
        name="pair",
        on_event=lambda event: said.append(event.get("text", "")) if event["event"] == "notice" else None,
    )
    found = [one.status.run for one in tried if one.status]
    pairs = {(run.asked.learning_rate, run.asked.batch_size): run.name for run in found}
    assert pairs == {(0.003, 16): "pair-1", (0.003, 48): "pair-2", (1e-9, 16): "pair-3", (1e-9, 48): "pair-4"}
    assert {one.job.state for one in tried} == {"done"}
    accuracies = [one.accuracy for one in tried]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > accuracies[-1]
    begun = [ws.store.jobs.history(job.id)[1].at for job in sorted(_of(ws, "pair"), key=lambda job: job.name)]
    assert begun == sorted(begun), "in the order of their numbers"
    assert [text for text in said if text.startswith("The run pair-")] == [f"The run pair-{n}:" for n in range(1, 5)]


def _of(ws: Workspace, name: str) -> list[jobs.Job]:
    return [job for job in jobs.list_all(ws) if job.name.startswith(f"{name}-")]


def test_one_that_fails_does_not_hold_up_the_others(cli: Cli, ws: Workspace) -> None:
    lists = ("--learning-rates", "1e15,0.003", "--optimizer", "sgd", "--epochs", 1)
    told = cli("run", "sweep", "shapes", *OPTIONS, *lists, status=1)
    rows = [line.split() for line in told.out.splitlines() if re.match(r" *shapes-lenet-\d+ ", line)]
    assert [(row[1], row[3]) for row in rows] == [("0.003", "done"), ("1e+15", "failed")]
    assert re.search(r"\d+\.\d % \(\d+\.\d to \d+\.\d\)", told.out)
    assert "24" in rows[0], "the number of pictures"
    assert re.search(rf"{rows[1][0]}: The .*loss is not a finite number any more", told.out)
    assert f"vizsla evaluate {rows[0][0]} --split val" in told.out


def test_all_or_nothing(ws: Workspace, cli: Cli) -> None:
    runs.rename(ws, "pair-1", "taken-3")
    before = len(ws.store.all("run")), len(jobs.list_all(ws))

    def refused(kind: type[VizslaError], match: str, *, spec: vizsla.TrainingSpec = SPEC, **lists: object) -> None:
        with pytest.raises(kind, match=match):
            sweeps.submit(ws, "shapes", spec, **lists)  # type: ignore[arg-type]

    pair = {"learning_rates": [0.1, 0.01], "batch_sizes": [16, 32]}
    refused(Conflict, "taken-3", name="taken", **pair)
    refused(InvalidInput, "greater than 0", learning_rates=[0.1, 0.0])
    refused(InvalidInput, "finite", learning_rates=[0.1, float("inf")])
    refused(InvalidInput, "greater than or equal to 1", batch_sizes=[16, 0])
    refused(InvalidInput, "1 pairs")
    refused(InvalidInput, "1 pairs", learning_rates=[0.1, 0.1])
    refused(InvalidInput, "110 pairs", learning_rates=[n / 100 for n in range(1, 12)], batch_sizes=list(range(1, 11)))
    refused(InvalidInput, "There is a batch_size", spec=SPEC.model_copy(update={"batch_size": 8}), **pair)
    refused(NotFound, "no network", spec=SPEC.model_copy(update={"net": "lennet"}), **pair)
    with pytest.raises(NotFound):
        sweeps.submit(ws, "nothing", SPEC, **pair)  # type: ignore[arg-type]
    assert (len(ws.store.all("run")), len(jobs.list_all(ws))) == before
    assert len(list((ws.root / "runs").iterdir())) == before[0]
    assert "no list of numbers" in cli("run", "sweep", "shapes", "--batch-sizes", "16;32", status=1).err


def _sweep(ws: Workspace, name: str, **where: int) -> subprocess.Popen[bytes]:
    """A long sweep of three runs, at work."""
    options = ("--net", "lenet", "--tune", "scratch", "--epochs", 1000, "--checkpoint-every-s", 0.2)
    process = subprocess.Popen(
        command("run", "sweep", "shapes", *options, "--batch-sizes", "8,16,32", "--name", name),
        env=environment(ws.root) | {"TERM": "xterm"},
        **where,  # type: ignore[call-overload]
    )
    _until(lambda: any(job.name == f"{name}-1" and ws.is_finished("run", job.thing) for job in jobs.list_all(ws)))
    return process


def test_an_interrupted_sweep_stops_all_its_runs(ws: Workspace) -> None:
    process = _sweep(ws, "cut", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    found = {job.name: (job.state, job.attempt) for job in _of(ws, "cut")}
    assert found == {"cut-1": ("stopped", 1), "cut-2": ("stopped", 0), "cut-3": ("stopped", 0)}
    assert [status.run.name for status in runs.list_all(ws) if status.run.name.startswith("cut")] == ["cut-1"]


def test_a_sweep_that_is_left_goes_on(ws: Workspace) -> None:
    ours, theirs = pty.openpty()
    process = _sweep(ws, "left", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    process.send_signal(signal.SIGINT)
    shown = b""
    while b"eave it running" not in shown:
        shown += os.read(ours, 65536)
    os.write(ours, b"l\n")
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:
            break
    assert process.wait(60) == 0
    os.close(ours)
    assert b"The 3 runs left-1 to left-3 are left to themselves: 1 running, 2 queued." in shown
    assert {job.state for job in _of(ws, "left")} == {"running", "queued"}
    for job in _of(ws, "left")[::-1]:
        jobs.stop(ws, job.id)
    _until(lambda: not any(job.live for job in _of(ws, "left")) and jobs.keeper_of(ws) is None)


def test_a_sweep_by_rest(ws: Workspace) -> None:
    server = Server(ws.root)
    client: httpx.Client = server.client
    spec = SPEC.model_dump(exclude_defaults=True) | {"epochs": 1}
    body = {"dataset": "shapes", "spec": spec, "batch_sizes": [16, 32], "name": "rest", "job": {"priority": 3}}
    answer = client.post("/runs/sweep", json=body)
    assert answer.status_code == 202
    assert [(job["name"], job["priority"], job["kind"]) for job in answer.json()] == [
        ("rest-1", 3, "run"),
        ("rest-2", 3, "run"),
    ]
    assert client.post("/runs/sweep", json=body).status_code == 409, "the names are taken"
    for wrong, field in (
        ({"batch_sizes": [0, 1]}, "batch_sizes"),
        ({"learning_rates": [0.1, -1]}, "learning_rates"),
        ({"learning_rates": ["x"]}, "learning_rates"),
        ({"spec": spec | {"weights": "/etc/passwd", "tune": "full"}}, "spec.weights"),
    ):
        refused = client.post("/runs/sweep", json=body | wrong)
        assert refused.status_code == 422, refused.text
        assert field in refused.text
    for job in answer.json()[::-1]:
        assert client.post(f"/jobs/{job['id']}/stop").status_code == 202
    _until(lambda: not any(job.live for job in _of(ws, "rest")))
    assert server.stop() == 0
