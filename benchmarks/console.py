"""How heavy are the pages of the console, how soon are they seen, how old is what they show, and what do many cost?

    python benchmarks/console.py --data PICTURES

PICTURES has one sub-folder a class. A workspace is filled as for `load.py`, with fewer runs; one of them goes on, as if
a worker added a step every second. A real browser (chromium) then opens each page several times, each time knowing
nothing. Reported, for each page: what came over the line without pictures (compressed, as it was sent), the time to the
first paint, and how long the server took; then, of the page of the run that goes on, how old each step is when its page
has drawn it; and what the server needs while that page is open many times.

Targets: 150 KB, 0.5 s, 1 s, and a tenth of a core for 50 pages.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import load
import psutil
from playwright.sync_api import Browser, BrowserContext, sync_playwright

import vizsla
from vizsla.api import evaluations, models, runs

ARGS = ["--no-sandbox", "--headless=new", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
SETTLE_S = 10.0
PAGES = {
    "home": "/",
    "datasets": "/datasets",
    "dataset": "/datasets/pictures",
    "new dataset": "/datasets/new",
    "runs": "/runs",
    "run": "/runs/{run}",
    "new run": "/runs/new",
    "evaluation": "/evaluations/measured",
    "model": "/models/exported",
    "try it": "/models/exported/try",
    "services": "/services",
    "jobs": "/jobs",
    "devices": "/devices",
}

# What came over the line, pictures apart, and when something was seen first.
MEASURE = """() => {
  const [page] = performance.getEntriesByType("navigation");
  const parts = performance.getEntriesByType("resource").filter((one) => one.initiatorType !== "img");
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return {
    bytes: page.encodedBodySize + parts.reduce((sum, one) => sum + one.encodedBodySize, 0),
    paint_ms: paint ? paint.startTime : null,
    server_ms: page.responseStart - page.requestStart,
  };
}"""
# Told for each event when the page has been painted after it: the next frame but one.
AGES = """() => {
  window.ages = [];
  const heed = (event) => {
    const told = JSON.parse(event.data);
    for (const one of told.items ?? []) {
      if (one.event !== "step") continue;
      requestAnimationFrame(() => requestAnimationFrame(() => window.ages.push(Date.now() - Date.parse(one.at))));
    }
  };
  const Plain = window.WebSocket;
  window.WebSocket = class extends Plain {
    constructor(...args) { super(...args); this.addEventListener("message", heed); }
  };
}"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one sub-folder of pictures a class")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--watched", type=int, default=1, help="runs that go on")
    parser.add_argument("--steps", type=int, default=50_000, help="of each of those")
    parser.add_argument("--repeats", type=int, default=3, help="of each page")
    parser.add_argument("--pages", type=int, default=50, help="open at once, of the run that goes on")
    parser.add_argument("--seconds", type=float, default=30.0, help="of what is watched")
    parser.add_argument("--beside", default="", help="what else the machine does meanwhile, for the result")
    parser.add_argument("--out", type=Path, help="default: results/console-MACHINE.json")
    return parser.parse_args()


def look(browser: Browser, base: str, path: str, repeats: int) -> dict[str, Any]:
    """A page, opened by a browser that knows nothing."""
    seen = []
    for _ in range(repeats):
        context = browser.new_context(base_url=base)
        page = context.new_page()
        answer = page.goto(path)
        assert answer is not None
        assert answer.ok, f"{path}: {answer.status}"
        page.wait_for_timeout(500)
        seen.append(page.evaluate(MEASURE))
        context.close()
    return {
        "kilobytes": round(max(one["bytes"] for one in seen) / 1000, 1),
        "paint_ms": common.middle([one["paint_ms"] for one in seen]),
        "server_ms": common.middle([one["server_ms"] for one in seen]),
    }


def ages(browser: Browser, base: str, path: str, seconds: float) -> dict[str, Any]:
    """How old each step is when the page has drawn it."""
    context = browser.new_context(base_url=base)
    page = context.new_page()
    page.add_init_script(f"({AGES})()")
    page.goto(path)
    page.wait_for_timeout(1000 * seconds)
    found = [age / 1000 for age in page.evaluate("window.ages")]
    context.close()
    assert found, "no step was told"
    return {"steps": len(found), **load.times(found)}


def many(browser: Browser, url: str, server: psutil.Process, *, num: int, seconds: float) -> dict[str, Any]:
    """What the server needs while a page is open many times."""
    before_mb = server.memory_info().rss / 1e6
    contexts: list[BrowserContext] = []
    for _ in range(num):
        contexts.append(browser.new_context())
        contexts[-1].new_page().goto(url)
    time.sleep(SETTLE_S)
    before, began = server.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after, took = server.cpu_times(), time.monotonic() - began
    grown_mb = server.memory_info().rss / 1e6 - before_mb
    for context in contexts:
        context.close()
    used = after.user + after.system - before.user - before.system
    return {"pages": num, "server_cores": round(used / took, 3), "server_memory_mb": round(grown_mb, 1)}


def measure(root: Path, run: str, options: argparse.Namespace) -> dict[str, Any]:
    """All of it, on one server."""
    with load.served(root) as serving, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGS)
        base = f"http://127.0.0.1:{serving.port}"
        path = PAGES["run"].format(run=run)
        found = {
            "pages": {name: look(browser, base, at.format(run=run), options.repeats) for name, at in PAGES.items()},
            "age": ages(browser, base, path, options.seconds),
            "many": many(browser, base + path, serving.process, num=options.pages, seconds=options.seconds),
        }
        browser.close()
        return found


def main() -> None:
    options = arguments()
    machine = common.machine()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "workspace"
        with vizsla.open(root) as ws:
            (run,) = load.fill(ws, options.data.absolute(), options)
            evaluations.create(ws, "first", split="val", name="measured")
            models.export(ws, "first", name="exported")
            stop = multiprocessing.Event()
            per_epoch = runs.get(ws, "first").run.steps_per_epoch
            going_on = ([ws.folder("run", run)], options.steps + 1, per_epoch, stop)
            worker = multiprocessing.Process(target=load.go_on, args=going_on)
            worker.start()
            try:
                found = measure(root, run, options)
            finally:
                stop.set()
                worker.join()
    settings = {name: getattr(options, name) for name in ("runs", "steps", "repeats", "seconds", "beside")}
    rows = [[name, one["kilobytes"], one["paint_ms"], one["server_ms"]] for name, one in found["pages"].items()]
    print(common.table(["page", "KB", "paint ms", "server ms"], rows))
    print(found["age"], found["many"])
    common.save({"benchmark": "console", "machine": machine, **settings, **found}, options.out, "console")


if __name__ == "__main__":
    main()
