"""Models in a real browser: a picture that is dropped or chosen is named as `vizsla predict` names it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.browser.conftest import loaded
from tests.browser.test_links import DROP, PASTE
from tests.support import Cli, Server

pytestmark = pytest.mark.slow

BAD = "<b>not a picture.png"


def named(page: Any, num: int, *, failed: int = 0) -> dict[str, tuple[str, str]]:
    """What the cards say, by file: the best class and its probability."""
    end = f", {failed} could not be." if failed else "."
    page.get_by_text(f"{num} picture{'' if num == 1 else 's'} looked at{end}").wait_for()
    found = {}
    for card in page.locator(".answer").all():
        best, file = card.locator(".bars li").first, card.locator("[data-file]").inner_text()
        if best.count():
            found[file] = (best.locator("bdi").inner_text(), best.locator("span").nth(1).inner_text())
        else:
            found[file] = (card.locator("[data-problem]").inner_text(), "")
    return found


def test_a_picture_is_named_as_the_command_names_it(
    server: Server, full: Path, tmp_path: Path, new_page: Callable[..., Any]
) -> None:
    pictures = full.parent / "pictures"
    chosen = [tmp_path / f"{label}.png" for label in ("disc", "ring", "square")]
    for path in chosen:
        path.write_bytes((pictures / path.stem / "003.png").read_bytes())
    (tmp_path / BAD).write_bytes(b"no picture")
    said = {
        Path(one["picture"]).name: one["scores"][0] for one in Cli(full)("predict", "shaper", *chosen, "--json").json
    }
    page = new_page(server)
    page.goto("/runs/first/try")
    page.wait_for_url("**/models/**/try")
    page.set_input_files("#pictures", [*chosen, tmp_path / BAD])
    found = named(page, 3, failed=1)
    assert found.pop(BAD) == ("not a picture", "")
    wanted = {name: (score["label"], f"{100 * score['probability']:.1f} %") for name, score in said.items()}
    assert found == wanted
    with page.expect_download() as downloaded:
        page.get_by_role("button", name="Download as CSV").click()
    text = Path(downloaded.value.path()).read_text(encoding="utf-8")
    assert [len(row) for row in csv.reader(io.StringIO(text))][:2] == [8, 8], "of three classes, on the head too"
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["picture"]: row["predicted"] for row in rows} == {name: best[0] for name, best in found.items()} | {
        BAD: ""
    }
    page.get_by_role("button", name="Clear").click()
    # Dropped, as a browser drops it.
    data = list(chosen[0].read_bytes())
    page.evaluate(
        """data => {
          const held = new DataTransfer();
          held.items.add(new File([new Uint8Array(data)], "disc.png", {type: "image/png"}));
          document.getElementById("drop").dispatchEvent(
            new DragEvent("drop", {dataTransfer: held, bubbles: true, cancelable: true}));
        }""",
        data,
    )
    assert named(page, 1) == {"disc.png": wanted["disc.png"]}
    page.evaluate(
        """data => {
          const held = new DataTransfer();
          held.items.add(new File([new Uint8Array(data)], "ring.png", {type: "image/png"}));
          document.body.dispatchEvent(
            new ClipboardEvent("paste", {clipboardData: held, bubbles: true, cancelable: true}));
        }""",
        list(chosen[1].read_bytes()),
    )
    assert named(page, 2) == {name: wanted[name] for name in ("disc.png", "ring.png")}
    figures = server.client.get("/models/shaper").json()["figures"]
    best = next(one for one in figures if one["role"] == "held out")["accuracy"]
    assert f"{100 * best['value']:.1f} %" in page.locator(".lede").inner_text()


def test_where_links_are_not_fetched_none_is_offered(server: Server, full: Path, new_page: Callable[..., Any]) -> None:
    page = new_page(server)
    page.goto("/runs/first/try")
    page.get_by_role("heading", name="Drop pictures here").wait_for()
    assert page.get_by_label("Link to a picture").count() == 0
    link = "https://pictures.example/a.png"
    page.evaluate(DROP, link)
    page.evaluate(PASTE, [link, "body"])
    page.set_input_files("#pictures", full.parent / "pictures" / "ring" / "003.png")
    assert list(named(page, 1)) == ["003.png"]


def test_a_model_and_its_files(server: Server, tmp_path: Path, new_page: Callable[..., Any]) -> None:
    page = new_page(server)
    page.goto("/models")
    with loaded(page):
        page.get_by_role("link", name="shaper").click()
    card = server.client.get("/models/shaper").json()
    lineage = page.get_by_role("navigation", name="From pictures to model")
    assert lineage.get_by_role("link", name="shapes").get_attribute("href") == f"/datasets/{card['dataset']['id']}"
    assert lineage.get_by_role("link", name="first").get_attribute("href") == f"/runs/{card['run']['id']}"
    page.get_by_label("Part of a class").fill("squ")
    page.get_by_role("button", name="Find").click()
    page.wait_for_url("**find=squ**")
    assert page.locator(".labels li").all_inner_texts() == ["2\nsquare"]
    page.locator("summary", has_text="Download").click()
    with page.expect_download() as downloaded:
        page.get_by_role("link", name="The whole model (zip)").click()
    packed = tmp_path / "shaper.zip"
    downloaded.value.save_as(packed)
    graph = server.client.get("/models/shaper/files/model.onnx")
    assert graph.status_code == 200
    assert server.client.get("/models/shaper/files/model.json").status_code == 422
    page.goto("/models")
    page.get_by_text("Bring a model from elsewhere").click()
    page.set_input_files("#archive", packed)
    page.get_by_label("Name here").fill("brought")
    page.get_by_role("button", name="Bring it").click()
    page.get_by_role("heading", level=1, name="brought").wait_for(timeout=60_000)
    assert server.client.get("/models/brought/files/model.onnx").content == graph.content
    assert server.client.get("/uploads").json() == []
    page.get_by_role("button", name="Delete").click()
    page.locator("#ask-yes").click()
    page.wait_for_url("**/models")


def test_many_pictures_of_a_folder(server: Server, full: Path, new_page: Callable[..., Any]) -> None:
    page = new_page(server)
    page.goto("/predictions/new?model=shaper")
    page.get_by_label("Folder or list").fill(str(full.parent / "pictures" / "ring"))
    page.locator("#name").fill("rings")
    page.get_by_role("button", name="Classify").click()
    page.get_by_role("heading", name="Every picture").wait_for(timeout=90_000)
    record = server.client.get("/predictions/rings").json()
    assert record["num_pictures"] == 40
    label, num = max(record["classes"].items(), key=lambda one: one[1])
    assert page.get_by_role("table", name="Every picture").locator("tbody tr").count() == 40
    page.get_by_role("table", name="What it sees").get_by_role("link", name=label).click()
    page.get_by_role("heading", name=f"Taken for {label}").wait_for()
    assert page.get_by_role("row").count() - 2 - sum(map(bool, record["classes"].values())) == num
    rows = list(csv.DictReader(io.StringIO(server.client.get("/predictions/rings/rows.csv").text)))
    assert sum(row["predicted"] == label for row in rows) == num
    first = server.client.get("/predictions/rings/rows", params={"limit": 1}).json()["items"][0]
    assert first["path"] == rows[0]["path"]


def test_a_run_without_a_model_says_how_to_make_one(server: Server, new_page: Callable[..., Any]) -> None:
    page = new_page(server)
    page.goto("/runs/second/try")
    page.get_by_role("button", name="Export the best checkpoint").click()
    page.get_by_text("As soon as it is, this page asks for pictures").wait_for()
    page.wait_for_url("**/models/**/try", timeout=60_000)
    page.get_by_role("heading", name="Drop pictures here").wait_for()
    assert page.get_by_role("link", name="A whole folder").count() == 1
    server.client.delete(f"/models/{page.url.split('/')[-2]}").raise_for_status()


def test_the_network_is_looked_into(server: Server, full: Path, new_page: Callable[..., Any]) -> None:
    card = server.client.get("/models/shaper").json()
    picture = full.parent / "pictures" / "ring" / "003.png"
    page = new_page(server)
    page.goto(f"/models/{card['id']}/try")
    page.set_input_files("#pictures", picture)
    named(page, 1)
    page.get_by_role("button", name="What mattered").click()
    page.get_by_text("Grad-CAM at").wait_for(timeout=60_000)
    best = page.locator(".bars li bdi").first.inner_text()
    assert page.locator(".answer img").get_attribute("alt") == f"Where the network looked for {best}"
    page.get_by_label("For which class").select_option(index=1)
    second = page.locator(".bars li bdi").nth(1).inner_text()
    page.get_by_alt_text(f"Where the network looked for {second}").wait_for()
    page.goto(f"/models/{card['id']}/layers?picture=3")
    rows = page.locator("#layers tbody tr")
    rows.first.wait_for()
    parameters = [int(row.locator("td").nth(3).inner_text().replace(",", "")) for row in rows.all()]
    assert sum(parameters) == card["num_parameters"]
    rows.first.get_by_role("button").click()
    page.locator("#drawn img").first.wait_for()
    assert page.locator("#drawn img").first.evaluate("one => one.naturalWidth") > 32
    page.get_by_role("button", name="Close").click()


def test_what_cannot_be_looked_into_is_refused(server: Server, full: Path) -> None:
    data = (full.parent / "pictures" / "ring" / "003.png").read_bytes()
    two = [("pictures", ("a.png", data)), ("pictures", ("b.png", data))]
    bad = [("pictures", ("a.png", b"no picture"))]
    one = two[:1]
    for address, pictures, status in (
        ("/runs/first/explain", two, 422),
        ("/runs/first/explain", bad, 422),
        ("/runs/first/explain?class=dog", one, 422),
        ("/runs/first/explain?checkpoint=123456", one, 404),
        ("/runs/first/explain?checkpoint=x", one, 422),
        ("/runs/nothing/explain", one, 404),
        ("/runs/first/layers?layer=nothing", one, 422),
        ("/runs/first/explain?class=ring", one, 200),
    ):
        answer = server.client.post(address, files=pictures)
        assert answer.status_code == status, (address, answer.text)
    assert server.client.post("/runs/first/explain", json={}).status_code == 422
