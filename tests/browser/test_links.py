"""Pictures by links in a real browser: the server fetches them, and the browser asks nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support import fetch_here, serving_here, sharing

pytestmark = pytest.mark.slow

DROP = """lines => {
  const held = new DataTransfer();
  held.setData("text/uri-list", lines);
  document.getElementById("drop").dispatchEvent(
    new DragEvent("drop", {dataTransfer: held, bubbles: true, cancelable: true}));
}"""
PASTE = """([text, into]) => {
  const held = new DataTransfer();
  held.setData("text/plain", text);
  document.querySelector(into).dispatchEvent(
    new ClipboardEvent("paste", {clipboardData: held, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def server(full: Path) -> Iterator[Any]:
    """A server that fetches pictures from this machine."""
    with serving_here(full, fetch=fetch_here) as base:
        yield SimpleNamespace(url=f"{base}/api/v1")


@pytest.fixture(scope="module")
def shared(full: Path) -> Iterator[str]:
    with sharing(full.parent / "pictures") as address:
        yield address


def looked_at(page: Any, num: int, *, failed: int = 0) -> Any:
    """The newest answer, when there are so many."""
    end = f", {failed} could not be." if failed else "."
    page.get_by_text(f"{num} picture{'' if num == 1 else 's'} looked at{end}").wait_for()
    return page.locator(".answer").first


def test_a_link_is_seen_as_the_file_is(server: Any, shared: str, full: Path, new_page: Callable[..., Any]) -> None:
    page = new_page(server)
    page.goto("/runs/first/try")
    page.wait_for_url("**/models/**/try")
    page.set_input_files("#pictures", full.parent / "pictures" / "ring" / "003.png")
    wanted = looked_at(page, 1).locator(".bars").inner_text()
    link = f"{shared}/ring/003.png"
    page.get_by_label("Link to a picture").fill(link)
    page.get_by_role("button", name="Look", exact=True).click()
    card = looked_at(page, 2)
    assert card.locator("[data-file]").inner_text() == link
    assert card.locator(".bars").inner_text() == wanted
    image = card.locator("img")
    assert image.get_attribute("src").startswith("data:image/jpeg;base64,")
    assert image.evaluate("one => [one.complete, one.naturalWidth, one.naturalHeight]") == [True, 32, 32]
    assert page.get_by_label("Link to a picture").input_value() == ""
    card.get_by_role("button", name="What mattered").click()
    card.get_by_text("Grad-CAM at").wait_for(timeout=60_000)
    assert image.get_attribute("src").startswith("data:image/png;base64,")


def test_links_are_dropped_and_pasted(server: Any, shared: str, new_page: Callable[..., Any]) -> None:
    page = new_page(server)
    page.goto("/models/shaper/try")
    page.wait_for_url("**/try")
    page.evaluate(DROP, f"# from a page\r\n{shared}/disc/001.png\r\n{shared}/none.png\r\n")
    looked_at(page, 1, failed=1)
    found = {card.locator("[data-file]").inner_text(): card for card in page.locator(".answer").all()}
    assert list(found) == [f"{shared}/none.png", f"{shared}/disc/001.png"]
    missing = found[f"{shared}/none.png"]
    assert missing.locator("[data-problem]").inner_text().startswith("The host of the link answers 404.")
    assert missing.locator("img").count() == 0
    assert not missing.get_by_role("button", name="What mattered").is_visible()
    page.evaluate(PASTE, [f" {shared}/disc/002.png\n", "body"])
    looked_at(page, 2, failed=1)
    for text, into in (("a word and http://a.example/", "body"), ("javascript:alert(1)", "body"), (shared, "#link")):
        page.evaluate(PASTE, [text, into])
    page.get_by_label("Link to a picture").fill("no link")
    page.get_by_role("button", name="Look", exact=True).click()
    page.get_by_label("Link to a picture").fill(f"{shared}/square/001.png")
    page.get_by_label("Link to a picture").press("Enter")
    looked_at(page, 3, failed=1)
    assert page.locator("#summary tbody tr").count() == 4
