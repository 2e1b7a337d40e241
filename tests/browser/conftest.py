"""A real browser on a real server. Whatever it complains of fails the test."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.support import FAILED, TINY, Once, Server, draw_shapes, kill_process

import vizsla
from vizsla import files
from vizsla.api import datasets, evaluations, models, runs

ARGS = [
    "--no-sandbox",
    "--headless=new",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@contextlib.contextmanager
def loaded(page: Any) -> Iterator[None]:
    """Around what leads to another page: waits until that one's scripts are there, or its buttons do nothing yet."""
    page.wait_for_load_state()  # of this one: that it comes to its end must not be taken for the other
    with page.expect_event("load"):
        yield


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser. While it is there a loop of asyncio runs in this thread, and no other test can run one."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()


def with_one_of_each(folder: Path) -> None:
    """Make `pictures` and the workspace `workspace` with a thing of each kind."""
    pictures = draw_shapes(folder / "pictures")
    spec = vizsla.DatasetSpec(source=pictures, width=32, height=32, val_percent=20, test_percent=20)
    with vizsla.open(folder / "workspace") as ws:
        datasets.create(ws, "shapes", spec)
        for name in ("first", "second"):
            runs.start(ws, "shapes", TINY, name=name)
        evaluations.create(ws, "first", split="test", name="measured")
        models.export(ws, "first", name="shaper")


@pytest.fixture(scope="module")
def full(once: Once) -> Path:
    """A workspace with one of each: the dataset `shapes`, the runs `first` and `second`, a model, an evaluation."""
    return once(with_one_of_each) / "workspace"


@pytest.fixture(scope="module")
def server(full: Path) -> Iterator[Server]:
    """A server on it, which lets requests name the pictures, also those that the dataset was made from."""
    with vizsla.open(full) as ws:
        (dataset,) = datasets.list_all(ws)
    started = Server(full, "--allow", full.parent / "pictures", "--allow", dataset.spec.source)
    yield started
    assert started.stop() == 0


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers on workspaces of the test's own; after it neither they nor what they train is left."""
    started: list[tuple[Path, Server]] = []

    def start(root: Path, *options: object, port: int = 0) -> Server:
        started.append((root, Server(root, *options, port=port)))
        return started[-1][1]

    yield start
    for root, server in started:
        if server.process.poll() is None:
            assert server.stop() == 0
        for folder in (root / "runs").iterdir():
            worker = files.lock_holder(folder)
            if worker is not None:
                kill_process(worker)


@pytest.fixture
def new_page(chromium: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Opens pages, each in a browser that knows nothing; what one complains of fails the test.

    `expects` names beginnings of complaints that are right, such as of a 404 that is asked for.
    """
    contexts, complaints = [], []

    def open_(server: Server, *, width: int = 1280, scheme: str = "light", expects: tuple[str, ...] = ()) -> Any:
        base = server.url.removesuffix("/api/v1")
        context = chromium.new_context(
            base_url=base, viewport={"width": width, "height": 900}, color_scheme=scheme, ignore_https_errors=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)

        def complain(text: str) -> None:
            if not text.startswith(expects or ("\0",)):
                complaints.append(text)

        def heed(message: Any) -> None:
            if message.type in ("error", "warning"):
                complain(message.text)

        def asked(asked: Any) -> None:
            if urlsplit(asked.url).netloc not in ("", urlsplit(base).netloc):
                complain(f"{asked.url} is elsewhere")

        page.on("console", heed)
        page.on("pageerror", lambda error: complain(str(error)))
        page.on("request", asked)
        return page

    yield open_
    failed = complaints or request.node.stash.get(FAILED, False)
    for context in contexts:
        for page in context.pages if failed else []:
            with contextlib.suppress(Exception):  # one that has crashed shows nothing
                print(f"--- {page.url}\n{page.locator('body').inner_text(timeout=2000)}")
        context.close()
    assert complaints == []
