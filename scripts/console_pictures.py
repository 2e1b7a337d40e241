"""Draws the pictures of docs/console.md: the way from 4,900 handwritten digits to a prediction, in a real browser.

Usage: python scripts/console_pictures.py docs/images
"""

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from PIL import Image
from playwright.sync_api import sync_playwright
from tests.browser.conftest import ARGS
from tests.browser.test_workflow import build, evaluate, look, some_digits, train
from tests.support import Server

SIZE = {"width": 1180, "height": 760}
PICTURES_A_CLASS = 490
SETTLE_MS = 1500


def camera(page: Any, folder: Path) -> Callable[[str], None]:
    """Keeps what is in sight, or the whole of a form."""

    def seen(name: str) -> None:
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        page.get_by_text("Looking at").first.wait_for(state="hidden")
        page.wait_for_timeout(SETTLE_MS)
        path = folder / f"console-{name}.png"
        page.screenshot(path=path, full_page=name.startswith("new"))
        Image.open(path).convert("RGB").save(path, optimize=True)

    return seen


def main(folder: Path) -> None:
    """Go the whole way, and keep a picture of each page."""
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        archive, other = some_digits(Path(scratch), PICTURES_A_CLASS)
        workspace = Path(scratch) / "workspace"
        server = Server(workspace)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGS)
        page = browser.new_page(base_url=server.url.removesuffix("/api/v1"), viewport=SIZE)
        seen = camera(page, folder)
        build(page, archive, "28", seen, Validation="10", Test="20")
        train(page, "lenet", seen, epochs="15", learning_rate="0.005")
        evaluate(page, seen)
        look(page, other, workspace, seen)
        browser.close()
        server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
