"""Runs in the browser: begun from the form, watched to the end, stopped, resumed, cloned, compared."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.browser.conftest import loaded
from tests.support import TINY, Server, draw_shapes, kill_process

import vizsla
from vizsla import files
from vizsla.api import datasets, runs

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
pytestmark = pytest.mark.slow

FAILED = "Failed to load resource"
HOSTILE = "<img src=x onerror=alert(1)> “'&amp; שלום {{ 7*7 }} " + "w" * 45
LONG_MS = 120_000
DRAWN = "document.querySelector('[data-plot=loss] canvas')?.toDataURL()"


def fill(page: Any, **settings: object) -> None:
    """Fill in the form for a new run; `lenet` is chosen."""
    page.get_by_role("radio", name=re.compile("^lenet")).check()
    for name, value in settings.items():
        field = page.locator(f"#f-spec-{name}")
        page.evaluate("all => all.forEach(one => { one.open = true })", page.locator("details").element_handles())
        field.select_option(str(value)) if name == "tune" else field.fill(str(value))


def begin(page: Any) -> None:
    page.get_by_role("button", name="Begin the training").click()


def state(page: Any, name: str) -> None:
    """Wait until the run of the page is in a state."""
    page.locator("h1 .state", has_text=re.compile(f"^{name}$")).wait_for(timeout=LONG_MS)


def last_of(page: Any, plot: str) -> str:
    """The last value of the first curve, once there is one."""
    row = page.locator(f"[data-plot={plot}] table.plain tbody tr").first
    row.wait_for(timeout=LONG_MS)
    return str(row.locator("td").first.inner_text())


def drawn(page: Any, other_than: str = "") -> str:
    """The first chart as it is drawn, once it is drawn otherwise."""
    page.wait_for_function(f"was => ![was, undefined].includes({DRAWN})", arg=other_than)
    return str(page.evaluate(DRAWN))


def test_a_training_is_begun_in_the_browser_and_watched_to_its_end(
    server: Server, new_page: Callable[..., Any]
) -> None:
    page = new_page(server, expects=(FAILED,))
    page.goto("/runs/new?dataset=shapes")
    fill(page, epochs=0, mixup=99)
    page.get_by_label("Retries").fill("-1")
    begin(page)
    epochs = page.locator("#f-spec-epochs")
    page.locator("#f-spec-epochs-problem").wait_for()
    assert page.locator(".problem").count() == 3
    assert epochs.get_attribute("aria-invalid") == "true"
    assert epochs.evaluate("one => one === document.activeElement")
    assert "greater" in page.locator("#f-spec-epochs-problem").inner_text()
    page.get_by_label("Retries").fill("")
    # What settings say of each other is told at one of them, too.
    fill(page, epochs=30, mixup=0, tune="scratch", freeze_epochs=2)
    begin(page)
    page.locator("#f-spec-freeze_epochs-problem").wait_for()
    fill(page, freeze_epochs="", batch_size=32)
    page.get_by_role("button", name="Preview").click()
    page.locator("#preview [data-facts]").or_(page.locator(".problem, .said")).first.wait_for(timeout=LONG_MS)
    assert page.locator(".problem, .said").all_inner_texts() == []
    assert "30 epochs of" in page.locator("#preview [data-facts]").inner_text()
    assert page.locator("[data-augmented]").evaluate("one => one.naturalWidth") > 100
    page.locator("#f-name").fill("watched")
    begin(page)
    page.wait_for_url(re.compile("/runs/(?!new)"))
    last_of(page, "loss")
    page.evaluate("window.same = true")
    state(page, "done")
    assert page.evaluate("window.same"), "the page was loaded anew while the training went on"
    page.locator("#happened", has_text="Done.").wait_for()
    page.locator("#figures", has_text="30 of 30 epochs").wait_for()
    page.get_by_text("Best on validation").wait_for()
    assert re.search(r"to .* % .*on \d+ pictures", page.locator("#figures").inner_text().replace("\n", " "))
    assert page.locator("[data-plot=accuracy] table.plain tbody tr").count() == 3
    with page.expect_navigation(url=re.compile("/(evaluations|models)/")):
        page.get_by_role("button", name="Export as model").first.click()


def test_a_run_is_made_longer_and_its_curves_are_looked_at_closely(
    server: Server, full: Path, new_page: Callable[..., Any], tmp_path: Path
) -> None:
    page = new_page(server)
    page.goto("/runs/second")
    page.get_by_role("button", name="Extend").click()
    page.get_by_label("Epochs more").fill("5")
    with loaded(page):
        page.locator("#extending").get_by_role("button", name="Extend").click()
    page.locator("#figures", has_text="6 of 6 epochs").wait_for(timeout=LONG_MS)
    state(page, "done")
    page.reload()
    last_of(page, "loss")
    first = drawn(page)
    whole = page.locator("[data-plot=loss]").get_by_role("button", name="The whole")
    expect(whole).to_be_hidden()
    area = page.locator("[data-plot=loss] .u-over").bounding_box()
    page.mouse.move(area["x"] + area["width"] / 2, area["y"] + 60)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.9, area["y"] + 60, steps=5)
    page.mouse.up()
    expect(whole).to_be_visible()
    closer = drawn(page, other_than=first)
    whole.click()
    expect(whole).to_be_hidden()
    assert drawn(page, other_than=closer) == first
    page.get_by_label("Logarithmic").check()
    by_steps = drawn(page, other_than=first)
    page.get_by_label("Smoothing").fill("0")
    bare = drawn(page, other_than=by_steps)
    page.get_by_label("Along").select_option("steps")
    drawn(page, other_than=bare)
    with page.expect_download() as downloaded:
        page.get_by_role("link", name=re.compile("^Download the weights of step")).first.click()
    downloaded.value.save_as(tmp_path / "weights")
    with vizsla.open(full) as ws:
        assert (tmp_path / "weights").read_bytes() == runs.weights(ws, "second", "last").read_bytes()


def test_the_page_of_a_job_follows_it_to_its_end(server: Server, new_page: Callable[..., Any]) -> None:
    asked = {"dataset": "shapes", "name": "followed", "spec": TINY.model_dump(mode="json") | {"epochs": 20}}
    job = server.client.post("/runs", json=asked).json()
    page = new_page(server)
    page.goto(f"/jobs/{job['id']}")
    page.locator("#work [data-job]").wait_for()
    page.locator("#work [data-words]", has_text="epoch").wait_for(timeout=LONG_MS)
    state(page, "done")
    expect(page.locator("#work")).to_have_count(0)
    expect(page.locator("#about")).to_contain_text("running")
    expect(page.locator("#about .state").last).to_have_text("done")


def test_without_a_gpu_the_last_layer_is_proposed(server: Server, new_page: Callable[..., Any]) -> None:
    if any(one["device"]["name"] != "cpu" for one in server.client.get("/devices").json()):
        pytest.skip("this machine has a GPU")
    page = new_page(server)
    page.goto("/runs/new")
    tune, said = page.locator("#f-spec-tune"), page.get_by_text("the last layer only is proposed")
    said.wait_for(timeout=LONG_MS)
    expect(tune).to_have_value("head")
    page.get_by_role("radio", name=re.compile("^lenet")).check()
    expect(tune).to_have_value("", timeout=LONG_MS)
    expect(said).to_be_hidden()
    page.get_by_role("radio", name=re.compile("^tf_efficientnet_lite0")).check()
    expect(tune).to_have_value("head", timeout=LONG_MS)
    page.locator("#f-spec-preset").select_option("digits")
    expect(tune).to_have_value("")
    page.locator("#f-spec-preset").select_option("modern")
    expect(tune).to_have_value("head")
    page.evaluate("all => all.forEach(one => { one.open = true })", page.locator("details").element_handles())
    page.locator("#f-spec-mixup").fill("0.2")  # what cannot be with it takes the proposal back
    page.locator("#f-spec-mixup").press("Tab")
    expect(tune).to_have_value("")
    page.locator("#f-spec-mixup").fill("")
    page.locator("#f-spec-mixup").press("Tab")
    expect(tune).to_have_value("head")
    tune.select_option("full")
    page.locator("#f-spec-preset").select_option("digits")
    page.locator("#f-spec-preset").select_option("modern")
    expect(tune).to_have_value("full")
    page.get_by_label("Search all networks").fill("resnet18")
    page.get_by_role("radio", name=re.compile("^resnet18 resnet, weights not here")).check()
    page.get_by_text("pretrained weights are not on the server's disk").wait_for(timeout=LONG_MS)


def test_one_that_never_began_is_listed_and_tried_again(server: Server, new_page: Callable[..., Any]) -> None:
    page = new_page(server, expects=(FAILED,))
    page.goto("/runs/new")
    fill(page, epochs=2, learning_rate=0.02, tune="head")
    page.locator("#f-name").fill("first")
    begin(page)  # the name is taken: told at its field
    page.locator(".field:has(#f-name) .problem").get_by_text("There is a run named 'first' already").wait_for()
    page.locator("#f-name").fill(f"{HOSTILE[:60]}, refused")
    page.get_by_role("radio", name="the processor").check()
    begin(page)
    again = page.get_by_role("link", name="Change the settings, and try again")
    again.wait_for(timeout=LONG_MS)
    page.goto("/runs?state=failed")
    notice = page.locator(".warning", has_text="never began").first
    assert HOSTILE[:60] in notice.inner_text()
    with loaded(page):
        notice.get_by_role("link", name="Change the settings, and try again").click()
    assert page.get_by_role("radio", name=re.compile("^lenet")).is_checked()
    found = {name: page.locator(f"#f-spec-{name}").input_value() for name in ("epochs", "learning_rate", "tune")}
    assert found == {"epochs": "2", "learning_rate": "0.02", "tune": "head"}
    assert page.locator("#f-name").input_value() == f"{HOSTILE[:60]}, refused"
    assert page.get_by_role("radio", name="the processor").is_checked()
    page.locator("#f-spec-tune").select_option("scratch")
    page.locator("#f-spec-epochs").fill("1")
    begin(page)
    state(page, "done")


def test_a_run_is_stopped_resumed_and_compared(server: Server, full: Path, new_page: Callable[..., Any]) -> None:
    page = new_page(server, expects=(FAILED,))
    page.goto("/runs/new?clone=first")
    assert page.get_by_role("radio", name=re.compile("^lenet")).is_checked()
    assert page.locator("#f-spec-epochs").input_value() == "1"
    fill(page, epochs=90_000, val_every=5, checkpoint_every=5)
    page.locator("#f-name").fill(HOSTILE)
    with page.expect_request("**/api/v1/runs/*/clone"):  # with the network as it was then
        begin(page)
    page.wait_for_url(re.compile("/runs/(?!new)"))
    first = last_of(page, "loss")
    page.wait_for_function(
        "was => document.querySelector('[data-plot=loss] table.plain td').textContent !== was", arg=first
    )
    page.get_by_role("button", name="Stop").click()
    page.locator("#ask-yes").click()
    state(page, "stopped")
    page.get_by_text("It was stopped").wait_for()
    with loaded(page):
        page.get_by_role("button", name="Resume").click()
    page.locator("#happened", has_text="Went on from step").wait_for(timeout=LONG_MS)
    page.get_by_role("button", name="Stop").click()
    page.locator("#ask-yes").click()
    state(page, "stopped")
    assert page.locator("h1").inner_text().startswith(HOSTILE)
    page.get_by_label("Notes").fill(HOSTILE)
    page.get_by_role("button", name="Save the notes").click()
    page.get_by_text("Saved.").wait_for()
    page.get_by_label("Another run over it").fill("second")
    page.get_by_label("Another run over it").press("Enter")
    page.get_by_text("second: validation", exact=True).first.wait_for()
    page.reload()
    page.get_by_text("second: validation", exact=True).first.wait_for()
    assert page.get_by_label("Notes").input_value() == HOSTILE

    page.goto("/runs")
    page.get_by_label(f"Compare {HOSTILE}").check()
    page.get_by_label("Compare second").check()
    page.get_by_role("button", name="Compare the chosen ones").click()
    page.locator("[data-plot=loss] .plain").get_by_text(HOSTILE).wait_for()
    differ = page.get_by_role("table", name="Settings that differ")
    epochs = server.client.get("/runs/second").json()["run"]["spec"]["epochs"]
    assert differ.get_by_role("row", name="Epochs").inner_text().split()[1:] == ["90000", str(epochs)]
    assert "the same pictures for all" in page.get_by_role("table", name="Accuracy of each run").inner_text()
    assert page.evaluate("49 === 7 * 7 && !document.querySelector('main img')")


def test_curves_go_on_after_server_and_worker_were_killed(
    tmp_path: Path, serve: Callable[..., Server], new_page: Callable[..., Any]
) -> None:
    root = tmp_path / "workspace"
    spec = vizsla.DatasetSpec(source=draw_shapes(tmp_path / "pictures"), width=32, height=32, val_percent=20)
    with vizsla.open(root) as ws:
        datasets.create(ws, "shapes", spec)
    server = serve(root)
    long = {"net": "lenet", "tune": "scratch", "epochs": 90_000, "batch_size": 32, "checkpoint_every_s": 0.5}
    job = server.client.post("/runs", json={"dataset": "shapes", "name": "outlives", "spec": long}).json()
    folder = root / "runs" / job["thing"]
    page = new_page(server, expects=("WebSocket connection", FAILED))
    page.goto("/runs/outlives")
    state(page, "running")
    last_of(page, "loss")
    tabs = [page.context.new_page() for _ in range(8)]  # a browser opens six connections to a server
    for tab in tabs:
        tab.goto("/runs/outlives")
        last_of(tab, "loss")
    for tab in tabs:
        tab.close()
    page.evaluate("window.same = true")
    deadline = time.monotonic() + LONG_MS / 1000
    while len(list(folder.glob("checkpoints/0*"))) < 2:
        assert time.monotonic() < deadline
        page.wait_for_timeout(100)
    port = urlsplit(server.url).port
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    page.get_by_text("reconnecting").wait_for()
    kill_process(files.lock_holder(folder))
    serve(root, port=port or 0)
    page.locator("#happened", has_text="Went on from step").wait_for(timeout=LONG_MS)
    was = last_of(page, "loss")
    page.wait_for_function(
        "was => document.querySelector('[data-plot=loss] table.plain td').textContent !== was", arg=was
    )
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        log.write("printed after the server was back\n")
    page.locator(".log", has_text="printed after the server was back").wait_for(timeout=LONG_MS)
    assert page.evaluate("window.same"), "the page was loaded anew"
    page.get_by_role("button", name="Stop").click()
    page.locator("#ask-yes").click()
    state(page, "stopped")


def chips(page: Any) -> list[str]:
    """The tags at the head of a page."""
    return list(page.locator("[data-tags] .tag").all_inner_texts())


@pytest.mark.parametrize("width", [1280, 390])
def test_runs_are_tagged_and_found_by_their_tags(
    server: Server, full: Path, new_page: Callable[..., Any], width: int
) -> None:
    page = new_page(server, width=width, expects=(FAILED,))
    page.goto("/runs/first")
    assert not page.locator("[data-tags]").is_visible()
    field, save = page.get_by_role("textbox", name="Tags", exact=True), "Save the tags"
    field.fill(f" v2, {HOSTILE[:28]} ,, Baseline, baseline, {'W' * 40}")
    field.press("Enter")
    page.locator("[data-tags] .tag", has_text="Baseline").wait_for()
    kept = [HOSTILE[:28], "Baseline", "v2", "W" * 40]
    assert chips(page) == kept
    assert field.input_value() == ", ".join(kept)
    page.get_by_label("Notes").fill("Notes have an ETag of their own.")
    page.get_by_role("button", name="Save the notes").click()
    field.fill("x" * 41)
    page.get_by_role("button", name=save).click()
    page.locator("#tags-text-problem", has_text="cannot be a tag").wait_for()
    assert field.get_attribute("aria-invalid") == "true"
    # What another has changed meanwhile is not undone.
    server.client.patch("/runs/first", json={"tags": [*kept, "theirs"]}).raise_for_status()
    field.fill("mine")
    page.get_by_role("button", name=save).click()
    page.get_by_text("It has been changed since").wait_for()
    page.reload()
    assert chips(page) == [*kept[:2], "theirs", *kept[2:]]
    assert page.locator("img[src=x]").count() == 0

    server.client.patch("/runs/second", json={"tags": ["BASELINE", "other"]}).raise_for_status()
    page.locator("[data-tags] .tag", has_text="Baseline").press("Enter")
    page.wait_for_url("**/runs?tag=Baseline")
    names = page.locator(".runs .name")
    assert sorted(names.all_inner_texts()) == ["first", "second"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_label("Another tag").fill("Other")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**tag=Baseline**tag=Other**")
    assert names.all_inner_texts() == ["second"]
    page.get_by_role("link", name="Tag Baseline").click()
    page.wait_for_url(re.compile("[?]tag=Other$"))
    assert page.get_by_role("link", name=re.compile("^Tag ")).count() == 1
    page.get_by_role("link", name="Tag Other").click()
    page.wait_for_url("**/runs")
    offered = page.locator("#used-tags option").evaluate_all("all => all.map((one) => one.value)")
    assert sorted(offered) == sorted(["Baseline", HOSTILE[:28], "other", "theirs", "v2", "W" * 40])
    page.locator(".runs .tag", has_text="<img").click()
    page.wait_for_url("**/runs?tag=**")
    assert names.all_inner_texts() == ["first"]
    assert page.locator("img[src=x]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("first", "second"):
        server.client.patch(f"/runs/{name}", json={"tags": [], "notes": ""}).raise_for_status()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_pages_of_runs_fit(server: Server, full: Path, new_page: Callable[..., Any], width: int) -> None:
    name = f"{HOSTILE[:80]}{width}"
    with vizsla.open(full) as ws:
        id = runs.start(ws, "shapes", TINY, name=name).run.id
    page = new_page(server, width=width, scheme="dark")
    pages = ("/runs", "/runs?state=&name=&network=lenet", "/runs/new", f"/runs/{id}", "/compare")
    for path in (*pages, f"/compare?run={id}&run=first"):
        page.goto(path)
        assert page.locator("h1").count() == 1, path
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.locator("img[src=x]").count() == 0
    page.goto("/runs?sort=name&limit=1")
    seen = [page.locator(".runs .name").inner_text()]
    page.get_by_role("link", name="Older").click()
    assert page.locator(".runs .name").inner_text() != seen[0]
    page.goto(f"/runs/{id}")
    page.get_by_role("button", name="Delete").click()
    page.locator("#ask-yes").click()
    page.wait_for_url("**/runs")
    assert page.get_by_text(name).count() == 0
