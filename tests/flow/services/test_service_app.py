"""What a service refuses, bounds and says of itself: the app in this process, with what no command line can say."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hashlib
import json
import random
import re
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from tests.support import fetch_here, sharing

from vizsla.errors import Busy, InvalidInput, VizslaError
from vizsla.images import links
from vizsla.machine import system
from vizsla.models.card import Card
from vizsla.serving import bodies, capture
from vizsla.serving import models as served_models
from vizsla.serving.answering import Seen
from vizsla.serving.app import create_app
from vizsla.serving.spec import CaptureSpec, Limits, ModelSpec, ServiceSpec, VersionSpec
from vizsla.store.workspace import Workspace

pytestmark = pytest.mark.slow
KEY = "a key that is long enough"


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


def test_pictures_are_kept_for_labelling(
    ws: Workspace, cards: list[Card], pictures: list[Path], tmp_path: Path
) -> None:
    spec = {"capture": CaptureSpec(below=1.0), "captured": tmp_path / "kept"}
    sent = {path.read_bytes() for path in pictures}

    async def main() -> tuple[list[str], str, dict[str, Any]]:
        async with here(ws, cards[0], **spec) as (client, service):
            files = [("pictures", (path.name, path.read_bytes())) for path in pictures]
            answer = (await client.post("/predict", files=[*files, ("pictures", ("bad.png", b"rubbish"))])).json()
            assert service.held._bytes == 0
            for again in pictures:
                await client.post("/predict", content=again.read_bytes())
            about = (await client.get("/about")).json()
            while service._capture._pending:
                await asyncio.sleep(0.01)
            text = (await client.get("/metrics")).text
            return [one["scores"][0]["label"] for one in answer["predictions"][:-1]], text, about

    labels, text, about = asyncio.run(main())
    found = list(capture.pictures(tmp_path / "kept"))
    assert {path.read_bytes() for path in found} == sent
    assert {path.parent.name for path in found} == set(labels)
    assert about["captures"] is True
    told = {became: float(num) for became, num in re.findall(r'captures_total\{became="(\w+)".*\} (\S+)', text)}
    assert told == {"kept": len(sent), "known": 2 * len(pictures) - len(sent)}


def test_pictures_are_not_kept_unless_that_is_asked_for(ws: Workspace, cards: list[Card], pictures: list[Path]) -> None:
    async def main() -> dict[str, Any]:
        async with here(ws, cards[0]) as (client, _):
            await client.post("/predict", content=pictures[0].read_bytes())
            about: dict[str, Any] = (await client.get("/about")).json()
            return about

    assert asyncio.run(main())["captures"] is False
    assert not (ws.root / "captured").exists()


def test_quick_networks_have_two_passes_at_once_and_others_one(
    ws: Workspace, cards: list[Card], pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "cores", lambda: 2.0)

    async def passes(**fields: Any) -> tuple[int, int]:
        async with here(ws, cards[0], **fields) as (client, service):
            sent = [("pictures", (path.name, path.read_bytes())) for path in pictures]
            assert len((await client.post("/predict", files=sent)).json()["predictions"]) == len(pictures)
            (served,) = service.models.all()
            return len(served.batcher._tasks), served.batcher._max_batch

    assert asyncio.run(passes()) == (2, 4)
    assert asyncio.run(passes(limits=Limits(max_batch=3))) == (2, 3)
    assert asyncio.run(passes(threads=1)) == (1, 16), "with as many threads as were asked for"
    monkeypatch.setattr(served_models, "QUICK_S", 0.0)
    assert asyncio.run(passes()) == (1, 16)


def test_a_model_that_was_replaced_is_let_go(ws: Workspace, cards: list[Card], pictures: list[Path]) -> None:
    async def main() -> bool:
        async with here(ws, cards[0]) as (client, service):
            await client.post("/predict", content=pictures[0].read_bytes())
            before = weakref.ref(service.models.all()[0].predictor)
            other = VersionSpec(version=cards[1].id, folder=ws.folder("model", cards[1].id))
            gc.disable()  # as what is frozen is not looked at: it has to go by itself
            try:
                await service.serve(
                    service.spec.model_copy(update={"models": (ModelSpec(name="m", versions=(other,)),)})
                )
                while service.models._retiring:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
                return before() is None
            finally:
                gc.enable()

    assert asyncio.run(main())
