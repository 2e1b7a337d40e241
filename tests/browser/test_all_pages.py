"""Every page, with names that attack it: it runs nothing of them, fits, and can be used without eyes or mouse."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support import TINY, Server, draw_shapes

import vizsla
from vizsla.api import accounts, datasets, evaluations, jobs, models, notes, predictions, runs, services, tags
from vizsla.serving.hosting import HostingSpec
from vizsla.store.rows import Kind

pytestmark = pytest.mark.slow

KINDS: tuple[Kind, ...] = ("dataset", "run", "evaluation", "model", "prediction", "service")
ROOT = Path(__file__).resolve().parents[2]
ATTACK = '"><img src=x onerror=alert(1)>'
LONG = "a name of two hundred characters that goes on and on " * 2
HOSTILE = ("<b>'\"&amp;{{ 7*7 }}", "\u202e" + "reversed", "x" * 90)
TAGS = (
    ATTACK,
    "W" * 40,
    "\u05e9\u05dc\u05d5\u05dd",
    "{{ 7*7 }}&amp;'",
    *(f"one of many, {n}".replace(",", "") for n in range(16)),
)
PATHS = (
    "/", "/datasets", "/datasets/new", "/datasets/{name}", "/runs", "/runs/new", "/runs/{name}",
    "/runs?tag=%22%3E%3Cimg+src%3Dx+onerror%3Dalert(1)%3E&tag=" + "w" * 40, "/models?tag=none",
    "/compare?run={name}&run={other}", "/evaluations", "/evaluations/{name}", "/evaluations/{name}/pictures",
    "/evaluations/{name}/pictures/{index}", "/models", "/models/{name}",
    "/models/{name}/try", "/predictions/new",
    "/predictions/{name}", "/services", "/services/new", "/services/{name}", "/jobs",
    "/devices", "/account", "/accounts", "/about",
)  # fmt: skip
PASSWORD = "correct horse battery"
# How the names of buttons begin that make, change or delete something.
CHANGES = (
    "New", "Begin", "Build", "Export", "Evaluate", "Delete", "Rename", "Stop", "Resume", "Clone", "Extend", "Save",
    "Train", "Classify", "Choose", "Import", "Take", "Start", "Go over", "Only this", "Let it", "A whole folder",
    "Preview", "Drop",
)  # fmt: skip
REFUSED = ("/accounts", "/datasets/new", "/runs/new", "/predictions/new", "/services/new")
# These show nothing that a program would ask for.
FORMS = ("/about", "/new", "/try")
# Lists whose last columns are beyond the edge of their card.
CUT_TABLES = """[...document.querySelectorAll(".card.list > table")]
  .filter((one) => one.scrollWidth > one.parentElement.clientWidth).map((one) => one.textContent.trim().slice(0, 40))"""
# What axe calls serious or worse is a defect; the rest is a matter of taste.
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which every name, label, note and file name attacks."""
    folder = tmp_path_factory.mktemp("hostile")
    pictures = draw_shapes(folder / "pictures", labels=HOSTILE, num=12)
    first = next(iter(sorted((pictures / HOSTILE[0]).iterdir())))
    first.rename(first.with_name("<script>alert(1)<.png"))
    (pictures / HOSTILE[2] / "<svg onload=alert(1)>.png").write_bytes(b"no picture")
    spec = vizsla.DatasetSpec(source=pictures, width=32, height=32, val_percent=20, test_percent=20)
    with vizsla.open(folder / "workspace") as ws:
        datasets.create(ws, ATTACK[:-1], spec)
        for name in (ATTACK, LONG[:100].strip()):
            runs.start(ws, ATTACK[:-1], TINY, name=name)
        evaluations.create(ws, ATTACK, split="test", name=ATTACK)
        models.export(ws, ATTACK, name=ATTACK)
        predictions.create(ws, ATTACK, pictures, name=ATTACK)
        service = services.start(ws, HostingSpec(models=(f"shapes={ATTACK}",), title=ATTACK), name=ATTACK)
        services.update(ws, service.id, [f"shapes={ATTACK}"])
        jobs.stop(ws, service.id)
        while jobs.live_of(ws, service.id):
            jobs.list_all(ws)
        for kind in KINDS:
            id = ws.store.all(kind)[0].id
            notes.write(ws, kind, id, f"{ATTACK}\n</textarea><script>alert(1)</script>")
            tags.write(ws, kind, id, TAGS)
        return ws.root


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script that looks for what keeps people out."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, which brings axe-core")
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / name, folder)
    subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=120)
    return (folder / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def paths(full: Path) -> list[str]:
    """Every page, of things by their ids."""
    with vizsla.open(full) as ws:
        ids = {kind: ws.store.all(kind)[0].id for kind in KINDS}
        other = ws.store.all("run")[-1].id
        index = evaluations.predictions(ws, ids["evaluation"], limit=1).rows[0]["index"]
    found = []
    for path in PATHS:
        kind = path.strip("/").partition("/")[0].removesuffix("s")
        found.append(path.format(name=ids.get(kind, ids["run"]), other=other, index=index) if "{" in path else path)
    return found


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_page_fits_and_runs_nothing_of_others(
    server: Server, new_page: Callable[..., Any], paths: list[str], width: int, scheme: str
) -> None:
    page = new_page(server, width=width, scheme=scheme)
    page.on("dialog", lambda dialog: pytest.fail("a name was run"))
    for path in paths:
        answer = page.goto(path)
        assert answer.status == 200, path
        page.wait_for_timeout(200)
        assert page.locator("h1").count() == 1, path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.locator("img[src='x']").count() == 0, path
        assert page.evaluate(CUT_TABLES) == [], path


def test_a_viewer_is_offered_nothing_that_is_refused(
    full: Path, paths: list[str], tmp_path: Path, serve: Callable[..., Server], new_page: Callable[..., Any]
) -> None:
    shutil.copytree(full, tmp_path / "workspace")
    with vizsla.open(tmp_path / "workspace") as ws:
        accounts.create(ws, "ada", PASSWORD, role="admin")
        accounts.create(ws, "vera", PASSWORD, role="viewer")
    server = serve(tmp_path / "workspace")
    page = new_page(server, expects=("Failed to load resource",))
    page.goto("/sign-in")
    page.get_by_label("Name").fill("vera")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(re.compile("[0-9]/$"))
    refused: list[str] = []

    def heed(answer: Any) -> None:
        if answer.status >= 400 and answer.request.resource_type == "fetch":
            refused.append(answer.url)

    page.on("response", heed)
    for path in paths:
        answer = page.goto(path)
        if path in REFUSED:
            assert answer.status == 403, path
            continue
        assert answer.status == 200, path
        page.wait_for_timeout(200)
        shown = page.locator("main button:visible, main a.button:visible").all_inner_texts()
        assert not {one for one in shown if one.strip().startswith(CHANGES)}, path
    assert refused == [], "pages ask for what they may have"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_people_out(
    server: Server, new_page: Callable[..., Any], paths: list[str], axe: str, scheme: str
) -> None:
    page = new_page(server, scheme=scheme)
    found = {}
    for path in paths:
        page.goto(path)
        page.wait_for_timeout(200)
        page.evaluate(axe)
        told = page.evaluate("axe.run({resultTypes: ['violations']})")
        wrong = [one for one in told["violations"] if one["impact"] in SERIOUS]
        found |= {(path, one["id"]): [node["html"][:200] for node in one["nodes"][:3]] for one in wrong}
    assert found == {}


def test_every_page_has_its_twin(server: Server, paths: list[str]) -> None:
    base = server.url.removesuffix("/api/v1")
    for path in paths:
        if path.endswith(FORMS):
            continue
        page = server.client.get(base + path, headers={"Accept": "text/html"}).text
        twin = re.search(r'<link rel="alternate" type="application/json" href="([^"]+)"', page)
        assert twin is not None, path
        answer = server.client.get(base + html.unescape(twin[1]))
        assert answer.status_code == 200, (path, twin[1])
        assert "json" in answer.headers["content-type"], (path, twin[1])
