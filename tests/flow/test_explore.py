"""Looking around by REST: networks, pictures, checkpoints, predictions, reports, the machine; and before a training."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from tests.flow.test_serve import TINY, _problem
from tests.support import Cli, Server

import vizsla
from vizsla.api import datasets, evaluations, models, runs, workspace
from vizsla.datasets.dataset import read_images
from vizsla.datasets.store import PixelStore
from vizsla.errors import Busy, WorkerDied
from vizsla.jobs import launch, queue
from vizsla.store.workspace import Workspace

pytestmark = pytest.mark.slow
OWN = """
from torch import nn
def network(num_classes, in_channels):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))
"""


@pytest.fixture(scope="module")
def client(ws: Workspace) -> Iterator[httpx.Client]:
    server = Server(ws.root)
    server.client.timeout = 300  # torch has to be loaded first, and others may be computing
    yield server.client
    assert server.stop() == 0


def _pages(client: httpx.Client, path: str, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = client.get(path, params=params | after).json()
        found += page["items"]
        if page["next"] is None:
            return found
        after = {"after": page["next"]}


def test_networks_are_listed_shown_and_drawn(client: httpx.Client, ws: Workspace) -> None:
    (ws.root / "networks").mkdir(exist_ok=True)
    (ws.root / "networks" / "mine.py").write_text(OWN)
    first = client.get("/networks", params={"limit": 4}).json()
    assert [(one["name"], one["family"]) for one in first["items"]] == [
        ("mine.py", "own"), ("lenet", "classic"), ("alexnet", "classic"), ("googlenet", "classic")
    ]  # fmt: skip
    some = _pages(client, "/networks", name="resnet1", family="resnet", limit=3)
    assert {"resnet10t", "resnet14t", "resnet18", "resnet18d", "resnet101"} <= {one["name"] for one in some}
    assert {one["family"] for one in some} == {"resnet"}
    assert {one["num_parameters"] for one in some} == {None}
    shown = client.get("/networks/resnet18").json()
    assert (shown["num_parameters"], shown["family"], shown["size"]) == (11_689_512, "resnet", [224, 224])
    assert shown["layers"][0]["kind"] == "Conv2d"
    kept = (ws.root / "cache" / "networks" / "resnet18.json").stat().st_mtime_ns
    assert client.get("/networks/resnet18").json() == shown
    assert (ws.root / "cache" / "networks" / "resnet18.json").stat().st_mtime_ns == kept
    known = {one["name"]: one["num_parameters"] for one in _pages(client, "/networks", name="resnet18")}
    assert {name for name, count in known.items() if count is not None} == {"resnet18"}
    assert client.get("/networks/mine.py", params={"width": 8, "height": 8}).json()["num_parameters"] == 4000
    drawn = client.get("/networks/lenet/drawing.svg", params={"num_classes": 10})
    assert drawn.headers["content-type"] == "image/svg+xml"
    assert "sandbox" in drawn.headers["content-security-policy"]
    assert drawn.text.startswith("<svg")
    unknown = _problem(client.get("/networks/lenett"), 404, "not-found")
    assert "Did you mean 'lenet'" in unknown["remedy"]
    _problem(client.get("/networks/..%2f..%2fetc%2fx.py"), 404, "not-found")
    _problem(client.get("/networks/other.py"), 404, "not-found")
    _problem(client.get("/networks/resnet18", params={"width": 9}), 422, "invalid-input")
    _problem(client.get("/networks", params={"after": "nothing"}), 422, "invalid-input")


def test_questions_that_take_too_long_or_are_too_many_are_refused() -> None:
    with pytest.raises(Busy, match="longer than"):
        launch.ask("vizsla.networks.worker", {"list": ""}, timeout_s=0.01)
    for _ in range(launch.ASKED_AT_MOST):
        assert launch._asking.acquire(blocking=False)
    try:
        with pytest.raises(Busy, match="are being answered"):
            launch.ask("vizsla.networks.worker", {"list": ""})
    finally:
        for _ in range(launch.ASKED_AT_MOST):
            launch._asking.release()
    with pytest.raises(WorkerDied):
        launch.ask("vizsla.no.such.worker", {})


def test_pictures_are_browsed(client: httpx.Client, ws: Workspace) -> None:
    folder = ws.folder("dataset", datasets.get(ws, "shapes").id)
    table = read_images(folder, "val").to_pylist()
    listed = _pages(client, "/datasets/shapes/pictures", split="val", limit=7)
    assert listed == table
    rings = _pages(client, "/datasets/shapes/pictures", **{"class": "ring"})
    assert len(rings) == 40
    assert {row["label"] for row in rings} == {"ring"}
    assert client.get("/datasets/shapes/pictures", params={"rejected": True}).json()["items"] == []
    answer = client.get(f"/datasets/shapes/pictures/{listed[0]['index']}")
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as image:
        pixels = np.asarray(image)
    assert np.array_equal(pixels, PixelStore.open(folder / "pixels").read([listed[0]["index"]])[0])
    _problem(client.get("/datasets/shapes/pictures/120"), 404, "not-found")
    _problem(client.get("/datasets/shapes/pictures/-1"), 422, "invalid-input")
    _problem(client.get("/datasets/shapes/pictures", params={"after": "x"}), 422, "invalid-input")
    _problem(client.get("/datasets/none/pictures"), 404, "not-found")


def test_a_training_is_looked_at_before_and_after(client: httpx.Client, ws: Workspace) -> None:
    body = {"dataset": "shapes", "spec": TINY}
    preview = client.post("/runs/preview", json=body).json()
    assert preview["summary"]["total_steps"] == len(preview["rates"]) == 3
    for chart in ("schedule", "augmented"):
        with Image.open(io.BytesIO(base64.b64decode(preview["charts"][chart]))) as image:
            assert image.format == "PNG"
    assert not list((ws.root / "cache").glob("preview-*"))
    rates = client.post("/runs/find-rate", json=body).json()
    assert rates["format"] == "vizsla.rates/1"
    assert rates["suggested"] > 0
    _problem(client.post("/runs/preview", json={"dataset": "shapes", "spec": {"net": "none"}}), 404, "not-found")
    _problem(client.post("/runs/find-rate", json={"dataset": "none"}), 404, "not-found")
    run = runs.start(ws, "shapes", runs.TrainingSpec(**TINY | {"epochs": 2}), name="seen").run
    (kept,) = client.get("/runs/seen/checkpoints").json()[-1:]
    assert (kept["step"], kept["is_last"]) == (6, True)
    assert kept["num_bytes"] > 500_000
    weights = client.get("/runs/seen/checkpoints/last/weights.safetensors")
    assert f"run-{run.id}-step-6.safetensors" in weights.headers["content-disposition"]
    held = safetensors.numpy.load(weights.content)
    assert sum(held[name].size for name in held) >= run.num_parameters
    assert client.get(f"/runs/{run.id}/checkpoints/6/weights.safetensors").content == weights.content
    _problem(client.get("/runs/seen/checkpoints/5/weights.safetensors"), 404, "not-found")
    path = runs.weights(ws, "seen", "last")
    path.rename(path.with_suffix(".aside"))  # as it goes when the training removes it at this moment
    _problem(client.get("/runs/seen/checkpoints/6/weights.safetensors"), 404, "not-found")
    path.with_suffix(".aside").rename(path)
    assert client.get("/runs/seen/checkpoints/..%2f6/weights.safetensors").status_code in (404, 422)
    network = client.get("/networks/lenet", params={"width": 32, "height": 32, "num_classes": 3}).json()
    assert run.multiply_accumulates == network["multiply_accumulates"] > 100_000
    report = evaluations.create(ws, run.id, split="val", name="seen")
    rows = _pages(client, "/evaluations/seen/predictions", limit=5)
    assert len(rows) == report.num_pictures == 24
    wrong = _pages(client, "/evaluations/seen/predictions", wrong=True)
    assert wrong == [row for row in rows if row["label"] != row["predicted"]]
    first = rows[0]["label"]
    assert len(_pages(client, "/evaluations/seen/predictions", **{"class": first})) == 8
    page = client.get("/evaluations/seen/report.html")
    assert page.text == (ws.folder("evaluation", report.id) / "report.html").read_text()
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert page.headers["x-content-type-options"] == "nosniff"


def test_runs_are_compared(client: httpx.Client, ws: Workspace) -> None:
    first, second = (
        runs.start(ws, "shapes", runs.TrainingSpec(**TINY | {"learning_rate": rate}), name=f"by {rate}").run
        for rate in (0.01, 0.02)
    )
    for name in ("before", "by 0.02"):  # the newest is shown
        report = evaluations.create(ws, second.id, split="val", name=name)
    found = client.get("/compare", params={"run": ["by 0.01", second.id, first.id]}).json()
    assert [one["run"]["id"] for one in found["runs"]] == [first.id, second.id]
    assert found["runs"][0] == client.get(f"/runs/{first.id}").json()
    assert found["same_validation"]
    assert found["differing"] == [{"name": "learning_rate", "values": [0.01, 0.02]}]
    (measured,) = found["measured"]
    assert measured["accuracies"] == [None, client.get(f"/evaluations/{report.id}").json()["headline"]["accuracy"]]
    assert (measured["split"], measured["evaluations"]) == ("val", [None, report.id])
    assert measured["checkpoints"] == [None, "3"]
    assert client.get("/compare").json()["runs"] == []
    _problem(client.get("/compare", params={"run": "none"}), 404, "not-found")
    assert client.get("/compare", params={"run": [first.id] * 7}).status_code == 422


def test_runs_on_other_pictures_are_not_taken_for_the_same(client: httpx.Client, ws: Workspace) -> None:
    """Datasets go by what they are called now: one may have been renamed, and another have got its name."""
    spec = datasets.get(ws, "shapes").spec
    one = datasets.create(ws, "pictures", spec.model_copy(update={"width": 28, "height": 28, "seed": 1}))
    first = runs.start(ws, one.id, runs.TrainingSpec(**TINY), name="on the first").run
    workspace.rename(ws, "dataset", one.id, "pictures of before")
    other = datasets.create(ws, "pictures", spec.model_copy(update={"width": 32, "height": 32, "seed": 2}))
    second = runs.start(ws, other.id, runs.TrainingSpec(**TINY), name="on the second").run
    for run in (first, second):
        evaluations.create(ws, run.id, split="val")
    found = client.get("/compare", params={"run": [first.id, second.id]}).json()
    assert not found["same_validation"]
    assert found["differing"] == [
        {"name": "dataset", "values": ["pictures of before", "pictures"]},
        {"name": "input", "values": ["28 × 28 px", "32 × 32 px"]},
    ]
    accuracies = {one["dataset"]: [accuracy is not None for accuracy in one["accuracies"]] for one in found["measured"]}
    assert accuracies == {"pictures of before": [True, False], "pictures": [False, True]}


def test_what_jobs_use_is_sampled(client: httpx.Client, ws: Workspace) -> None:
    run = runs.start(ws, "shapes", runs.TrainingSpec(**TINY | {"epochs": 5}), name="sampled").run
    model = models.export(ws, run.id, name="sampled")
    seen = []
    for thing in (datasets.get(ws, "shapes").id, run.id, model.id):
        job = ws.store.jobs.find(thing)
        samples = client.get(f"/jobs/{job.id}/usage").json()
        assert all(job.created_at <= one["at"] <= job.changed_at for one in samples)
        assert max(one["memory_bytes"] for one in samples) > 20e6
        assert {tuple(one["gpus"]) for one in samples} == {()}
        seen.append(samples)
    shown = Cli(ws.root)("jobs", "show", "sampled").out
    assert "cores" in shown
    assert "processor" in shown
    # A run that goes on: each job has its own part.
    more = runs.extend(ws, run.id, 1)
    job = ws.store.jobs.find(more.run.id)
    assert min(one["at"] for one in client.get(f"/jobs/{job.id}/usage").json()) > seen[1][-1]["at"]
    _problem(client.get("/jobs/none/usage"), 404, "not-found")


def test_nothing_begins_on_a_disk_that_is_nearly_full(ws: Workspace) -> None:
    with vizsla.open(ws.root.parent / "another") as own:
        spec = datasets.get(ws, "shapes").spec
        job = datasets.submit(own, "waits", spec)
        queue.turn(replace(own, keep_free_bytes=10**15))
        waiting = own.store.jobs.get(job.id)
        assert waiting.state == "queued"
        assert re.search(r"waits for room on the disk: [\d,]+ MB are free, and 1,000,000,000 MB are to", waiting.cause)
        assert datasets.finish(own, job).used == 120
        server = Server(own.root, "--keep-free", 100_000, "--allow", spec.source.parent)
        try:
            body = {"name": "refused", "spec": {"source": str(spec.source)}}
            _problem(server.client.post("/datasets", json=body), 507, "disk-full")
            _problem(server.client.post("/uploads", json={"name": "a.zip", "size": 1}), 507, "disk-full")
            figures = httpx.get(server.url.removesuffix("/api/v1") + "/metrics").text
        finally:
            assert server.stop() == 0
        assert float(re.findall(r"^vizsla_disk_keep_free_bytes (\S+)$", figures, re.MULTILINE)[0]) == 10**14
        assert "vizsla_disk_free_bytes " in figures
        assert "no amount of room" in Cli(own.root)("serve", "--keep-free", "-1", status=1).err


def test_the_machine_is_described_and_judged(client: httpx.Client) -> None:
    about = client.get("/machine").json()
    assert about["system"]["cores"] > 0
    assert about["disk"]["free_bytes"] > 0
    assert about["versions"]["vizsla"]
    judged = client.post("/machine/diagnose").json()
    assert {"machine", "libraries", "cpu"} <= {one["topic"] for one in judged["checks"]}
    assert judged["problems"] == sum(one["verdict"] == "problem" for one in judged["checks"])
