"""From pictures to a prediction without a mouse, and it can be seen where one is."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.browser.conftest import loaded
from tests.support import Server, draw_shapes

pytestmark = pytest.mark.slow

MOST_KEYS = 120
LONG_MS = 120_000

# What has the focus, or the label that stands for it, is marked by a line around it or by a shadow.
MARKED = """(one) => [one, ...(one.labels ?? [])].some((part) => {
  const style = getComputedStyle(part);
  return (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
})"""


def go_to(page: Any, wanted: Any) -> None:
    """Press Tab until `wanted` has the focus."""
    for _ in range(MOST_KEYS):
        page.keyboard.press("Tab")
        if wanted.evaluate("(one) => one === document.activeElement"):
            break
    else:
        raise AssertionError(f"{wanted} cannot be reached")
    assert wanted.evaluate(MARKED), f"nothing shows that {wanted} has the focus"


def press(page: Any, wanted: Any) -> None:
    go_to(page, wanted)
    page.keyboard.press("Enter")


def choose_file(page: Any, wanted: Any, path: Path) -> None:
    with page.expect_file_chooser() as choosing:
        press(page, wanted)
    choosing.value.set_files(path)


def test_from_pictures_to_a_prediction(
    tmp_path: Path, serve: Callable[..., Server], new_page: Callable[..., Any]
) -> None:
    draw_shapes(tmp_path / "shapes", num=20)
    archive = Path(shutil.make_archive(str(tmp_path / "shapes"), "zip", tmp_path / "shapes"))
    server = serve(tmp_path / "workspace")
    page = new_page(server)
    page.goto("/")
    with loaded(page):
        press(page, page.get_by_role("link", name="Begin with a folder of pictures"))
    choose_file(page, page.get_by_role("button", name="Choose a zip or tar"), archive)
    page.get_by_text(re.compile("60 pictures in 3 classes")).first.wait_for(timeout=LONG_MS)
    press(page, page.get_by_role("button", name="28", exact=True))
    press(page, page.get_by_role("button", name="Build the dataset"))
    page.locator("#gallery").wait_for(timeout=LONG_MS)

    with loaded(page):
        press(page, page.get_by_role("link", name="New run"))
    lenet = page.get_by_role("radio", name=re.compile("^lenet"))
    go_to(page, page.locator("#networks input:checked"))
    for _ in range(MOST_KEYS):
        if lenet.is_checked():
            break
        page.keyboard.press("ArrowDown")
    assert lenet.is_checked()
    go_to(page, page.locator("#f-spec-epochs"))
    page.keyboard.press("Control+a")
    page.keyboard.type("2")
    press(page, page.get_by_role("button", name="Begin the training"))
    page.wait_for_url(re.compile("/runs/(?!new)"), timeout=LONG_MS)
    page.locator("h1 .state", has_text=re.compile("^done$")).wait_for(timeout=LONG_MS)

    with loaded(page):
        press(page, page.get_by_role("link", name="Try it"))
    press(page, page.get_by_role("button", name=re.compile("^Export")))
    page.wait_for_url(re.compile("/models/.*/try$"), timeout=LONG_MS)
    choose_file(page, page.locator("#pictures"), tmp_path / "shapes" / "ring" / "000.png")
    page.get_by_text("1 picture looked at.").wait_for(timeout=LONG_MS)
    assert page.locator(".answer .bars li").count() == 3
