"""Pictures by links: what a server refuses that was not told to fetch, what one that was does, and for whom."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tests.support import Server, fetch_here, serving_here, sharing

from vizsla.api import accounts, datasets, models, runs
from vizsla.errors import Unavailable
from vizsla.images.links import Write
from vizsla.store.workspace import Workspace
from vizsla.training.spec import TrainingSpec
from vizsla.web import links, pictures

pytestmark = pytest.mark.slow

SPEC = TrainingSpec(net="lenet", tune="scratch", epochs=1, batch_size=32)
PLACES = ("/models/shaper/predict", "/runs/first/predict", "/runs/first/explain", "/runs/first/layers")
NOWHERE = "The link leads to no address on the public internet."


@pytest.fixture(scope="module")
def root(ws: Workspace) -> Path:
    runs.start(ws, "shapes", SPEC, name="first")
    models.export(ws, "first", name="shaper")
    return ws.root


@pytest.fixture(scope="module")
def shared(ws: Workspace) -> Iterator[str]:
    with sharing(datasets.get(ws, "shapes").spec.source) as address:
        yield address


@pytest.fixture
def fetching(root: Path) -> Iterator[httpx.Client]:
    """A server that fetches from this machine."""
    with serving_here(root, fetch=fetch_here) as base, httpx.Client(base_url=f"{base}/api/v1", timeout=60) as client:
        yield client


def _problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()
    assert (answer.status_code, found.get("kind")) == (status, kind), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return found


def test_a_server_fetches_nothing_unless_it_is_told_to(root: Path, shared: str) -> None:
    server = Server(root)
    try:
        for place in PLACES:
            problem = _problem(server.client.post(place, json={"links": [f"{shared}/disc/000.png"]}), 403, "forbidden")
            assert "--allow-links" in problem["remedy"]
        page = httpx.get(server.url.removesuffix("/api/v1") + "/models/shaper/try", follow_redirects=True)
        assert "Drop pictures" in page.text
        assert "by-link" not in page.text
    finally:
        assert server.stop() == 0


def test_a_server_that_fetches_asks_nobody_in_its_own_network(root: Path, shared: str) -> None:
    server = Server(root, "--allow-links")
    own = server.url.removesuffix("/api/v1")
    refused = [f"{shared}/disc/000.png", own, "http://localhost/", "http://[::1]/", "http://169.254.169.254/latest/"]
    try:
        asked = ["http://127.0.0.1/", "http://2130706433/"]
        found = server.client.post(PLACES[0], json={"links": asked}).json()["predictions"]
        assert [one["picture"] for one in found] == asked
        told = {(one["error"]["kind"], one["error"]["what"].startswith(NOWHERE)) for one in found}
        assert told == {("invalid-input", True)}
        assert len({one["error"]["what"] for one in found}) == 1
        assert [one["scores"] for one in found] == [[], []]
        for place in PLACES[2:]:
            problem = _problem(server.client.post(place, json={"links": ["http://10.0.0.1/"]}), 422, "invalid-input")
            assert problem["detail"] == NOWHERE
        for link in refused:  # those with a port of their own for that already
            (one,) = server.client.post(PLACES[0], json={"links": [link]}).json()["predictions"]
            assert one["error"]["kind"] == "invalid-input", link
        metrics = httpx.get(f"{own}/metrics").text
        assert 'vizsla_predicted_pictures_total{outcome="rejected"} 7.0' in metrics
    finally:
        assert server.stop() == 0


def test_what_is_linked_is_seen_as_what_is_sent(fetching: httpx.Client, shared: str, ws: Workspace) -> None:
    names = ("disc/000.png", "ring/001.png", "square/002.png")
    source = Path(datasets.get(ws, "shapes").spec.source)
    asked = [f"{shared}/{name}" for name in names]
    files = [("pictures", (name, (source / name).read_bytes())) for name in names]
    for place in PLACES[:2]:
        sent = fetching.post(place, files=files).json()["predictions"]
        found = fetching.post(f"{place}?thumbnails=true", json={"links": [*asked, f"{shared}/none.png"]}).json()
        *linked, missing = found["predictions"]
        assert [one["picture"] for one in linked] == asked
        assert [one["scores"] for one in linked] == [one["scores"] for one in sent]
        assert missing["error"]["what"].startswith("The host of the link answers 404. ")
        assert missing["error"]["kind"] == "unavailable"
        assert [one["thumbnail"] for one in (*sent, missing)] == [None] * 4
        for one in linked:
            small = Image.open(io.BytesIO(base64.b64decode(one["thumbnail"])))
            assert (small.format, small.size) == ("JPEG", (32, 32))
    for place, part in zip(PLACES[2:], ("picture", "layers"), strict=True):
        linked = fetching.post(place, json={"links": asked[:1]}).json()[part]
        assert linked == fetching.post(place, files=files[:1]).json()[part]
        _problem(fetching.post(place, json={"links": asked}), 422, "invalid-input")
        _problem(fetching.post(place, json={"links": [f"{shared}/none.png"]}), 409, "unavailable")


def test_what_is_no_picture_has_no_thumbnail(fetching: httpx.Client, shared: str, ws: Workspace) -> None:
    source = Path(datasets.get(ws, "shapes").spec.source)
    (source / "page.png").write_bytes(b"<html>")
    try:
        asked = {"links": [f"{shared}/page.png", f"{shared}/disc/"]}
        found = fetching.post("/models/shaper/predict?thumbnails=true", json=asked).json()["predictions"]
    finally:
        (source / "page.png").unlink()
    assert [one["thumbnail"] for one in found] == [None, None]
    assert found[0]["error"] == {"kind": "invalid-input", "what": "not a picture"}
    assert "to no picture, but to text/html" in found[1]["error"]["what"]


def test_a_thumbnail_is_small_whatever_the_file_is(fetching: httpx.Client) -> None:
    said = PngInfo()
    said.add_text("comment", "secret" * 20_000)
    held = io.BytesIO()
    Image.new("RGB", (1000, 500), "red").save(held, "PNG", pnginfo=said)
    answer = fetching.post("/models/shaper/predict?thumbnails=true", files={"pictures": ("a.png", held.getvalue())})
    (one,) = answer.raise_for_status().json()["predictions"]
    small = Image.open(io.BytesIO(base64.b64decode(one["thumbnail"])))
    assert (small.format, small.size) == ("JPEG", (256, 128))
    assert "comment" not in small.info


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "links"),
        ({"links": []}, "links"),
        ({"links": "http://a.example/"}, "links"),
        ({"links": [1]}, "links.0"),
        ({"links": ["http://a.example/"] * (links.MAX_LINKS + 1)}, "links"),
        ({"links": ["http://a.example/"], "headers": {}}, "headers"),
    ],
)
def test_another_body_is_refused_at_its_field(fetching: httpx.Client, body: dict[str, Any], field: str) -> None:
    for place in PLACES:
        problem = _problem(fetching.post(place, json=body), 422, "invalid-input")
        assert [one["field"] for one in problem["errors"]] == [field]


def test_a_long_body_is_refused(fetching: httpx.Client) -> None:
    for content in (b"[" * 2_000_000, b"\xff{"):
        headers = {"content-type": "application/json"}
        answer = fetching.post(PLACES[0], content=content, headers=headers)
        assert answer.status_code == (413 if len(content) > 9 else 422)


def test_several_are_fetched_at_once_and_late_ones_fail_alone(
    root: Path, shared: str, ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "PATIENCE_S", 1.5)
    monkeypatch.setattr(pictures, "MAX_BYTES", 1_000_000)
    at_once: list[int] = []
    now = 0

    async def fetch(link: str, write: Write, *, max_bytes: int) -> None:
        assert max_bytes == pictures.MAX_PICTURE_BYTES
        nonlocal now
        now += 1
        at_once.append(now)
        try:
            if "slow" in link:
                await asyncio.sleep(60)
            await asyncio.sleep(0.05)
            if "broken" in link:
                raise Unavailable("It does not answer.")
            if "large" in link:
                for _ in range(6):
                    await write(bytes(100_000))
            elif "cut" in link:
                await write(bytes(900_000))
                raise Unavailable("It broke off.")
            else:
                await fetch_here(link, write, max_bytes=max_bytes)
        finally:
            now -= 1

    good = f"{shared}/disc/000.png"
    with serving_here(root, fetch=fetch) as base, httpx.Client(base_url=f"{base}/api/v1", timeout=60) as client:
        began = time.monotonic()
        asked = ["slow", good, "broken", "large", "large", *[good] * 11]
        found = client.post(PLACES[0], json={"links": asked}).json()["predictions"]
        assert time.monotonic() - began < 30
        assert [one["picture"] for one in found] == asked
        kinds = [one["error"] and one["error"]["kind"] for one in found]
        assert [kinds[0], kinds[1], kinds[2], *kinds[5:]] == ["too-slow", None, "unavailable", *[None] * 11]
        assert sorted(kinds[3:5]) == ["invalid-input", "too-large"]
        assert 1 < max(at_once) <= links.AT_ONCE
        assert now == 0
        # What did not become whole takes no room of what comes after it.
        found = client.post(PLACES[0], json={"links": ["cut"] * 8 + ["large"]}).json()["predictions"]
        kinds = [one["error"]["kind"] for one in found]
        assert kinds[-1] == "invalid-input"  # it is there, though no picture
        assert "unavailable" in kinds


def test_slow_links_hold_up_nobody_whose_picture_is_here(root: Path, ws: Workspace) -> None:
    """As many as the pool that looks into networks has places."""
    asked, going_on = threading.Semaphore(0), threading.Event()

    async def fetch(link: str, write: Write, *, max_bytes: int) -> None:
        asked.release()
        while not going_on.is_set():
            await asyncio.sleep(0.02)
        raise Unavailable("It does not answer.")

    data = next(Path(datasets.get(ws, "shapes").spec.source).rglob("*.png")).read_bytes()
    with (
        serving_here(root, fetch=fetch) as base,
        httpx.Client(base_url=f"{base}/api/v1", timeout=60) as client,
        ThreadPoolExecutor(links.LINE_EACH) as slow,
    ):
        answers = [
            slow.submit(client.post, PLACES[2], json={"links": ["http://a.example/"]}) for _ in range(links.LINE_EACH)
        ]
        try:
            for _ in range(links.AT_ONCE_EACH):
                assert asked.acquire(timeout=20)
            sent = client.post(PLACES[2], files={"pictures": ("a.png", data)})
            assert sent.status_code == 200, sent.text
        finally:
            going_on.set()
        assert {answer.result().status_code for answer in answers} == {409}


def test_what_nobody_thought_of_fails_alone(
    root: Path, shared: str, caplog: pytest.LogCaptureFixture, ws: Workspace
) -> None:
    async def fetch(link: str, write: Write, *, max_bytes: int) -> None:
        if "odd" in link:
            raise KeyError("an odd answer")
        await fetch_here(link, write, max_bytes=max_bytes)

    asked = {"links": ["odd?token=secret", f"{shared}/disc/000.png"]}
    with serving_here(root, fetch=fetch) as base, httpx.Client(base_url=f"{base}/api/v1", timeout=60) as client:
        odd, good = client.post(PLACES[0], json=asked).raise_for_status().json()["predictions"]
        problem = _problem(client.post(PLACES[2], json={"links": asked["links"][:1]}), 409, "unavailable")
    assert odd["error"]["kind"] == "unavailable"
    assert odd["error"]["what"].startswith("The picture could not be fetched.")
    assert problem["detail"] == "The picture could not be fetched."
    assert good["error"] is None
    assert caplog.text.count("KeyError: 'an odd answer'") == 2
    assert "Traceback" in caplog.text
    assert "secret" not in caplog.text


def test_links_are_for_those_who_may_predict(root: Path, ws: Workspace, shared: str) -> None:
    """The last: from here on the workspace has accounts."""
    password = "correct horse battery"
    for name, role in (("ada", "admin"), ("mia", "member"), ("vic", "viewer")):
        accounts.create(ws, name, password, role=role)  # type: ignore[arg-type]
    with serving_here(root, fetch=fetch_here) as base, httpx.Client(base_url=f"{base}/api/v1", timeout=60) as client:
        asked = {"links": [f"{shared}/disc/000.png"]}
        for place in PLACES:
            assert client.post(place, json=asked).status_code == 401
            for name, status in (("vic", 403), ("mia", 200)):
                secret, _ = accounts.create_token(ws, name, place)
                answer = client.post(place, json=asked, headers={"Authorization": f"Bearer {secret}"})
                assert answer.status_code == status, (name, place, answer.text)
        pages = {}
        for name in ("vic", "mia"):
            secret, _ = accounts.create_token(ws, name, "page")
            headers = {"Authorization": f"Bearer {secret}"}
            pages[name] = httpx.get(f"{base}/models/shaper/try", headers=headers, follow_redirects=True)
        assert all("by-link" in page.text for page in pages.values())
