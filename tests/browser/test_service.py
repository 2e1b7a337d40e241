"""The page of a service in a real browser: a picture in, its classes out; and what it says when that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support import Cli, Service

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
pytestmark = pytest.mark.slow
FAILED = "Failed to load resource"
KEY = "a key that is long enough"
TITLE = "<img src=x onerror=alert(1)> & shapes"


@pytest.mark.parametrize("width", [390, 1280])
def test_pictures_are_dropped_pasted_and_chosen(
    full: Path, tmp_path: Path, new_page: Callable[..., Any], start: Callable[..., Service], width: int
) -> None:
    hostile = tmp_path / "<b>ring<svg onload=alert(1)>.png"
    ring, bad = full.parent / "pictures" / "ring" / "003.png", tmp_path / "bad.png"
    hostile.write_bytes(ring.read_bytes())
    bad.write_bytes(b"no picture")
    keeps = ("--capture-below", 1, "--capture-to", tmp_path / "kept") if width == 390 else ()
    service = start(full, "shaper", "--title", TITLE, *keeps)
    (said,) = Cli(full)("predict", "shaper", ring, "--json").json
    page = new_page(service, width=width, scheme="dark")
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text(TITLE)
    expect(page.locator("#about")).to_contain_text("3 classes, lenet.")
    page.set_input_files("#files", [hostile, bad])
    expect(page.locator("#answers > li")).to_have_count(2)
    best = page.locator("#answers .bars li").first
    expect(best.locator("bdi")).to_have_text(said["scores"][0]["label"])
    expect(best.locator("span")).to_have_text(f"{100 * said['scores'][0]['probability']:.1f} %")
    expect(page.locator("#answers .bad")).to_contain_text("not a picture")
    page.evaluate(
        """bytes => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
          dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
        }""",
        list(ring.read_bytes()),
    )
    expect(page.get_by_text("Some of the pictures are kept")).to_be_visible(visible=bool(keeps))
    expect(page.locator("#answers > li")).to_have_count(3)
    expect(page.locator("#answers .bars")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(page.locator("#by-link")).to_be_hidden()
    assert service.stop() == 0
    kept = {path.read_bytes() for path in tmp_path.glob("kept/*/pictures/*/*")}
    assert kept == ({ring.read_bytes()} if keeps else set())


def test_a_key_is_asked_for_and_links_are_offered_where_they_are_fetched(
    full: Path, tmp_path: Path, new_page: Callable[..., Any], start: Callable[..., Service]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    service = start(full, "shaper", "other=shaper", "--keys", keys, "--allow-links")
    page = new_page(service, expects=(FAILED,))
    page.goto("/")
    page.get_by_label("This service asks for a key").fill("not this one")
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#key-wrong")).to_have_text("This key is not known here.")
    page.get_by_label("This service asks for a key").fill(KEY)
    page.get_by_role("button", name="Go on").press("Enter")
    expect(page.get_by_label("Model")).to_be_visible()
    page.get_by_label("Model").select_option("other")
    page.get_by_label("Link to a picture").fill("http://127.0.0.1/ring.png")
    page.get_by_role("button", name="Look").click()
    expect(page.locator("#answers .bad")).to_contain_text("no address on the public internet")
    page.set_input_files("#files", full.parent / "pictures" / "disc" / "003.png")
    expect(page.locator("#answers .bars li").first.locator("bdi")).to_be_visible()
    assert service.stop() == 0
