"""Predictions by a server: the same as in Python, by processes that may be killed, without a place for a GPU."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from tests.support import Server

from vizsla.api import datasets, models, predictions, runs
from vizsla.errors import Busy, InvalidInput, TooSlow, WorkerDied
from vizsla.jobs.pool import Pool
from vizsla.models.card import GRAPH, Card
from vizsla.store.workspace import Workspace
from vizsla.training.spec import TrainingSpec
from vizsla.web.pictures import MAX_PICTURES

pytestmark = pytest.mark.slow

WAIT_S = 60
SPEC = TrainingSpec(net="lenet", tune="scratch", epochs=2, batch_size=16, learning_rate=0.003)


@pytest.fixture(scope="module")
def card(ws: Workspace) -> Card:
    runs.start(ws, "shapes", SPEC, name="first")
    return models.export(ws, "first", name="shapes-1")


@pytest.fixture(scope="module")
def server(ws: Workspace, card: Card) -> Iterator[Server]:
    started = Server(ws.root)
    yield started
    assert started.stop() == 0


@pytest.fixture
def client(server: Server) -> httpx.Client:
    return server.client


@pytest.fixture(scope="module")
def pictures(ws: Workspace) -> list[Path]:
    return sorted(datasets.get(ws, "shapes").spec.source.rglob("*.png"))[::8]


def _until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def _files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("pictures", (f"{number}.png", content)) for number, content in enumerate(contents)]


def _workers(server: Server) -> list[psutil.Process]:
    found = psutil.Process(server.process.pid).children()
    return [child for child in found if "vizsla.models.warm" in child.cmdline()]


def _ended(process: psutil.Process) -> bool:
    """Whether it is gone with all its threads, the first of which may end before the others."""
    tasks = Path(f"/proc/{process.pid}/task")
    return not process.is_running() or (process.status() == psutil.STATUS_ZOMBIE and len(list(tasks.iterdir())) == 1)


def _problem(answer: httpx.Response, status: int, kind: str) -> str:
    assert (answer.status_code, answer.json().get("kind")) == (status, kind), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["detail"])


def test_it_sees_what_python_sees(client: httpx.Client, ws: Workspace, card: Card, pictures: list[Path]) -> None:
    expected = list(models.predict(ws, "shapes-1", pictures, top=2))
    answer = client.post("/models/shapes-1/predict?top=2", files=_files(*(path.read_bytes() for path in pictures)))
    found = answer.json()
    assert found["model"] == {"id": card.id, "name": "shapes-1", "checkpoint": card.run.checkpoint}
    assert len(found["predictions"]) == len(expected) == 15
    for number, (theirs, ours) in enumerate(zip(found["predictions"], expected, strict=True)):
        assert theirs["picture"] == f"{number}.png"
        assert [score["label"] for score in theirs["scores"]] == [score.label for score in ours.scores]
        probabilities = [score.probability for score in ours.scores]
        assert [score["probability"] for score in theirs["scores"]] == pytest.approx(probabilities, abs=1e-6)
    alone = client.post(
        "/models/shapes-1/predict", content=pictures[3].read_bytes(), headers={"content-type": "image/png"}
    )
    (one,) = alone.json()["predictions"]
    assert one["scores"][0]["probability"] == pytest.approx(expected[3].scores[0].probability, abs=1e-6)


def test_a_run_is_tried_by_its_newest_model(
    client: httpx.Client, ws: Workspace, card: Card, pictures: list[Path]
) -> None:
    files = _files(pictures[0].read_bytes())
    assert client.post("/runs/first/predict", files=files).json()["model"]["id"] == card.id
    of_best = client.post("/runs/first/predict?checkpoint=best", files=files).json()
    assert of_best["model"]["checkpoint"] == card.run.checkpoint
    runs.start(ws, "shapes", SPEC, name="not exported")
    refused = client.post("/runs/not exported/predict", files=files)
    assert "no model of the run 'not exported'" in _problem(refused, 409, "conflict")
    assert "vizsla model export 'not exported'" in refused.json()["remedy"]
    _problem(client.post("/runs/none/predict", files=files), 404, "not-found")
    _problem(client.post("/models/first/predict", files=files), 404, "not-found")


def _bomb() -> bytes:
    """A PNG of a megabyte that is 400 megapixels."""
    held = io.BytesIO()
    Image.fromarray(np.zeros((20_000, 20_000), np.uint8)).save(held, "PNG")
    return held.getvalue()


def test_a_broken_picture_fails_alone(client: httpx.Client, pictures: list[Path]) -> None:
    good = pictures[0].read_bytes()
    files = _files(good, b"no picture", b"", good[:60], _bomb(), bytes(33_000_000), good)
    found = client.post("/models/shapes-1/predict", files=files).json()["predictions"]
    reasons = [one["error"] and one["error"]["what"] for one in found]
    assert reasons == [
        None,
        "not a picture",
        "empty file",
        "truncated PNG",
        "400 megapixels, more than the limit of 200",
        "more than the limit of 32 MB",
        None,
    ]
    assert found[0]["scores"] == found[-1]["scores"] != []
    assert all(bool(one["scores"]) != bool(one["error"]) for one in found)


def test_what_is_no_such_request_is_refused(client: httpx.Client, pictures: list[Path]) -> None:
    good = pictures[0].read_bytes()
    place = "/models/shapes-1/predict"
    _problem(client.post(place, files=_files(*[good] * (MAX_PICTURES + 1))), 413, "too-large")
    _problem(client.post(place, content=bytes(65_000_000), headers={"content-type": "image/png"}), 413, "too-large")

    chunks = (bytes(1_000_000) for _ in range(80))  # of which nothing says beforehand how many there are
    _problem(client.post(place, content=chunks, headers={"content-type": "image/png"}), 413, "too-large")
    _problem(client.post("/models", content=bytes(2_000_000)), 413, "too-large")
    _problem(client.post(place, json={"picture": "/etc/passwd"}), 422, "invalid-input")
    _problem(client.post(place, data={"path": "/etc/passwd"}, files=_files(good)), 422, "invalid-input")
    _problem(client.post(place, content=b"x", headers={"content-type": "multipart/form-data"}), 422, "invalid-input")
    wrong = {"content-type": "multipart/form-data; boundary=b"}
    _problem(client.post(place, content=b"--x--", headers=wrong), 422, "invalid-input")
    for top in (0, 101, "x"):
        _problem(client.post(f"{place}?top={top}", files=_files(good)), 422, "invalid-input")
    assert client.post(place, files=_files(good)).status_code == 200


def test_twenty_clients_at_once(server: Server, pictures: list[Path]) -> None:
    contents = [path.read_bytes() for path in pictures]

    def ask(number: int) -> list[Any]:
        with httpx.Client(base_url=server.url, timeout=WAIT_S) as client:
            one = _files(contents[number % len(contents)])
            return [client.post("/models/shapes-1/predict", files=one).json()["predictions"] for _ in range(5)]

    alone = [ask(number) for number in range(len(contents))]
    with ThreadPoolExecutor(20) as threads:
        together = list(threads.map(ask, range(20)))
    assert together == [alone[number % len(contents)] for number in range(20)]
    assert 1 <= len(_workers(server)) <= max(2, (os.cpu_count() or 1) // 4)
    figures = httpx.get(server.url.removesuffix("/api/v1") + "/metrics").text
    assert f"vizsla_prediction_workers {float(len(_workers(server)))}" in figures
    assert 'vizsla_prediction_requests{state="waiting"} 0.0' in figures
    assert 'vizsla_predicted_pictures_total{outcome="rejected"}' in figures


def test_it_works_while_every_device_trains(
    client: httpx.Client, ws: Workspace, card: Card, pictures: list[Path]
) -> None:
    training = {"net": "lenet", "tune": "scratch", "epochs": 1000, "batch_size": 32}
    job = client.post("/runs", json={"dataset": "shapes", "spec": training, "name": "long"}).json()
    waiting = client.post("/runs", json={"dataset": "shapes", "spec": training, "name": "waiting"}).json()
    _until(lambda: client.get(f"/jobs/{job['id']}").json()["state"] == "running")
    answer = client.post("/models/shapes-1/predict", files=_files(pictures[0].read_bytes()))
    assert answer.json()["predictions"][0]["scores"]
    assert predictions.create(ws, "shapes-1", pictures[0].parent, name="meanwhile").num_pictures == 40
    states = [client.get(f"/jobs/{one['id']}").json()["state"] for one in (job, waiting)]
    assert states == ["running", "queued"], "it trained all the time"
    for one in (waiting, job):
        client.post(f"/jobs/{one['id']}/stop")
        _until(lambda id=one["id"]: client.get(f"/jobs/{id}").json()["state"] == "stopped")
    predictions.delete(ws, "meanwhile")


def test_a_process_that_is_killed_ends_one_request(server: Server, client: httpx.Client, pictures: list[Path]) -> None:
    files = _files(pictures[0].read_bytes())
    assert client.post("/models/shapes-1/predict", files=files).status_code == 200
    for worker in _workers(server):  # what died before a request is replaced, and nobody notices
        worker.kill()
        _until(lambda gone=worker: _ended(gone))
    assert client.post("/models/shapes-1/predict", files=files).status_code == 200
    url = f"{server.url}/models/shapes-1/predict"
    most = max(2, min(4, (os.cpu_count() or 1) // 4))
    with ThreadPoolExecutor(40) as threads:

        def ask(num: int) -> list[Future[httpx.Response]]:
            return [threads.submit(httpx.post, url, files=files, timeout=WAIT_S) for _ in range(num)]

        _until(lambda: all(one.result().status_code == 200 for one in ask(8)) and len(_workers(server)) == most)
        for worker in _workers(server):
            worker.suspend()  # so that requests find them at work
        asked = ask(40)
        _until(lambda: sum(one.done() for one in asked) == 8)  # those that found no place in the line
        assert client.get("/models/shapes-1").status_code == 200, "others go on"
        for worker in _workers(server):
            worker.kill()
        answers = [one.result() for one in asked]
    by_status = {status: [a for a in answers if a.status_code == status] for status in (200, 503)}
    assert len(by_status[200]) == 40 - 8 - most
    assert len(by_status[503]) == 8 + most
    assert sorted({answer.json()["kind"] for answer in by_status[503]}) == ["busy", "worker-died"]
    assert all(answer.headers["retry-after"] == "5" for answer in by_status[503])


def test_no_process_outlives_its_server(ws: Workspace, card: Card, pictures: list[Path], tmp_path: Path) -> None:
    # In a workspace of its own: one server looks after a queue.
    shutil.copytree(ws.root, tmp_path / "workspace", ignore=shutil.ignore_patterns("vizsla.db*"))
    for how in (signal.SIGKILL, signal.SIGTERM):
        other = Server(tmp_path / "workspace")
        files = _files(pictures[0].read_bytes())
        assert other.client.post("/models/shapes-1/predict", files=files).status_code == 200
        (worker,) = _workers(other)
        assert os.getpgid(worker.pid) == worker.pid, "Ctrl-C is for the server"
        other.stop(how)
        _until(lambda gone=worker: _ended(gone))


class _Bytes:
    """A picture as the pool takes it."""

    def __init__(self, content: bytes) -> None:
        self.size: int | None = len(content)
        self._held = io.BytesIO(content)

    async def read(self, size: int = -1, /) -> bytes:
        return self._held.read(size)


def _folder(ws: Workspace, card: Card) -> Path:
    return ws.folder("model", card.id)


def test_what_takes_too_long_is_replaced(ws: Workspace, card: Card, pictures: list[Path]) -> None:
    async def check() -> None:
        pool = Pool(workers=1, line=2, timeout_s=8)
        picture = pictures[0].read_bytes()
        first = await pool.predict(_folder(ws, card), [_Bytes(picture)], top=3)
        (slow,) = pool.pids
        os.kill(slow, signal.SIGSTOP)
        with pytest.raises(TooSlow, match="longer than 8 s"):
            await pool.predict(_folder(ws, card), [_Bytes(picture)], top=3)
        assert await pool.predict(_folder(ws, card), [_Bytes(picture)], top=3) == first
        assert slow not in pool.pids
        with pool.place(), pool.place(), pytest.raises(Busy), pool.place():
            pass
        pool.close()
        await asyncio.to_thread(_until, lambda: not any(map(psutil.pid_exists, pool.pids)))

    asyncio.run(check())


def test_idle_processes_end_and_damaged_models_are_told(
    ws: Workspace, card: Card, pictures: list[Path], tmp_path: Path
) -> None:
    damaged = shutil.copytree(_folder(ws, card), tmp_path / "damaged")
    with (damaged / GRAPH).open("ab") as graph:
        graph.write(b"x")

    async def check() -> None:
        pool = Pool(workers=1, idle_s=0.5)
        with pytest.raises(InvalidInput, match="missing or damaged"):
            await pool.predict(damaged, [_Bytes(path.read_bytes()) for path in pictures], top=3)
        (pid,) = pool.pids
        found = await pool.predict(_folder(ws, card), [_Bytes(pictures[0].read_bytes())], top=3)
        assert pool.pids == [pid], "a model that cannot be used ends no process"
        assert found[0]["error"] is None
        while pool.pids:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(_until, lambda: not psutil.pid_exists(pid))
        pool.close()

    asyncio.run(check())


def test_a_request_that_is_given_up_leaves_nothing_behind(ws: Workspace, card: Card, pictures: list[Path]) -> None:
    async def check() -> None:
        pool = Pool(workers=1)
        picture = pictures[0].read_bytes()
        first = await pool.predict(_folder(ws, card), [_Bytes(picture)], top=3)
        os.kill(pool.pids[0], signal.SIGSTOP)
        given_up = asyncio.create_task(pool.predict(_folder(ws, card), [_Bytes(pictures[9].read_bytes())], top=3))
        while not pool.at_work:
            await asyncio.sleep(0.01)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert await pool.predict(_folder(ws, card), [_Bytes(picture)], top=3) == first
        os.kill(pool.pids[0], signal.SIGSTOP)
        killed = asyncio.create_task(pool.predict(_folder(ws, card), [_Bytes(picture)], top=3))
        while not pool.at_work:
            await asyncio.sleep(0.01)
        os.kill(pool.pids[0], signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await killed
        pool.close()

    asyncio.run(check())
