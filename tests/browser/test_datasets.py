"""The pages of datasets: from a folder that is brought into the browser to the page of what was built from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from tests.browser.conftest import loaded
from tests.browser.test_frame import FAILED
from tests.support import Server

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)> &amp; \"'"


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Drawn digits of three classes, one of which has the name of an attack; and files that are no pictures."""
    for label, text in (("0", "0"), ("1", "1"), (HOSTILE, "7")):
        (tmp_path / "digits" / label).mkdir(parents=True)
        for number in range(10):
            image = Image.new("L", (20, 28))
            ImageDraw.Draw(image).text((2 + number % 5, 2 + number // 2), text, fill=255, font_size=20)
            image.save(tmp_path / "digits" / label / f"{number}.png")
    (tmp_path / "digits" / "0" / "notes <b>.txt").write_text("no picture")
    (tmp_path / "digits" / ".DS_Store").write_text("clutter")
    return tmp_path / "digits"


@pytest.fixture
def made(server: Server) -> Iterator[list[str]]:
    """Ids of datasets that are deleted afterwards."""
    ids: list[str] = []
    yield ids
    for id in ids:
        server.client.delete(f"/datasets/{id}").raise_for_status()


def test_a_folder_becomes_a_dataset(
    server: Server, new_page: Callable[..., Any], digits: Path, made: list[str]
) -> None:
    """By keyboard alone, but for the dialogs of the browser; and over a line that is cut."""
    page = new_page(server, expects=(FAILED,))
    cut = []

    def cut_twice(route: Any) -> None:
        cut.append(route.request.url)
        route.abort() if len(cut) in (3, 4) else route.continue_()

    page.route("**/pictures/**", lambda route: cut_twice(route) if route.request.method == "PUT" else route.continue_())
    page.goto("/datasets")
    with loaded(page):
        page.get_by_role("link", name="New dataset").press("Enter")
    with page.expect_file_chooser() as choosing:
        page.get_by_role("button", name="Choose a folder").press("Enter")
    choosing.value.set_files(digits)
    page.get_by_role("heading", name="30 pictures in 3 classes").wait_for()
    assert len(cut) == 33, "two came again; what is hidden was not sent"
    page.get_by_text("Rejected: 1 file").press("Enter")
    page.get_by_role("cell", name="notes <b>.txt").wait_for()
    for one in page.locator("[data-fit]").all():
        expect(one).to_have_js_property("naturalWidth", 224)
    page.get_by_role("button", name="28", exact=True).press("Enter")
    for one in page.locator("[data-fit]").all():
        expect(one).to_have_js_property("naturalWidth", 28)
    page.get_by_role("radio", name="fill").press(" ")
    row = page.locator("#plan tbody tr", has_text="All")
    expect(row.locator("td").last).to_have_text("6")
    page.get_by_label("Test %").fill("40")
    page.get_by_text("40 for the test at the end").wait_for()
    page.get_by_label("Test %").press("Tab")
    expect(row.locator("td").last).to_have_text("12")
    assert page.get_by_label("Name", exact=True).input_value() == "digits"
    page.get_by_label("Name", exact=True).fill(f"{HOSTILE} 1")
    page.get_by_label("Name", exact=True).press("Enter")
    page.wait_for_url(re.compile("/datasets/[0-9a-z]{10}$"))
    page.locator("#gallery").wait_for(timeout=60_000)
    made.append(page.url.rpartition("/")[2])

    facts = server.client.get(f"/datasets/{made[0]}").json()
    assert (facts["used"], facts["rejected"], facts["name"]) == (30, 1, f"{HOSTILE} 1")
    assert (facts["spec"]["resize"], facts["spec"]["width"], facts["preprocess"]["channels"]) == ("fill", 28, 1)
    assert page.locator("h1 bdi").inner_text() == f"{HOSTILE} 1"
    assert page.locator("#classes tr").count() == 3
    assert page.locator("#classes").get_by_text(HOSTILE, exact=True).is_visible()
    expect(page.locator(".mean img")).to_have_js_property("naturalWidth", 28)
    page.locator("#classes").get_by_role("link", name=HOSTILE, exact=True).press("Enter")
    expect(page.locator(".shot")).to_have_count(10)
    page.reload()
    assert page.locator(".shot").count() == 10, "the address says which class is shown"
    expect(page.locator(".shot img").first).to_have_js_property("naturalWidth", 28)
    assert page.locator("#rejected").get_by_text("not a picture").first.is_visible()
    assert page.get_by_role("link", name="New run").get_attribute("href") == f"/runs/new?dataset={made[0]}"
    _write_about(page)


def _write_about(page: Any) -> None:
    """Notes and another name, one of which is taken, by keyboard."""
    page.get_by_label("Notes").fill("<script>alert(1)</script>")
    page.get_by_role("button", name="Save the notes").press("Enter")
    page.get_by_text("Saved.").wait_for()
    page.get_by_role("button", name="Rename").first.press("Enter")
    page.locator("#rename").get_by_label("Name", exact=True).fill("shapes")
    page.locator("#rename").get_by_label("Name", exact=True).press("Enter")
    page.locator(".problem").wait_for()
    page.locator("#rename").get_by_label("Name", exact=True).fill("renamed")
    page.locator("#rename").get_by_label("Name", exact=True).press("Enter")
    page.get_by_role("heading", name="renamed", exact=True).wait_for()
    assert page.get_by_label("Notes").input_value().strip() == "<script>alert(1)</script>"


def test_a_folder_of_the_server_and_errors_at_fields(server: Server, full: Path, new_page: Callable[..., Any]) -> None:
    page = new_page(server, expects=(FAILED,))
    page.goto("/datasets/new")
    page.get_by_role("button", name="Build the dataset").click()
    page.get_by_text("There are no pictures yet.").wait_for()
    page.get_by_role("radio", name="On the server").press(" ")
    source = page.get_by_label("Folder, archive or text list")
    source.fill("/etc/")
    source.press("Tab")
    page.locator(".field:has(#source) .problem").get_by_text("The server may not read").wait_for()
    pictures = str(full.parent / "pictures")
    source.fill(f"{pictures}/")
    page.locator("#folders option").nth(2).wait_for(state="attached")
    assert page.locator("#folders option").evaluate_all("(all) => all.map((one) => one.value)") == [
        f"{pictures}/{label}" for label in ("disc", "ring", "square")
    ]
    source.fill(pictures)
    source.press("Tab")
    page.get_by_role("heading", name="120 pictures in 3 classes").wait_for()
    page.get_by_text("Every file was opened.").wait_for()
    page.get_by_text("More settings").press("Enter")
    for field, value, wrong in (
        ("Name", "", "cannot be a name"),
        ("Name", "shapes", "shapes"),
        ("Width px", "0", "greater than or equal to 1"),
        ("Validation %", "100", "less than 100"),
        ("Seed", "-1", "greater than or equal to 0"),
    ):
        before = page.get_by_label(field, exact=True).input_value()
        page.get_by_label(field, exact=True).fill(value)
        page.get_by_role("button", name="Build the dataset").click()
        page.locator(f".field:has(label:text('{field.split(' ')[0]}')) .problem").get_by_text(wrong).first.wait_for()
        assert page.get_by_label(field, exact=True).get_attribute("aria-invalid") == "true"
        page.get_by_label(field, exact=True).fill("other" if field == "Name" else before)
    assert server.client.get("/datasets", params={"name": "other"}).json()["items"] == []
    page.goto("/datasets/new")
    _drop(page, full.parent / "pictures")
    page.get_by_role("heading", name="120 pictures in 3 classes").wait_for()


def _drop(page: Any, folder: Path) -> None:
    """Drag a folder from the desktop onto the page."""
    browser = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 250, "data": data})


