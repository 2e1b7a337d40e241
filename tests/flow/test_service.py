"""A model as a service: a real process, asked over HTTP; its answers are those of `vizsla predict`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import random
import re
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import jsonschema
import numpy as np
import psutil
import pytest
from tests.support import Cli, Service, fetch_here, kill_process, sharing

import vizsla
from vizsla.api import models, runs
from vizsla.errors import Busy, InvalidInput, VizslaError
from vizsla.images import links
from vizsla.models.card import Card
from vizsla.models.predictor import Predictor
from vizsla.serving import bodies
from vizsla.serving.answering import Seen
from vizsla.serving.app import create_app
from vizsla.serving.spec import Limits, ModelSpec, ServiceSpec, VersionSpec
from vizsla.store.workspace import Workspace

pytestmark = pytest.mark.slow
TINY = vizsla.TrainingSpec(net="lenet", tune="scratch", epochs=1, batch_size=32)
KEY = "a key that is long enough"


@pytest.fixture(scope="module")
def cards(ws: Workspace) -> list[Card]:
    """Two models of two runs."""
    return [
        models.export(ws, runs.start(ws, "shapes", TINY.model_copy(update={"seed": seed})).run.id, name=name)
        for seed, name in enumerate(("first", "the second"))
    ]


@pytest.fixture(scope="module")
def pictures(ws: Workspace, cards: list[Card]) -> list[Path]:
    return sorted((ws.root.parent / "pictures").rglob("*.png"))[::7]


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
    worker.wait(30)


def test_another_version_comes_without_a_gap(
    ws: Workspace, cards: list[Card], pictures: list[Path], tmp_path: Path, start: Callable[..., Service]
) -> None:
    service = start(ws.root, "shapes=first", TMPDIR=str(tmp_path))
    (place,) = tmp_path.glob("*/service.json")
    data, seen = pictures[0].read_bytes(), []

    async def ask(client: httpx.AsyncClient, until: asyncio.Event) -> None:
        while not until.is_set():
            answer = await client.post("/predict", content=data)
            assert answer.status_code == 200, answer.text
            seen.append(answer.json()["version"])

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
    assert seen == sorted(seen, key=lambda one: one == cards[1].id), "once the new one answers, the old one does not"
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


@contextlib.asynccontextmanager
async def here(
    ws: Workspace, *served: Card, fetch: Any = links.fetch, at: str = "127.0.0.1", share: float = 1.0, **fields: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Any]]:
    """A service in this process, with what no command line can say, and who asks it."""
    shares = [1 - share, share] if len(served) == 2 else [1.0]
    versions = tuple(
        VersionSpec(version=one.id, folder=ws.folder("model", one.id), share=part)
        for one, part in zip(served, shares, strict=True)
    )
    spec = ServiceSpec(models=(ModelSpec(name="m", versions=versions),), **fields)
    app = create_app(spec, ws.root, fetch)
    service = app.state.service
    await service.models.load(spec)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{at}:8000", timeout=60) as client:
            yield client, service
    finally:
        await service.close()


def test_two_versions_share_the_requests(ws: Workspace, cards: list[Card], pictures: list[Path]) -> None:
    async def main() -> list[str]:
        async with here(ws, *cards, share=0.25) as (client, _):
            data = pictures[0].read_bytes()
            return [(await client.post("/predict", content=data)).json()["version"] for _ in range(300)]

    random.seed(7)
    seen = asyncio.run(main())
    assert 45 < seen.count(cards[1].id) < 105
    assert seen.count(cards[0].id) == 300 - seen.count(cards[1].id)


def test_links_are_fetched(ws: Workspace, cards: list[Card]) -> None:
    folder = ws.root.parent / "pictures"

    async def main(address: str) -> tuple[httpx.Response, httpx.Response, httpx.Response]:
        async with here(ws, cards[0], fetch=fetch_here, links=True) as (client, service):
            named = [f"{address}/ring/003.png", f"{address}/none.png"]
            asked = {"pictures": [*({"link": one} for one in named), {"base64": "", "name": "a"}]}
            by_link = await client.post("/predict", json=asked)
            many = await client.post("/predict", json={"pictures": [{"link": named[0]}] * 9})
            as_file = await client.post("/predict", content=(folder / "ring" / "003.png").read_bytes())
            assert service.held._bytes == 0
            return by_link, many, as_file

    with sharing(folder) as address:
        by_link, many, as_file = asyncio.run(main(address))
    found, missing, empty = by_link.json()["predictions"]
    assert found["picture"] == f"{address}/ring/003.png"
    assert found["scores"] == as_file.json()["predictions"][0]["scores"]
    assert missing["error"]["what"].startswith("The host of the link answers 404")
    assert empty["error"]["what"] == "empty file"
    assert many.status_code == 413
    assert "8 links" in many.json()["detail"]


def test_what_takes_too_long_is_told_so(
    ws: Workspace, cards: list[Card], pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """504: the answer did. 408: the request did, wherever it was sent."""
    monkeypatch.setattr(bodies, "PATIENCE_S", 0.1)

    async def slow() -> AsyncIterator[bytes]:
        yield b"--x"
        await asyncio.sleep(60)

    async def main() -> None:
        async with here(ws, cards[0], limits=Limits(deadline_s=0.2)) as (client, service):
            monkeypatch.setattr(service, "look", lambda *args: asyncio.sleep(60))
            late = await client.post("/predict", content=pictures[0].read_bytes())
            assert (late.status_code, late.json()["kind"]) == (504, "too-slow")
            for path, kind in (
                ("/predict", "image/png"),
                ("/predict", "application/json"),
                ("/predict", "multipart/form-data; boundary=x"),
                ("/v2/models/m/infer", "application/json"),
            ):
                answer = await client.post(path, content=slow(), headers={"Content-Type": kind})
                assert answer.status_code == 408, answer.text
                assert answer.json().get("error", "") == (answer.json()["detail"] if "v2" in path else "")
            assert service.held._bytes == 0

    asyncio.run(main())


def test_what_would_be_too_much_in_memory_may_come_again(ws: Workspace, cards: list[Card]) -> None:
    async def main() -> None:
        begun, go_on = asyncio.Semaphore(0), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield bytes(9000)
            begun.release()
            await go_on.wait()

        async with here(ws, cards[0], limits=Limits(max_request_mb=0.01, max_held_mb=0.04)) as (client, _):
            first = [asyncio.create_task(client.post("/predict", content=slow())) for _ in range(2)]
            await begun.acquire()
            await begun.acquire()
            for path in ("/predict", "/v2/models/m/infer"):
                answer = await client.post(path, content=bytes(9000))
                assert (answer.status_code, answer.json()["kind"]) == (503, "busy")
                assert answer.headers["retry-after"] == "5"
                assert "holds as many" in answer.json().get("error", answer.json()["detail"])
            go_on.set()
            await asyncio.gather(*first)
            assert (await client.post("/predict", content=bytes(9000))).status_code == 200

    asyncio.run(asyncio.wait_for(main(), 30))


def test_errors_do_not_send_requests_back(ws: Workspace, cards: list[Card]) -> None:
    name = "n" * 100_000
    tensor = {"name": "pixels", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": [0]}

    async def main() -> None:
        async with here(ws, cards[0]) as (client, _):
            for path, body in (
                ("/predict", {name: 1}),
                ("/predict", {"pictures": [{name: 1}]}),
                ("/v2/models/m/infer", {"inputs": [tensor | {name: 1}]}),
                ("/v2/models/m/infer", {"inputs": [tensor | {"name": name}]}),
                ("/v2/models/m/infer", {"inputs": [tensor], "id": name}),
                (f"/v2/models/{name[:9000]}/infer", {}),
                (f"/predict?top={name[:9000]}", {}),
            ):
                answer = await client.post(path, json=body)
                assert answer.status_code in (404, 422)
                assert len(answer.content) < 4000, path
                assert ("error" in answer.json()) == ("v2" in path)
            for status, method, path in ((404, "GET", "/v2/none"), (405, "GET", "/v2/models/m/infer")):
                answer = await client.request(method, path)
                assert answer.status_code == status
                assert answer.json()["error"] == answer.json()["detail"]
            length = {"Inference-Header-Content-Length": "x"}
            answer = await client.post("/v2/models/m/infer", content=b"", headers=length)
            assert answer.status_code == 422
            assert answer.json()["error"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "status"), [(Busy("full"), 503), (VizslaError("broken"), 500), (InvalidInput("no picture"), 422)]
)
def test_a_picture_of_a_tensor_fails_as_what_it_is(
    ws: Workspace, cards: list[Card], monkeypatch: pytest.MonkeyPatch, error: VizslaError, status: int
) -> None:
    tensor = {"name": "pictures", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}

    async def look(*args: Any) -> list[Seen]:
        return [Seen(None, error)]

    async def main() -> httpx.Response:
        async with here(ws, cards[0]) as (client, service):
            monkeypatch.setattr(service, "look", look)
            return await client.post("/v2/models/m/infer", json={"inputs": [tensor]})

    answer = asyncio.run(main())
    assert (answer.status_code, answer.json()["kind"]) == (status, error.kind)
    assert answer.json()["error"] == f"Picture 0: {error.what}"


def test_no_other_site_asks_a_service_without_keys(ws: Workspace, cards: list[Card]) -> None:
    def statuses(asked: list[dict[str, str]], at: str = "127.0.0.1", **fields: Any) -> list[int]:
        async def main() -> list[int]:
            async with here(ws, cards[0], at=at, **fields) as (client, _):
                return [(await client.post("/predict", content=b"x", headers=one)).status_code for one in asked]

        return asyncio.run(main())

    own = ["127.0.0.1:8000", "localhost", "localhost:8000", "[::1]:8000", "0.0.0.0:8000", "127.0.0.9"]
    theirs = ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[", "localhost.evil.example"]
    assert statuses([{"Host": one} for one in own]) == [200] * len(own)
    assert statuses([{"Host": one} for one in theirs]) == [403] * len(theirs)
    same = [{}, {"Origin": "http://127.0.0.1:8000"}, {"Sec-Fetch-Site": "same-origin"}]
    foreign = [
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:9000"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ]  # fmt: skip
    assert statuses(same) == [200] * len(same)
    assert statuses(foreign) == [403] * len(foreign)
    friend = {"Origin": "https://friend.example", "Sec-Fetch-Site": "cross-site"}
    assert statuses([friend], origins=("https://friend.example",)) == [200]
    named = [{"Host": "model.example"}, {"Host": "evil.example"}]
    assert statuses(named, hosts=("model.example",)) == [200, 403]
    assert statuses(named, hosts=("*",)) == [200, 200]
    assert statuses(named, keys=(hashlib.sha256(b"k").hexdigest(),)) == [401, 401]
    assert statuses([*named, *foreign], at="192.0.2.1") == [200] * 7, "others reach it by any name"


def test_a_host_is_no_part_of_a_path(ws: Workspace, cards: list[Card]) -> None:
    async def main() -> None:
        async with here(ws, cards[0], keys=(hashlib.sha256(b"k").hexdigest(),)) as (client, _):
            for host in ("a/page/b?", "a/?", "a/v2/health/live?", "a/page/x#"):
                assert (await client.get("/about", headers={"Host": host})).status_code == 401

    asyncio.run(main())


def test_all_requests_are_counted_by_status(
    ws: Workspace, cards: list[Card], pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = [
        {"content": pictures[0].read_bytes()},
        {"content": b""},
        {"content": bytes(20_000)},
        {"content": b"x", "params": {"model": "none"}},
        {"content": b"x", "params": {"top": "0"}},
        {"content": b"x", "headers": {"Host": "evil.example"}},
    ]

    async def main() -> str:
        async with here(ws, cards[0], limits=Limits(max_request_mb=0.01)) as (client, service):
            for one in asked:
                await client.post("/predict", **one)
            await client.get("/none")
            with monkeypatch.context() as patching:
                patching.setattr(service, "look", None)
                await client.post("/predict", content=b"x")
            return (await client.get("/metrics")).text

    counted = dict(re.findall(r'vizsla_service_answers_total\{status="(\d+)"\} (\S+)', asyncio.run(main())))
    assert counted == {"200": "1.0", "422": "2.0", "413": "1.0", "404": "2.0", "403": "1.0", "500": "1.0"}


@pytest.mark.parametrize("keys", [(), (hashlib.sha256(b"k").hexdigest(),)])
def test_the_openapi_document_is_whole(ws: Workspace, cards: list[Card], keys: tuple[str, ...]) -> None:
    async def main() -> Any:
        async with here(ws, cards[0], keys=keys) as (client, _):
            return (await client.get("/openapi.json")).json()

    found = asyncio.run(main())
    named = set(re.findall(r'"\$ref": ?"([^"]+)"', json.dumps(found)))
    assert len(named) > 10
    for one in named:
        place = found
        assert one.startswith("#/")
        for part in one[2:].split("/"):
            place = place[part]
    predict, infer = found["paths"]["/predict"]["post"], found["paths"]["/v2/models/{model}/infer"]["post"]
    kinds = {"multipart/form-data", "image/*", "application/octet-stream", "application/json"}
    assert set(predict["requestBody"]["content"]) == kinds
    binary = {"application/json", "application/octet-stream"}
    assert set(infer["requestBody"]["content"]) == set(infer["responses"]["200"]["content"]) == binary
    assert list(predict["responses"]["4XX"]["content"]) == ["application/problem+json"]
    assert list(found["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]
    if keys:
        assert set(found["components"]["securitySchemes"]) == {"bearer", "key"}
        assert found["security"] == [{"bearer": []}, {"key": []}]
        assert found["paths"]["/v2/health/live"]["get"]["security"] == []
    else:
        assert "securitySchemes" not in found["components"]


def test_an_answer_is_as_the_openapi_document_says(ws: Workspace, cards: list[Card], pictures: list[Path]) -> None:
    tensor = {"name": "pictures", "shape": [1], "datatype": "BYTES"}
    data = base64.b64encode(pictures[0].read_bytes()).decode()

    async def main() -> tuple[Any, Any, Any]:
        async with here(ws, cards[0]) as (client, _):
            document = (await client.get("/openapi.json")).json()
            infer = await client.post("/v2/models/m/infer", json={"id": "a", "inputs": [tensor | {"data": [data]}]})
            predict = await client.post("/predict", json={"pictures": [{"base64": data}]})
            return document, infer.json(), predict.json()

    document, infer, predict = asyncio.run(main())
    for name, answer in (("InferAnswer", infer), ("Predicted", predict)):
        whole = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator(whole).validate(answer)


def test_long_bodies_are_taken_apart_as_short_ones_are(ws: Workspace, cards: list[Card], pictures: list[Path]) -> None:
    """What is parsed in a thread, or while it comes, is what is parsed at once."""
    data = pictures[0].read_bytes()
    padded = data + bytes(100_000)  # a decoder does not look behind the picture

    async def main() -> list[Any]:
        async with here(ws, cards[0]) as (client, service):
            encoded = {"pictures": [{"base64": base64.b64encode(one).decode()} for one in (data, padded)]}
            by_json = await client.post("/predict", json=encoded)
            by_form = await client.post("/predict", files=[("pictures", one) for one in (data, padded)])
            assert service.held._bytes == 0
            return [one["scores"] for answer in (by_json, by_form) for one in answer.json()["predictions"]]

    rows = asyncio.run(main())
    assert len(rows) == 4
    assert all(_same(row, rows[0]) for row in rows)


def _same(row: list[Any], other: list[Any]) -> bool:
    """Of two rows of scores; that of a larger batch is summed up in another order."""
    return bool(row) and all(
        a["label"] == b["label"] and abs(a["probability"] - b["probability"]) < 1e-6
        for a, b in zip(row, other, strict=True)
    )
