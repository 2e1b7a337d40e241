"""A model as a service: a real process, asked over HTTP; its answers are those of `vizsla predict`."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest
from tests.support import Cli, Service, kill_process

from vizsla.api import models
from vizsla.models.card import Card
from vizsla.models.predictor import Predictor
from vizsla.store.workspace import Workspace

pytestmark = pytest.mark.slow
KEY = "a key that is long enough"


@pytest.fixture(scope="module")
def client(ws: Workspace, cards: list[Card]) -> Iterator[httpx.Client]:
    service = Service(ws.root, "first", f"shapes={cards[0].id}", "shapes=the second", "--max-pictures", 20)
    yield service.client
    assert service.stop() == 0


def _scores(answer: httpx.Response) -> list[list[tuple[str, float]]]:
    assert answer.status_code == 200, answer.text
    return [[(s["label"], s["probability"]) for s in one["scores"]] for one in answer.json()["predictions"]]


def _alike(found: list[list[tuple[str, float]]], wanted: list[list[tuple[str, float]]]) -> None:
    """The same classes in the same order. A row of a larger batch is summed up in another order."""
    assert [[label for label, _ in one] for one in found] == [[label for label, _ in one] for one in wanted]
    told, known = ([[p for _, p in one] for one in every] for every in (found, wanted))
    np.testing.assert_allclose(told, known, atol=1e-6)


def test_every_way_of_asking_gives_what_the_command_gives(
    client: httpx.Client, ws: Workspace, pictures: list[Path]
) -> None:
    said = Cli(ws.root)("predict", "first", *pictures, "--json").json
    wanted = [[(s["label"], s["probability"]) for s in one["scores"]] for one in said]
    form = client.post("/predict", files=[("pictures", (path.name, path.read_bytes())) for path in pictures])
    _alike(_scores(form), wanted)
    assert [one["picture"] for one in form.json()["predictions"]] == [path.name for path in pictures]
    assert (form.json()["model"], form.json()["version"]) == ("first", models.get(ws, "first").id)
    encoded = [{"name": path.name, "base64": base64.b64encode(path.read_bytes()).decode()} for path in pictures]
    _alike(_scores(client.post("/predict", json={"pictures": encoded})), wanted)
    for path, one in zip(pictures[:3], wanted, strict=False):
        answer = client.post("/predict", content=path.read_bytes(), headers={"Content-Type": "image/png"})
        _alike(_scores(answer), [one])
    top = client.post("/predict?top=1", content=pictures[0].read_bytes())
    _alike(_scores(top), [wanted[0][:1]])


def test_a_bad_picture_fails_alone_and_bad_requests_are_told_why(client: httpx.Client, pictures: list[Path]) -> None:
    good = pictures[0].read_bytes()
    answer = client.post("/predict", files=[("pictures", ("a.png", good)), ("pictures", ("b.png", good[:100]))])
    first, second = answer.json()["predictions"]
    assert first["scores"]
    assert first["error"] is None
    assert second["scores"] == []
    assert second["error"]["kind"] == "invalid-input"
    for status, options in {
        422: {"content": b"", "headers": {"Content-Type": "image/png"}},
        413: {"files": [("pictures", ("a.png", good))] * 21},
        404: {"content": good, "params": {"model": "frist"}},
    }.items():
        problem = client.post("/predict", **options)  # type: ignore[arg-type]
        assert problem.status_code == status, problem.text
        assert problem.headers["content-type"] == "application/problem+json"
        assert problem.json()["detail"]
        assert problem.json()["remedy"]
    for wrong in (b"{", b"[]", b'{"pictures": []}', b'{"pictures": [{"base64": "%"}]}', b'{"pictures": [{}]}'):
        problem = client.post("/predict", content=wrong, headers={"Content-Type": "application/json"})
        assert problem.status_code == 422, wrong
    assert client.post("/predict", json={"pictures": [{"link": "http://a.b/c.png"}]}).status_code == 403
    assert client.post("/predict", content=b"x", headers={"Content-Type": "text/html"}).status_code == 422
    assert client.get("/none").status_code == 404
    assert client.get("/predict").status_code == 405


def test_versions_are_asked_for_by_their_ids(client: httpx.Client, cards: list[Card], pictures: list[Path]) -> None:
    about = client.get("/about").json()
    assert [one["name"] for one in about["models"]] == ["first", "shapes"]
    shapes = about["models"][1]["versions"]
    assert [(one["version"], one["share"]) for one in shapes] == [(cards[0].id, 0.0), (cards[1].id, 1.0)]
    data = pictures[0].read_bytes()
    answers = [
        client.post("/predict", params={"model": "shapes"} | asked, content=data).json()
        for asked in ({}, {"version": cards[0].id}, {"version": cards[1].id})
    ]
    assert [one["version"] for one in answers] == [cards[1].id, cards[0].id, cards[1].id]
    assert answers[0]["predictions"] == answers[2]["predictions"] != answers[1]["predictions"]
    assert client.post("/predict?model=shapes&version=none", content=data).status_code == 404


def test_the_inference_protocol(client: httpx.Client, ws: Workspace, cards: list[Card], pictures: list[Path]) -> None:
    assert "binary_tensor_data" in client.get("/v2").json()["extensions"]
    for path in ("health/live", "health/ready", "models/first/ready", f"models/shapes/versions/{cards[0].id}/ready"):
        assert client.get(f"/v2/{path}").status_code == 200
    about = client.get("/v2/models/first").json()
    assert about["inputs"][0] == {"name": "pixels", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}
    assert about["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}]
    predictor = Predictor(ws.folder("model", cards[0].id))
    pixels = np.stack([predictor.card.preprocess.to_array(path) for path in pictures[:4]])
    wanted = predictor.probabilities(pixels)
    path = "/v2/models/first/infer"
    tensor: dict[str, Any] = {"name": "pixels", "shape": list(pixels.shape), "datatype": "UINT8"}
    nested = client.post(path, json={"id": "a", "inputs": [tensor | {"data": pixels.tolist()}]}).json()
    assert (nested["id"], nested["model_version"]) == ("a", cards[0].id)
    assert nested["outputs"][0]["shape"] == [4, 3]
    np.testing.assert_allclose(np.reshape(nested["outputs"][0]["data"], (4, 3)), wanted, atol=1e-6)
    flat = client.post(path, json={"inputs": [tensor | {"data": pixels.ravel().tolist()}]}).json()
    assert flat["outputs"] == nested["outputs"]
    np.testing.assert_allclose(_binary(client, path, tensor, pixels.tobytes()), wanted, atol=1e-6)
    files = b"".join(struct.pack("<I", one.stat().st_size) + one.read_bytes() for one in pictures[:4])
    as_files = {"name": "pictures", "shape": [4], "datatype": "BYTES"}
    np.testing.assert_allclose(_binary(client, path, as_files, files), wanted, atol=1e-6)
    asked = {"name": "probabilities", "parameters": {"classification": 1}}
    best = client.post(path, json={"inputs": [tensor | {"data": pixels.tolist()}], "outputs": [asked]}).json()
    labels = about["parameters"]["labels"]
    surest = [f"{row.max():.6f}:{row.argmax()}:{labels[row.argmax()]}" for row in wanted]
    assert best["outputs"][0]["data"] == surest


def _binary(client: httpx.Client, path: str, tensor: dict[str, Any], raw: bytes) -> np.ndarray:
    tensor = tensor | {"parameters": {"binary_data_size": len(raw)}}
    body = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    answer = client.post(path, content=body + raw, headers={"Inference-Header-Content-Length": str(len(body))})
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    return np.frombuffer(answer.content[length:], "<f4").reshape(-1, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": [1, 32, 32, 1]}, {"shape": [1, 31, 32, 3]}, {"shape": [0, 32, 32, 3], "data": []}, {"name": "x"},
        {"datatype": "FP32"}, {"data": [[1, 2], [3]]}, {"data": [-1] * 3072}, {"data": [256] * 3072},
        {"data": [0.5] * 3072}, {"data": ["a"] * 3072}, {"data": []}, {"shape": [2**31, 2**31, 2**31]}, {"shape": []},
        {"parameters": {"binary_data_size": 5}}, {"name": "pictures", "datatype": "BYTES", "shape": [1], "data": [7]},
        {"name": "pictures", "datatype": "BYTES", "shape": [1], "data": ["AAAA"]},
        {"name": "pictures", "datatype": "BYTES", "shape": [2], "data": ["AAAA"]},
    ],
)  # fmt: skip
def test_wrong_tensors_are_refused(client: httpx.Client, wrong: dict[str, Any]) -> None:
    tensor = {"name": "pixels", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": [0] * 3072} | wrong
    answer = client.post("/v2/models/first/infer", json={"inputs": [tensor]})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"] == answer.json()["detail"]


def test_figures_tell_what_was_done(client: httpx.Client, cards: list[Card], pictures: list[Path]) -> None:
    def figure(name: str, **labels: str) -> float:
        found = 0.0
        for line in client.get("/metrics").text.splitlines():
            if line.startswith(f"vizsla_service_{name}{{") and all(f'{k}="{v}"' in line for k, v in labels.items()):
                found += float(line.rpartition(" ")[2])
        return found

    by = {"model": "first", "version": cards[0].id}
    before = {name: figure(name, **by) for name in ("requests_total", "predictions_total", "batch_pictures_sum")}
    files = [("pictures", (path.name, path.read_bytes())) for path in pictures[:5]]
    client.post("/predict", files=[*files, ("pictures", ("bad", b"bad"))])
    assert figure("requests_total", **by) - before["requests_total"] == 1
    assert figure("predictions_total", **by) - before["predictions_total"] == 5
    assert figure("batch_pictures_sum", **by) - before["batch_pictures_sum"] == 5
    assert figure("requests_in_flight", **by) == 0
    assert client.get("/openapi.json").json()["paths"]["/predict"]


def test_who_leaves_is_not_answered(
    ws: Workspace, cards: list[Card], pictures: list[Path], start: Callable[..., Service]
) -> None:
    """The worker is held while somebody asks and leaves, so that it learns of both at once."""
    service = start(ws.root, "first")
    address = urlsplit(service.url)
    (worker,) = service.workers()
    worker.suspend()
    with socket.create_connection((address.hostname, address.port)) as asking:
        data = pictures[0].read_bytes()
        head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        asking.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    worker.resume()
    deadline = time.monotonic() + 20
    while f'version="{cards[0].id}"' not in service.client.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    told = service.client.get("/metrics").text
    assert re.search(r'vizsla_service_requests_total\{[^}]*status="499"[^}]*\} 1.0', told), told
    assert re.search(r"vizsla_service_requests_in_flight\{[^}]*\} 0.0", told)
    assert service.stop() == 0


def test_keys_are_asked_for_but_not_for_health(
    ws: Workspace, cards: list[Card], tmp_path: Path, start: Callable[..., Service]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"another key of somebody\n{KEY}\n")
    service = start(ws.root, "first", "--keys", keys, "--host", "0.0.0.0", "--origin", "https://example.org")
    client = service.client
    for path in ("/v2/health/live", "/v2/health/ready", "/", "/page/service.js"):
        assert client.get(path).status_code == 200
    for path in ("/about", "/metrics", "/v2", "/v2/models/first", "/page/../about"):
        answer = client.get(path)
        assert answer.status_code == 401, path
        assert "key" not in answer.headers.get("www-authenticate", "")
    assert client.post("/predict", content=b"x", headers={"X-API-Key": KEY + "x"}).status_code == 401
    for shown in ({"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}):
        assert client.get("/about", headers=shown).status_code == 200
    asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    assert client.options("/predict", headers=asked).headers["access-control-allow-origin"] == "https://example.org"
    other = client.options("/predict", headers=asked | {"Origin": "https://example.com"})
    assert "access-control-allow-origin" not in other.headers
    assert service.stop() == 0
    assert KEY not in service.said


def test_a_killed_worker_is_replaced_and_the_end_is_in_peace(
    ws: Workspace, cards: list[Card], pictures: list[Path], start: Callable[..., Service]
) -> None:
    service = start(ws.root, "first", "--workers", 2)
    data = pictures[0].read_bytes()
    before = service.client.post("/predict", content=data).json()["predictions"]
    for worker in service.workers():
        kill_process(worker.pid)
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline
        try:
            answer = httpx.post(f"{service.client.base_url}/predict", content=data, timeout=60)
            break
        except httpx.TransportError:
            time.sleep(0.1)
    assert answer.json()["predictions"] == before
    assert "vizsla_service_requests_total" in service.client.get("/metrics").text
    with ThreadPoolExecutor(8) as pool:
        address = f"{service.client.base_url}/predict"
        asked = [pool.submit(httpx.post, address, content=data, timeout=60) for _ in range(40)]
        while not any(one.done() for one in asked):
            time.sleep(0.01)
        assert service.stop() == 0
        # Those whose connection had been taken have their answer; the others could not connect any more.
        for one in asked:
            error = one.exception()
            assert isinstance(error, httpx.TransportError) or one.result().json()["predictions"] == before
    assert not [worker for worker in psutil.process_iter(["cmdline"]) if _of(worker, service.process.pid)]


def _of(process: psutil.Process, parent: int) -> bool:
    try:
        return process.ppid() == parent
    except psutil.Error:
        return False


def test_workers_do_not_outlive_a_supervisor_that_is_killed(
    ws: Workspace, cards: list[Card], start: Callable[..., Service]
) -> None:
    service = start(ws.root, "first")
    (worker,) = service.workers()
    kill_process(service.process.pid)
    service.process.wait()
    psutil.wait_procs([worker], 30)
    assert not worker.is_running()


def test_another_version_comes_without_a_gap(
    ws: Workspace, cards: list[Card], pictures: list[Path], tmp_path: Path, start: Callable[..., Service]
) -> None:
    service = start(ws.root, "shapes=first", TMPDIR=str(tmp_path))
    (place,) = tmp_path.glob("*/service.json")
    data, seen, late = pictures[0].read_bytes(), [], []

    async def ask(client: httpx.AsyncClient, until: asyncio.Event) -> None:
        while not until.is_set():
            is_over = cards[1].id in seen
            answer = await client.post("/predict", content=data)
            assert answer.status_code == 200, answer.text
            seen.append(answer.json()["version"])
            if is_over:
                late.append(seen[-1])

    async def main() -> None:
        async with httpx.AsyncClient(base_url=service.client.base_url, timeout=60) as client:
            until = asyncio.Event()
            asking = [asyncio.create_task(ask(client, until)) for _ in range(4)]
            for text in (
                place.read_text().replace(cards[0].id, cards[1].id),  # both its folder and its name
                "{ this is no service",
            ):
                await asyncio.sleep(0.5)
                place.write_text(text)
                service.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(1)
            until.set()
            await asyncio.gather(*asking)

    asyncio.run(main())
    assert seen[0] == cards[0].id
    assert seen[-1] == cards[1].id
    assert set(late) == {cards[1].id}, "who asks once the new one has answered is not answered by the old one"
    assert service.stop() == 0
    assert "What was served is served still" in service.said


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "Name a model to serve"),
        (["none"], "There is no model 'none'"),
        (["first", "--host", "0.0.0.0"], "everybody could ask"),
        (["first", "--workers", "0"], "0 workers cannot be"),
        (["first", "--share", "0.5"], "There is one version only"),
        (["a b=first"], "name"),
        (["first", "--max-batch", "0"], "--max-batch"),
        (["first", "--max-queue", "3"], "max_queue must be at least max_pictures"),
        (["first", "--device", "cuda:7"], "ONNX Runtime cannot compute on cuda:7"),
        (["first", "--keys", "/nowhere"], "The keys cannot be read"),
    ],
)
def test_what_cannot_be_served_is_refused(ws: Workspace, cards: list[Card], options: list[str], told: str) -> None:
    done = Cli(ws.root)("service", "run", "--port", 0, *options, status=1)
    assert told in done.err
    assert "Traceback" not in done.err
    assert done.err.count(told) == 1


def test_a_port_that_is_taken_is_told(ws: Workspace, cards: list[Card]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = Cli(ws.root)("service", "run", "first", "--port", taken.getsockname()[1], status=1)
    assert "cannot be had" in done.err
