"""Services in a real browser: started from a model, watched, gone over to another version, stopped, deleted."""

from __future__ import annotations

import re
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.browser.conftest import loaded
from tests.support import Server

import vizsla
from vizsla.api import jobs, models, services
from vizsla.serving.hosting import HostingSpec

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
pytestmark = pytest.mark.slow
LONG_MS = 60_000
FAILED = "Failed to load resource"


@pytest.fixture
def answering(full: Path) -> Iterator[None]:
    """Nothing answers any more afterwards."""
    yield
    with vizsla.open(full) as ws:
        for job in jobs.live(ws):
            jobs.stop(ws, job.id)
        deadline = time.monotonic() + LONG_MS / 1000
        while jobs.list_all(ws, limit=0):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _state(page: Any, name: str) -> None:
    expect(page.locator("[data-state]")).to_have_text(name, timeout=LONG_MS)


def _figure(page: Any, title: str) -> Any:
    return page.locator("#figures .card").filter(has=page.get_by_role("heading", name=title, exact=True)).locator("b")


def _ask(page: Any, picture: Path, times: int = 1) -> None:
    address = page.get_by_role("link", name="Its page").get_attribute("href")
    for _ in range(times):
        files_ = {"pictures": (picture.name, picture.read_bytes())}
        assert httpx.post(f"{address}predict", files=files_).status_code == 200


def test_a_service_from_its_start_to_its_end(
    full: Path, server: Server, answering: None, new_page: Callable[..., Any]
) -> None:
    ring = full.parent / "pictures" / "ring" / "003.png"
    page = new_page(server, expects=(FAILED,))
    page.goto("/services")
    expect(page.get_by_text("Nothing answers yet")).to_be_visible()
    page.goto("/models/shaper")
    with loaded(page):
        page.get_by_role("link", name="Let it answer as a service").click()
    assert page.locator("#models option:checked").inner_text() == "shaper"
    page.get_by_label("Title of its page").fill("Which shape is this?")
    page.get_by_text("More settings").click()
    page.get_by_label("Computed on").fill("cuda:7")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator("#device-problem")).to_contain_text("There is no GPU 7")
    page.get_by_label("Computed on").fill("cpu")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url(re.compile("/services/[0-9a-z]+$"))
    _state(page, "running")
    page.evaluate("window.same = true")
    _ask(page, ring, 5)
    expect(_figure(page, "Requests")).to_have_text("5", timeout=LONG_MS)
    expect(_figure(page, "Time of an answer")).to_contain_text("ms")
    assert page.evaluate("window.same"), "the figures came by themselves"

    page.goto("/")
    expect(page.get_by_role("link", name="shaper").first).to_be_visible()
    expect(page.locator("#work")).to_contain_text("answers at http://127.0.0.1:")
    page.goto("/services")
    expect(page.get_by_role("table", name="Services")).to_contain_text("running")
    page.get_by_role("table", name="Services").get_by_role("link", name="shaper").click()

    with loaded(page):
        page.get_by_role("button", name="Stop").click()
        page.locator("#ask-yes").click()
    _state(page, "stopped")
    expect(page.get_by_role("link", name="Its page")).to_have_count(0)
    with loaded(page):
        page.get_by_role("button", name="Start again").click()
    _state(page, "running")
    page.goto("/models/shaper")
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("#in-use")).to_contain_text("shaper")
    page.go_back()
    with loaded(page):
        page.get_by_role("button", name="Stop").click()
        page.locator("#ask-yes").click()
    _state(page, "stopped")
    page.get_by_role("button", name="Delete").click()
    with loaded(page):
        page.locator("#ask-yes").click()
    expect(page.get_by_text("Nothing answers yet")).to_be_visible()


def test_another_version_is_tried_on_some_requests_and_then_answers_all(
    full: Path, server: Server, answering: None, new_page: Callable[..., Any]
) -> None:
    with vizsla.open(full) as ws:
        models.export(ws, "second", name="newer")
        one = services.start(ws, HostingSpec(models=("shaper",)))
    page = new_page(server)
    page.goto(f"/services/{one.id}")
    assert page.get_by_label("Model", exact=True).locator("option").all_inner_texts() == ["newer"], (
        "what answers all is not"
    )
    page.get_by_label("Model", exact=True).select_option(label="newer")
    for wrong in ("150", "", "-3"):
        page.get_by_label("Share of the requests").fill(wrong)
        page.get_by_role("button", name="Go over").click()
        expect(page.locator("#part-problem")).to_have_text("A number from 1 to 100")
    page.get_by_label("Share of the requests").fill("50")
    with loaded(page):
        page.get_by_role("button", name="Go over").click()
    versions = page.get_by_role("table", name="What it serves").locator("tbody tr")
    expect(versions).to_have_count(2)
    assert [row.split()[:3] for row in versions.all_inner_texts()] == [
        ["shaper", "shaper", "50"],
        ["shaper", "newer", "50"],
    ]
    with loaded(page):
        versions.nth(1).get_by_role("button", name="Only this one").click()
        page.locator("#ask-yes").click()
    expect(versions).to_have_count(1)
    expect(versions.first).to_contain_text("newer")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_one_that_cannot_begin_says_why(
    full: Path, server: Server, answering: None, new_page: Callable[..., Any]
) -> None:
    with vizsla.open(full) as ws:
        models.pack(ws, "shaper", full.parent / "packed.zip")
        card = models.bring(ws, full.parent / "packed.zip", name="damaged")
        (ws.folder("model", card.id) / "model.onnx").write_bytes(b"no graph")
    page = new_page(server)
    page.goto("/services/new?model=damaged")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url(re.compile("/services/[0-9a-z]+$"))
    _state(page, "failed")
    expect(page.get_by_role("alert")).to_contain_text("model.onnx")
    expect(page.get_by_role("button", name="Start again")).to_be_visible()


def test_what_is_kept_for_labelling_is_counted_and_downloaded(
    full: Path, server: Server, answering: None, new_page: Callable[..., Any], tmp_path: Path
) -> None:
    page = new_page(server, expects=(FAILED,))
    page.goto("/services/new?model=shaper")
    page.get_by_label("Name", exact=True).fill("keen")
    page.get_by_text("More settings").click()
    page.get_by_label("Keep pictures for labelling below").fill("1.5")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator("#below-problem")).to_contain_text("less than or equal to 1")
    page.get_by_label("Keep pictures for labelling below").fill("1")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url(re.compile("/services/[0-9a-z]+$"))
    _state(page, "running")
    kept = page.locator("#captured")
    expect(kept).to_contain_text("a probability below 1, for 30 days, and up to 1000 MB")
    expect(kept).to_contain_text("None so far.")
    sent = sorted((full.parent / "pictures").rglob("*.png"))[::9]
    for picture in sent:
        _ask(page, picture)
    with vizsla.open(full) as ws:
        deadline = time.monotonic() + 30
        while services.captured(ws, "keen").num_pictures < len(sent):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    page.reload()
    expect(kept).to_contain_text(f"{len(sent)} pictures")
    rows = page.get_by_role("table", name="Kept pictures by class").locator("tbody tr")
    assert sum(int(row.split()[-1]) for row in rows.all_inner_texts()) == len(sent)
    with page.expect_download() as begun:
        page.get_by_role("link", name="Download those of shaper").click()
    packed = tmp_path / "captured.zip"
    begun.value.save_as(packed)
    with zipfile.ZipFile(packed) as archive:
        assert len(archive.namelist()) == len(sent)
