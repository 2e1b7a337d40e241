"""Evaluations in a real browser: what the page says is what REST says, and a cell opens its pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.browser.conftest import loaded
from tests.support import Server

import vizsla
from vizsla.evaluation.evaluate import About, Rows, evaluate
from vizsla.evaluation.report import DatasetRef, Subject
from vizsla.ids import new_id
from vizsla.jobs.schedule import BESIDE

pytestmark = pytest.mark.slow

HOSTILE = ["<script>alert(1)</script>", "x" * 200, "many words " * 20, "\u202eשלום", "a&b=c", " ", "ä/ö#?", "b"]
NUM_STORED = 60


def made_up(root: Path, name: str, labels: list[str], num_pictures: int) -> str:
    """An evaluation in which each fourth picture is taken for the class that follows; its pictures are those of
    `shapes`, again and again."""
    truth = np.arange(num_pictures) % len(labels)
    wrong = np.arange(num_pictures) % 4 == 0
    said = iter(np.split(np.where(wrong, (truth + 1) % len(labels), truth), range(64, num_pictures, 64)))

    def predict(pixels: np.ndarray) -> np.ndarray:
        return np.eye(len(labels), dtype=np.float32)[next(said)] * np.float32(0.5) + np.float32(0.5 / len(labels))

    with vizsla.open(root) as ws:
        (dataset,), run = ws.store.all("dataset"), ws.store.all("run")[0]
        id = new_id()
        evaluate(
            predict,
            lambda indices: np.zeros((len(indices), 32, 32, 3), dtype=np.uint8),
            Rows(np.arange(num_pictures) % NUM_STORED, truth, [f"{'p' * 90}/{i}.png" for i in range(num_pictures)]),
            labels,
            About(
                id=id,
                name=name,
                subject=Subject(kind="run", id=run.id, name=run.name, checkpoint="best", network="lenet"),
                dataset=DatasetRef(id=dataset.id, name=dataset.name, fingerprint="ab" * 32),
                split="test",
                role="held out",
                device="cpu",
            ),
            _folder(ws.folder("evaluation", id)),
        )
        ws.store.add("evaluation", name, parents=[run.id, dataset.id], id=id)
    return id


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def many(full: Path) -> dict[str, str]:
    return {
        "hostile": made_up(full, "hostile", HOSTILE, 400),
        "thousand": made_up(full, "thousand", [f"species {i}" for i in range(1000)], 4000),
    }


@pytest.fixture(scope="module", autouse=True)
def failed(full: Path) -> str:
    """Id of an evaluation that came to nothing, before there is a server that would begin with it."""
    with vizsla.open(full) as ws:
        id = new_id()
        job = ws.store.jobs.add("evaluation", id, "came to nothing", owner=ws.user, need=BESIDE.as_dict())
        error = {"kind": "invalid-input", "what": "A file <b>is missing</b>.", "where": "pixels", "remedy": "Build it."}
        ws.store.jobs.change(job, "failed", "it failed", failure="error", error=error)
    return id


def test_one_that_failed_has_a_page(server: Server, failed: str, new_page: Callable[..., Any]) -> None:
    page = new_page(server)
    assert page.goto(f"/evaluations/{failed}").status == 200
    page.get_by_role("heading", level=1, name="came to nothing failed").wait_for()
    assert "A file <b>is missing</b>." in page.get_by_role("alert").inner_text()
    assert page.get_by_role("table").get_by_text("it failed").count() == 1
    assert page.get_by_role("button", name="Delete").count() == 0  # nothing is there


def test_the_page_says_what_rest_says(server: Server, new_page: Callable[..., Any]) -> None:
    report = server.client.get("/evaluations/measured").json()
    page = new_page(server)
    page.goto("/evaluations")
    row = page.get_by_role("row", name="measured")
    accuracy = report["headline"]["accuracy"]
    assert f"{100 * accuracy['value']:.1f} %" in row.inner_text()
    assert f"{100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f}" in row.inner_text()
    row.get_by_role("link", name="measured").click()
    page.wait_for_url(f"**/evaluations/{report['id']}")
    num_right = sum(n for true, predicted, n in report["confusion"] if true == predicted)
    assert f"{num_right} of {report['num_pictures']} pictures" in page.locator(".lede").inner_text()
    matrix = page.get_by_role("table", name="Confusion matrix")
    around = page.locator(".tiers").bounding_box()["height"]
    assert around > matrix.bounding_box()["height"], "nothing of it is cut off"
    cells = matrix.locator("td a").all_inner_texts()
    assert sorted(map(int, cells)) == sorted(n for _, _, n in report["confusion"])
    page.get_by_role("link", name="As rates").click()
    page.get_by_role("link", name="As counts").wait_for()
    true, predicted, num = report["confusion"][0]
    labels = report["labels"]
    page.get_by_role("link", name=f"{num} of {labels[true]} taken for {labels[predicted]}", exact=True).click()
    page.wait_for_url("**/pictures?**")
    assert page.locator(".gallery .shot").count() == num
    shown = page.locator(".gallery img")
    shown.first.scroll_into_view_if_needed()
    assert shown.first.evaluate("one => one.decode().then(() => one.naturalWidth)") == 32
    asked = {"class": labels[true], "predicted": labels[predicted], "surest": True, "limit": 200}
    found = server.client.get("/evaluations/measured/predictions", params=asked).json()["items"]
    assert [one["probability"] for one in found] == sorted((one["probability"] for one in found), reverse=True)
    addresses = shown.evaluate_all("all => all.map(one => Number(one.src.split('/').pop()))")
    assert addresses == [one["index"] for one in found]


def test_a_picture_opens_with_its_scores_and_those_beside_it(server: Server, new_page: Callable[..., Any]) -> None:
    asked = {"surest": True, "limit": 200}
    found = server.client.get("/evaluations/measured/predictions", params=asked).json()["items"]
    page = new_page(server, expects=("Failed to load resource",))
    page.goto("/evaluations/measured/pictures")
    with loaded(page):
        page.locator(".gallery .shot a").first.click()
    for number, one in enumerate(found, start=1):
        page.wait_for_url(f"**/pictures/{one['index']}")
        assert f"{number} of {len(found)}" in page.locator(".actions").inner_text()
        verdict = "named right" if one["label"] == one["predicted"] else f"taken for {one['predicted']}"
        assert page.locator("h1").inner_text() == f"{one['label']} {verdict}"
        bars = [tuple(bar.split("\n")) for bar in page.locator(".bars li").all_inner_texts()]
        scores = zip(one["top_labels"], one["top_probabilities"], strict=True)
        told = [(label, f"{100 * share:.1f} %" + " is it" * (label == one["label"])) for label, share in scores]
        assert [tuple(" ".join(bar).split(" ", 1)) for bar in bars] == told
        if number < len(found):
            with loaded(page):
                page.keyboard.press("ArrowRight")
    page.goto(f"/evaluations/measured/pictures/{found[0]['index']}?predicted={found[0]['predicted']}")
    beside = [one["index"] for one in found if one["predicted"] == found[0]["predicted"]]
    page.get_by_role("link", name="Next").click()
    page.wait_for_url(f"**/pictures/{beside[1]}?predicted={found[0]['predicted']}")
    page.get_by_role("button", name="What mattered").click()
    page.get_by_text("Grad-CAM at").wait_for(timeout=60_000)
    assert page.locator(".seen img").get_attribute("alt").startswith("Where the network looked for ")
    page.get_by_label("For which class").select_option(index=2)
    third = server.client.get(f"/evaluations/measured/predictions/{beside[1]}").json()["top_labels"][2]
    page.get_by_alt_text(f"Where the network looked for {third}").wait_for()
    ringed = f"/evaluations/measured/pictures/{found[0]['index']}?true={found[0]['label']}&order=file"
    page.goto(ringed)
    rest = {"class": found[0]["label"], "limit": 200}
    same = [one["index"] for one in server.client.get("/evaluations/measured/predictions", params=rest).json()["items"]]
    at = same.index(found[0]["index"])
    assert f"{at + 1} of {len(same)}" in page.locator(".actions").inner_text()
    turn, there = ("ArrowLeft", same[at - 1]) if at else ("ArrowRight", same[1])
    with loaded(page):
        page.keyboard.press(turn)
    page.wait_for_url(f"**/pictures/{there}?true={found[0]['label']}&order=file")
    of_another_split = next(i for i in range(60) if i not in {one["index"] for one in found})
    for wrong in (f"{of_another_split}", "-1", "x"):
        assert page.goto(f"/evaluations/measured/pictures/{wrong}").status in (404, 422)
        assert page.locator("h1").count() == 1
    right = next(one["index"] for one in found if one["label"] == one["predicted"])
    assert server.client.get(f"/evaluations/measured/predictions/{right}", params={"wrong": True}).status_code == 404


def test_names_and_notes_are_written(server: Server, new_page: Callable[..., Any]) -> None:
    page = new_page(server, expects=("Failed to load resource",))
    page.goto("/evaluations/measured")
    page.get_by_label("Notes").fill("The <b>second</b> camera.")
    page.get_by_role("button", name="Save the notes").click()
    page.get_by_text("Saved.").wait_for()
    server.client.patch("/evaluations/measured", json={"notes": "Another wrote."}).raise_for_status()
    page.get_by_label("Notes").fill("Mine.")
    page.get_by_role("button", name="Save the notes").click()
    page.get_by_text("Load this page again to see it").wait_for()
    server.client.patch("/evaluations/measured", json={"notes": "The <b>second</b> camera."}).raise_for_status()
    page.reload()
    assert page.get_by_label("Notes").input_value() == "The <b>second</b> camera."
    page.get_by_role("button", name="Rename").click()
    page.locator("#new-name").fill("measured again")
    page.locator("#rename .primary").click()
    page.get_by_role("heading", level=1, name="measured again").wait_for()
    page.wait_for_url(f"**/evaluations/{server.client.get('/evaluations/measured again').json()['id']}")
    assert server.client.patch("/evaluations/measured again", json={"name": "measured"}).status_code == 200


@pytest.mark.parametrize("width", [1280, 390])
def test_hostile_names_are_texts(
    server: Server, many: dict[str, str], new_page: Callable[..., Any], width: int
) -> None:
    page = new_page(server, width=width)
    for address in ("", "?show=rates", "/pictures?wrong=true", "/top"):
        page.goto(f"/evaluations/{many['hostile']}{address}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
        assert page.locator("main script").count() == 0
    page.goto(f"/evaluations/{many['hostile']}")
    counts = page.get_by_role("table", name="Confusion matrix").locator("td a")
    addresses = counts.evaluate_all("all => all.map(one => [one.href, Number(one.textContent)])")
    assert sum(num for _, num in addresses) == 400
    for address, num in addresses:
        page.goto(address)
        assert page.locator(".lede b").inner_text() == f"{num} pictures"


def test_a_thousand_classes_can_be_used(server: Server, many: dict[str, str], new_page: Callable[..., Any]) -> None:
    page = new_page(server)
    page.goto(f"/evaluations/{many['thousand']}")
    matrix = page.get_by_role("table", name="Confusion matrix")
    assert matrix.locator("tbody tr").count() == 25
    classes = page.get_by_role("table", name="Class by class")
    assert classes.locator("tbody tr").count() == 100
    page.get_by_label("Find a class").fill("species 700")
    page.get_by_role("button", name="Find").click()
    page.wait_for_url("**find=species+700**")
    # It is taken for the next one each time, for 700 is a multiple of 4, and nothing is taken for it.
    assert matrix.locator("tbody th").all_inner_texts() == ["species 700", "species 701"]
    assert matrix.locator("td a").all_inner_texts() == ["4", "4"]
    assert classes.locator("tbody tr").count() == 1
    classes.get_by_role("link", name="Recall").click()
    page.wait_for_url("**sort=recall**")
    page.goto(f"/evaluations/{many['thousand']}?all=true&sort=support&order=desc")
    assert classes.locator("tbody tr").count() == 1000


def test_what_is_not_there_is_said(server: Server, many: dict[str, str], new_page: Callable[..., Any]) -> None:
    page = new_page(server, expects=("Failed to load resource",))
    answer = page.goto(f"/evaluations/{many['thousand']}/pictures?true=dog")
    assert answer.status == 422
    assert page.goto(f"/evaluations/{many['thousand']}/pictures?true=species+1&predicted=species+9").status == 200
    page.get_by_text("No such picture").wait_for()
    page.goto("/evaluations")
    page.get_by_text("New evaluation").click()
    page.get_by_label("Run or model").first.fill("nothing")
    page.get_by_role("button", name="Evaluate").click()
    page.get_by_role("alert").wait_for()
    page.get_by_label("Run or model").first.fill("second")
    page.get_by_role("button", name="Evaluate").click()
    page.wait_for_url("**/evaluations/1*")
    # Queued or running at first, then the report takes its place.
    page.get_by_role("heading", name="Confusion matrix").wait_for(timeout=90_000)
