"""From pictures to a prediction, in the browser alone, as with DIGITS: drawn numbers with LeNet, dogs with Lite0."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser.conftest import loaded
from tests.support import Cli, Server

from vizsla.datasets.digits import write_digits

pytestmark = pytest.mark.slow

PICTURES_A_CLASS = 80
LONG_MS = 180_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server on a workspace that is empty."""
    started = Server(tmp_path / "workspace")
    yield started
    assert started.stop() == 0


def unseen(name: str) -> None:
    """Is told that a page looks as people see it; `scripts/console_pictures.py` draws it then."""


def build(page: Any, archive: Path, size: str, seen: Callable[[str], None] = unseen, **shares: str) -> None:
    """From the first page to the page of a dataset."""
    page.goto("/")
    seen("home")
    with loaded(page):
        page.get_by_role("link", name="Begin with a folder of pictures").click()
    with page.expect_file_chooser() as choosing:
        page.get_by_role("button", name="Choose a zip or tar").click()
    choosing.value.set_files(archive)
    page.get_by_text(re.compile("pictures in [0-9]+ classes")).first.wait_for(timeout=LONG_MS)
    page.get_by_role("button", name=size, exact=True).click()
    for title, share in shares.items():
        page.get_by_label(f"{title} %").fill(share)
    seen("new-dataset")
    page.get_by_role("button", name="Build the dataset").click()
    page.locator("#gallery").wait_for(timeout=LONG_MS)
    seen("dataset")


def train(page: Any, network: str, seen: Callable[[str], None] = unseen, **settings: str) -> None:
    """From there to the page of a run that is done."""
    with loaded(page):
        page.get_by_role("link", name="New run").click()
    page.get_by_role("radio", name=re.compile(f"^{network}")).check()
    for name, value in settings.items():
        field = page.locator(f"#f-spec-{name}")
        field.select_option(value) if name == "tune" else field.fill(value)
    seen("new-run")
    page.get_by_role("button", name="Begin the training").click()
    page.wait_for_url(re.compile("/runs/(?!new)"), timeout=LONG_MS)
    page.locator("h1 .state", has_text=re.compile("^done$")).wait_for(timeout=LONG_MS)
    seen("run")


def evaluate(page: Any, seen: Callable[[str], None] = unseen) -> float:
    """From there to the page of its evaluation and back; returns the accuracy on the test split."""
    run = page.url
    page.get_by_role("button", name="Evaluate").first.click()
    page.get_by_role("table", name="Confusion matrix").wait_for(timeout=LONG_MS)
    seen("evaluation")
    told = page.locator(".figure", has_text="Accuracy").first.locator("b").inner_text()
    page.goto(run)
    return float(told.rstrip("% "))


def look(page: Any, picture: Path, workspace: Path, seen: Callable[[str], None] = unseen) -> str:
    """From there to what a model of the run says of a picture, which the command says too."""
    with loaded(page):
        page.get_by_role("link", name="Try it").click()
    page.get_by_role("button", name=re.compile("^Export")).click()
    page.wait_for_url(re.compile("/models/.*/try$"), timeout=LONG_MS)
    page.set_input_files("#pictures", picture)
    page.get_by_text("1 picture looked at.").wait_for(timeout=LONG_MS)
    seen("try")
    said = page.locator(".answer .bars li").first.locator("bdi").inner_text()
    (known,) = Cli(workspace)("predict", page.url.split("/")[-2], picture, "--json").json
    assert said == known["scores"][0]["label"]
    return str(said)


def some_digits(folder: Path, num: int = PICTURES_A_CLASS) -> tuple[Path, Path]:
    """An archive of `num` handwritten digits a class, and the picture of a 7 that is not in it."""
    write_digits(folder / "all", lambda stage, done, total: None)
    for label in range(10):
        few = sorted((folder / "all" / str(label)).iterdir())
        (folder / "digits" / str(label)).mkdir(parents=True)
        for path in few[:num]:
            shutil.copy(path, folder / "digits" / str(label))
    archive = Path(shutil.make_archive(str(folder / "digits"), "zip", folder / "digits"))
    return archive, sorted((folder / "all" / "7").iterdir())[-1]


def test_digits(server: Server, tmp_path: Path, new_page: Callable[..., Any]) -> None:
    archive, other = some_digits(tmp_path)
    page = new_page(server)
    build(page, archive, "28", Validation="20", Test="20")
    train(page, "lenet", epochs="15", learning_rate="0.005")
    assert evaluate(page) > 75
    assert look(page, other, tmp_path / "workspace") == "7"


def test_dog_breeds(
    server: Server, tmp_path: Path, shared_data: Callable[[str], Path], new_page: Callable[..., Any]
) -> None:
    breeds = sorted(path for path in (shared_data("dogs10") / "train").iterdir() if path.is_dir())[:3]
    for breed in breeds:
        (tmp_path / "dogs" / breed.name).mkdir(parents=True)
        for path in sorted(breed.iterdir())[:24]:
            shutil.copy(path, tmp_path / "dogs" / breed.name)
    archive = Path(shutil.make_archive(str(tmp_path / "dogs"), "zip", tmp_path / "dogs"))
    page = new_page(server)
    build(page, archive, "128", Validation="20", Test="20")
    train(page, "tf_efficientnet_lite0", tune="head", epochs="8")
    assert evaluate(page) > 60
    assert look(page, sorted(breeds[0].iterdir())[-1], tmp_path / "workspace") in [breed.name for breed in breeds]