def test_another_one_like_it_is_the_same(server: Server, new_page: Callable[..., Any]) -> None:
    page = new_page(server)
    page.goto("/datasets/shapes")
    with loaded(page):
        page.get_by_role("link", name="Build another like it").click()
    page.get_by_label("Name", exact=True).fill("shapes anew")
    page.get_by_role("button", name="Build the dataset").click()
    page.locator("#gallery").wait_for(timeout=60_000)
    first, again = (server.client.get(f"/datasets/{name}").json() for name in ("shapes", "shapes anew"))
    assert again["fingerprint"] == first["fingerprint"]
    assert again["spec"] == first["spec"]
    assert again["id"] != first["id"]


def test_what_could_not_be_built_says_why(
    server: Server, full: Path, new_page: Callable[..., Any], tmp_path: Path
) -> None:
    lonely = full.parent / "pictures" / "disc"  # with pictures, and no classes
    page = new_page(server, expects=(FAILED,))
    page.goto("/datasets/new")
    page.get_by_role("radio", name="On the server").press(" ")
    page.get_by_label("Folder, archive or text list").fill(str(lonely))
    page.get_by_label("Folder, archive or text list").press("Tab")
    page.locator(".problem").get_by_text("There are no class folders.").wait_for()
    page.get_by_label("Name", exact=True).fill("lonely")
    page.get_by_role("button", name="Build the dataset").click()
    page.get_by_role("heading", name="could not be built").wait_for(timeout=60_000)
    page.get_by_text("There are no class folders.").wait_for()
    page.get_by_role("link", name="New dataset with the same settings").click()
    assert page.get_by_label("Name", exact=True).input_value() == "lonely"
    assert page.get_by_label("Folder, archive or text list").input_value() == str(lonely)


