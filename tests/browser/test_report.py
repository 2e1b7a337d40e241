"""The report page in a real browser: it fits, it is silent, it loads nothing, and its matrix says what it should."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vizsla.evaluation.evaluate import About, Rows, evaluate
from vizsla.evaluation.report import DatasetRef, Subject

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")

ARGS = [
    "--no-sandbox",
    "--headless=new",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
HOSTILE = ["<script>alert(1)</script>", "x" * 200, "many words " * 20, "\u202eשלום", "🐕 emoji", " ", "a", "b"]

# The least contrast between a text and what is behind it, and the smallest size of a text.
LEGIBILITY = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const channel = (x) => x / 255 <= 0.03928 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4;
  const light = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]) + 0.05;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = {contrast: 21, size: 99};
  while (texts.nextNode()) {
    if (!texts.currentNode.data.trim()) continue;
    const own = texts.currentNode.parentElement;
    let behind = own;
    while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
    const a = light(rgba(getComputedStyle(own).color));
    const b = light(rgba(getComputedStyle(behind ?? document.body).backgroundColor));
    found.contrast = Math.min(found.contrast, Math.max(a, b) / Math.min(a, b));
    found.size = Math.min(found.size, parseFloat(getComputedStyle(own).fontSize));
  }
  return found;
}"""


def write(folder: Path, labels: list[str], num_pictures: int) -> Path:
    """A report in which a quarter of the pictures is taken for the class that follows."""
    rng = np.random.default_rng(0)
    truth = np.arange(num_pictures) % len(labels)
    wrong = np.arange(num_pictures) % 4 == 0
    said = iter(np.split(np.where(wrong, (truth + 1) % len(labels), truth), range(64, num_pictures, 64)))

    def predict(pixels: np.ndarray) -> np.ndarray:
        confidence = np.float32(0.7 + 0.3 * rng.random())
        rest = (1 - confidence) / len(labels)
        return np.eye(len(labels), dtype=np.float32)[next(said)] * confidence + np.float32(rest)

    evaluate(
        predict,
        lambda indices: rng.integers(0, 255, (len(indices), 28, 28, 1), dtype=np.uint8),
        Rows(np.arange(num_pictures), truth, [f"a folder/{'p' * 90}/{i}.png" for i in range(num_pictures)]),
        labels,
        About(
            id="1swk2a7q",
            name="an evaluation",
            subject=Subject(kind="run", id="1swk1111", name="n" * 120, checkpoint="best", network="lenet"),
            dataset=DatasetRef(id="1swk0000", name=" ".join(["digits"] * 20), fingerprint="ab" * 32),
            split="test",
            role="chose the checkpoint",
            device="cpu",
        ),
        folder,
    )
    return folder / "report.html"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    return {
        "ten": write(folder / "ten", [f"class {i}" for i in range(10)], 400),
        "two": write(folder / "two", ["benign", "malignant"], 101),
        "forty": write(folder / "forty", [f"kind {i}" for i in range(40)], 400),
        "thousand": write(folder / "thousand", [f"species {i}" for i in range(1000)], 4000),
        "hostile": write(folder / "hostile", HOSTILE, 400),
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield chromium
        chromium.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("which", ["ten", "two", "forty", "thousand", "hostile"])
def test_it_fits_and_is_silent(
    browser: sync_api.Browser, pages: dict[str, Path], which: str, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(pages[which].as_uri())
    page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    legibility = page.evaluate(LEGIBILITY)
    assert legibility["contrast"] >= 4.5
    assert legibility["size"] >= 12
    assert said == []
    assert [url for url in requests if not url.startswith("data:")] == [pages[which].as_uri()]
    page.close()


def test_the_matrix_is_a_table_with_its_counts(browser: sync_api.Browser, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["ten"].as_uri())
    matrix = page.get_by_role("table", name="Confusion matrix")
    sync_api.expect(matrix).to_be_visible()
    # Every fourth of 400 pictures is wrong: of class 0, at 0, 10, 20, ..., every second one.
    row = matrix.get_by_role("row", name="class 0")
    sync_api.expect(row.get_by_role("cell").nth(0)).to_have_text("20")
    sync_api.expect(row.get_by_role("cell").nth(1)).to_have_text("20")
    sync_api.expect(row.get_by_role("cell").last).to_have_text("40")
    sync_api.expect(matrix.get_by_role("columnheader", name="class 9")).to_be_visible()
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert page.locator("img:not([alt])").count() == 0
    page.close()


def test_a_thousand_classes_show_the_worst(browser: sync_api.Browser, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["thousand"].as_uri())
    sync_api.expect(page.get_by_text("The 25 classes with the most errors, of 1,000.")).to_be_visible()
    assert page.get_by_role("table", name="Confusion matrix").locator("tbody tr").count() == 25
    assert page.get_by_role("table", name="Most confused").locator("tbody tr").count() == 50
    assert page.get_by_role("table", name="Class by class").locator("tbody tr").count() == 1000
    page.close()