def test_one_class_is_told_where_the_pictures_were_brought(
    serve: Callable[..., Server], tmp_path: Path, new_page: Callable[..., Any]
) -> None:
    (tmp_path / "pictures" / "ring").mkdir(parents=True)
    for number in range(4):
        Image.new("L", (20, 28), number).save(tmp_path / "pictures" / "ring" / f"{number}.png")
    page = new_page(serve(tmp_path / "workspace"), expects=(FAILED,))
    page.goto("/datasets/new")
    assert page.get_by_role("radio", name="On the server").count() == 0, "it reads no folders"
    _drop(page, tmp_path / "pictures")
    told = page.locator(".card:has(#drop) > .said")
    told.get_by_text("There is one class only, 'ring'").wait_for()
    # Found out by opening the files, with all the rest of what there is.
    (tmp_path / "pictures" / "square").mkdir()
    (tmp_path / "pictures" / "square" / "0.png").write_text("no picture")
    _drop(page, tmp_path / "pictures")
    told.get_by_text("square").wait_for()
    page.locator("#plan .warning").get_by_text("square").wait_for()


@pytest.mark.parametrize("width", [1280, 390])
def test_lists_and_galleries(server: Server, new_page: Callable[..., Any], width: int) -> None:
    page = new_page(server, width=width, expects=(FAILED,))
    for path in (
        "/datasets",
        "/datasets/new",
        "/datasets/shapes",
        "/datasets?name=nowhere",
        "/datasets?name=&sort=name",
    ):
        assert page.goto(path).status == 200, path
        assert page.locator("h1").count() == 1, path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.get_by_role("link", name="shapes", exact=True).click()
    page.get_by_role("link", name="first", exact=True).wait_for()
    shown = page.locator(".shot img").first.get_attribute("src")
    page.get_by_role("link", name="Next", exact=True).click()
    page.wait_for_url("**after=*")
    expect(page.locator(".shot img").first).not_to_have_attribute("src", shown)
    page.go_back()
    expect(page.locator(".shot img").first).to_have_attribute("src", shown)
    page.locator("#gallery").get_by_label("Class").select_option("ring")
    page.locator("#gallery").get_by_label("Split").select_option("test")
    expect(page.locator(".shot")).to_have_count(8)
    page.get_by_role("button", name="Delete").click()
    in_use = page.get_by_role("dialog", name="It is in use")
    in_use.get_by_role("link", name="first").wait_for()
    in_use.get_by_role("button", name="Close").click()
    answer = server.client.delete("/datasets/shapes")
    assert (answer.status_code, "It is in use by" in answer.text) == (409, True)
