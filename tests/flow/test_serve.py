"""The server: every verb by REST as by Python, errors as problems, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support import Cli, Server, draw_shapes

from vizsla import events
from vizsla.api import datasets, jobs, runs
from vizsla.store.rows import Change, Entry, Job
from vizsla.store.workspace import Workspace
from vizsla.training.run import Progress
from vizsla.web.schema import ChangeAnswer, EntryAnswer, JobAnswer, ProgressAnswer

pytestmark = pytest.mark.slow

WAIT_S = 120
TINY = {"net": "lenet", "tune": "scratch", "epochs": 1, "batch_size": 32}
LONG = TINY | {"epochs": 1000}


@pytest.fixture(scope="module")
def server(ws: Workspace) -> Iterator[Server]:
    started = Server(ws.root, "--allow", datasets.get(ws, "shapes").spec.source.parent)
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def client(server: Server) -> httpx.Client:
    return server.client


@pytest.fixture
def cli(ws: Workspace) -> Cli:
    return Cli(ws.root)


def _until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def _done(client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    """Wait for the job of a 202."""
    assert answer.status_code == 202, answer.text
    place = answer.headers["Location"].removeprefix("/api/v1")
    job = _until(lambda: (job := client.get(place).json())["state"] in ("done", "failed", "stopped", "lost") and job)
    assert job["state"] == "done", job
    found: dict[str, Any] = job
    return found


def _problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert (found["status"], found["kind"]) == (status, kind)
    assert found["detail"]
    return found


def test_the_whole_chain_by_rest(client: httpx.Client, ws: Workspace, cli: Cli) -> None:
    source = str(datasets.get(ws, "shapes").spec.source)
    spec = {"source": source, "width": 32, "height": 32, "val_percent": 20, "test_percent": 20}
    _done(client, client.post("/datasets", json={"name": "posted", "spec": spec}))
    made = _done(client, client.post("/runs", json={"dataset": "posted", "spec": TINY, "name": "posted"}))
    run = client.get("/runs/posted").json()
    assert run["run"]["id"] == made["thing"]
    assert run["progress"]["state"] == "done"
    _done(client, client.post("/evaluations", json={"subject": "posted", "split": "test", "name": "posted"}))
    _done(client, client.post("/models", json={"run": "posted", "name": "posted"}))
    # The same as by the command line, to the last field.
    for noun in ("dataset", "evaluation", "model"):
        assert client.get(f"/{noun}s/posted").json() == cli(noun, "show", "posted", "--json").json
    shown = cli("run", "show", "posted", "--json").json
    assert run == {name: shown[name] for name in run}
    assert [change["state"] for change in client.get("/jobs/" + made["id"]).json()["history"]][-1] == "done"
    refused = _problem(client.delete("/datasets/posted"), 409, "conflict")
    assert "in use by run posted" in refused["detail"]
    for noun in ("models", "evaluations", "runs", "datasets"):
        assert client.delete(f"/{noun}/posted").json()["name"] == "posted"
        _problem(client.get(f"/{noun}/posted"), 404, "not-found")


def test_lists_are_cut_into_pages(client: httpx.Client, ws: Workspace) -> None:
    spec = runs.TrainingSpec(**TINY)
    ids = [runs.start(ws, "shapes", spec, name=f"page {number}").run.id for number in range(3)]
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = client.get("/runs", params={"limit": 2, "order": "asc", **after}).json()
        seen += [item["run"]["id"] for item in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == [status.run.id for status in runs.list_all(ws)]
    assert set(ids) <= set(seen)
    newest = client.get("/runs", params={"limit": 1}).json()["items"]
    assert newest[0]["run"]["id"] == seen[-1]
    assert client.get("/runs", params={"state": "lost"}).json()["items"] == []
    _problem(client.get("/runs", params={"after": "nothing"}), 422, "invalid-input")
    _problem(client.get("/runs", params={"limit": 0}), 422, "invalid-input")
    # What a page ended with may be deleted before the next one is asked for.
    page = client.get("/runs", params={"limit": 2}).json()
    for item in page["items"]:
        assert client.delete(f"/runs/{item['run']['id']}").status_code == 200
    rest = client.get("/runs", params={"after": page["next"]}).json()["items"]
    assert [item["run"]["id"] for item in rest] == seen[-3::-1]


def test_jobs_are_listed_in_pages_too(client: httpx.Client, ws: Workspace) -> None:
    runs.start(ws, "shapes", runs.TrainingSpec(**TINY))
    seen: list[str] = []
    page = {"next": ""}
    while page["next"] is not None:
        after = {"after": page["next"]} if page["next"] else {}
        page = client.get("/jobs", params={"limit": 1, "order": "asc", **after}).json()
        seen += [job["id"] for job in page["items"]]  # type: ignore[index]
    assert seen == [job.id for job in ws.store.jobs.newest(1000)][::-1]
    ended = client.get("/jobs", params={"state": "done"}).json()["items"]
    assert {job["state"] for job in ended} == {"done"}
    assert client.get("/jobs", params={"state": "lost"}).json()["items"] == []
    _problem(client.get("/jobs", params={"after": "nothing"}), 422, "invalid-input")
    _problem(client.get("/jobs/nothing"), 404, "not-found")


def test_answers_say_all_that_there_is() -> None:
    for record, answer in ((Job, JobAnswer), (Change, ChangeAnswer), (Entry, EntryAnswer), (Progress, ProgressAnswer)):
        assert set(answer.model_fields) == set(record._fields)


def test_only_whole_names_are_meant(client: httpx.Client, ws: Workspace) -> None:
    run = runs.start(ws, "shapes", runs.TrainingSpec(**TINY), name="exp-10").run
    for beginning in ("exp-1", run.id[:-1]):
        _problem(client.delete(f"/runs/{beginning}"), 404, "not-found")
    assert client.get("/runs/exp-10").json()["run"]["id"] == run.id


def test_a_run_is_watched_stopped_resumed_and_extended(client: httpx.Client) -> None:
    job = client.post("/runs", json={"dataset": "shapes", "spec": LONG, "name": "steered"}).json()
    told: list[dict[str, Any]] = []
    after = "0"

    def trains() -> bool:
        nonlocal after
        page = client.get("/runs/steered/events", params={"after": after}).json()
        told.extend(page["items"])
        after = page["next"]
        return any(event["event"] == "step" for event in told)

    _until(trains)
    _problem(client.get("/runs/steered/events", params={"after": int(after) - 1}), 422, "invalid-input")
    assert [run["name"] for held in client.get("/devices").json() for run in held["runs"]] == ["steered"]
    assert client.post("/runs/steered/stop").status_code == 202
    _until(lambda: client.get(f"/jobs/{job['id']}").json()["state"] == "stopped")
    _problem(client.post("/runs/steered/stop"), 409, "conflict")
    resumed = client.post("/runs/steered/resume").json()
    _until(lambda: client.get("/runs/steered").json()["progress"]["state"] == "running")
    client.post(f"/jobs/{resumed['id']}/stop")
    _until(lambda: client.get(f"/jobs/{resumed['id']}").json()["state"] == "stopped")
    assert client.patch("/runs/steered", json={"name": "renamed"}).json()["run"]["name"] == "renamed"
    small = _done(client, client.post("/runs/renamed/clone", json={"spec": TINY, "name": "small"}))
    refused = client.post("/runs/small/extend", json={"epochs": 5, "device": "cuda:9"})
    _problem(refused, 409, "unavailable")
    longer = _done(client, client.post("/runs/small/extend", json={"epochs": 1}))
    assert longer["thing"] == small["thing"]
    assert client.get("/runs/small").json()["run"]["spec"]["epochs"] == 2


def test_wrong_fields_are_named(client: httpx.Client) -> None:
    wrong = _problem(client.post("/runs", json={"dataset": "shapes", "spec": {"epochs": 0}}), 422, "invalid-input")
    assert [one["field"] for one in wrong["errors"]] == ["spec.epochs"]
    unknown = _problem(client.post("/runs", json={"dataset": "shapes", "spek": {}}), 422, "invalid-input")
    assert unknown["errors"][0]["field"] == "spek"
    _problem(client.post("/runs", content=b"{", headers={"content-type": "application/json"}), 422, "invalid-input")
    _problem(client.post("/runs", json={"dataset": "none"}), 404, "not-found")
    _problem(client.post("/runs", json={"dataset": "shapes", "spec": TINY | {"device": "cuda"}}), 409, "unavailable")
    for odd in ("\ud800", "a\0b"):
        body = {"dataset": "shapes", "spec": TINY, "name": odd}
        answer = client.post("/runs", content=json.dumps(body), headers={"content-type": "application/json"})
        _problem(answer, 422, "invalid-input")
    _problem(client.post("/runs", json={"dataset": "x" * 2_000_000}), 413, "too-large")
    _problem(client.post("/models", json={"run": "shapes", "checkpoint": "²"}), 404, "not-found")
    _problem(client.get("/nothing"), 404, "not-found")
    _problem(client.put("/runs"), 405, "method-not-allowed")
    _problem(client.get("/runs/shapes"), 404, "not-found")


def test_files_are_read_only_where_it_was_allowed(client: httpx.Client, ws: Workspace, tmp_path: Path) -> None:
    there = datasets.get(ws, "shapes").spec.source
    elsewhere = draw_shapes(tmp_path / "elsewhere", num=4)
    (there.parent / "link").symlink_to(elsewhere)
    (there.parent / "loop").symlink_to(there.parent / "loop")
    refused = (
        elsewhere,
        tmp_path / "none",
        "/etc",
        there.parent / "link",
        there / "../../..",
        "relative",
        "~",
        "/a\0b",
    )
    for path in (*refused, there.parent / "loop", "~nobody-of-this-name/x"):
        for field in ("source", "val_folder", "test_folder"):
            spec = {"source": str(there), "width": 32, "height": 32} | {field: str(path)}
            found = _problem(client.post("/datasets", json={"name": "x", "spec": spec}), 422, "invalid-input")
            assert "may not read files there" in found["detail"] or "no such home" in found["detail"], (path, found)
    for weights in ("/etc/passwd", "~/x.pth", "~root/x.pth", "x.pth", "a\0b"):
        body = {"dataset": "shapes", "spec": TINY | {"tune": "full", "weights": weights}}
        found = _problem(client.post("/runs", json=body), 422, "invalid-input")
        assert (found["where"], found["detail"]) == ("spec.weights", "The server may not read files there.")


def test_pictures_of_a_list_are_read_only_where_it_was_allowed(
    client: httpx.Client, ws: Workspace, cli: Cli, tmp_path: Path
) -> None:
    there = datasets.get(ws, "shapes").spec.source
    elsewhere = draw_shapes(tmp_path / "elsewhere", num=4)
    lines = [f"{path.relative_to(there)} {path.parent.name}" for path in sorted(there.rglob("*.png"))]
    lines += [f"{path} disc" for path in elsewhere.rglob("*.png")] + ["/etc/passwd ring", "/absent ring"]
    listed = there.parent / "list.txt"
    listed.write_text("\n".join(lines))
    spec = {"source": str(listed), "picture_folder": str(there), "width": 32, "height": 32}
    _done(client, client.post("/datasets", json={"name": "listed", "spec": spec}))
    made = client.get("/datasets/listed").json()
    assert made["rejected_reasons"] == {"outside of the folders that the server may read": 12 + 2}
    # Who may read them anyway says so at the command line.
    options = ("--picture-folder", there, "--size", 32, "--json")
    free = cli("dataset", "create", "free", listed, *options).json
    assert (free["used"], free["rejected_reasons"]) == (
        made["used"] + 12,
        {"not a picture": 1, "no such file": 1},
    )
    for field in ("labels_file", "picture_folder"):
        body = {"name": "x", "spec": spec | {field: str(elsewhere)}}
        refused = _problem(client.post("/datasets", json=body), 422, "invalid-input")
        assert (refused["where"], refused["detail"]) == (f"spec.{field}", "The server may not read files there.")
    listed.write_text("")
    refused = _problem(client.post("/datasets", json={"name": "x", "spec": spec}), 422, "invalid-input")
    assert refused["detail"] == "The list is empty."


def test_pages_of_other_sites_are_refused(client: httpx.Client) -> None:
    own = str(client.base_url).removesuffix("/api/v1/")
    assert client.get("/runs", headers={"Origin": own}).status_code == 200
    _problem(client.post("/runs/x/stop", headers={"Origin": "https://evil.example"}), 403, "forbidden")
    _problem(client.get("/runs", headers={"Sec-Fetch-Site": "cross-site"}), 403, "forbidden")
    for host in ("evil.example", "["):
        _problem(client.get("/runs", headers={"Host": host}), 403, "forbidden")
    _problem(client.get("/runs", headers={"Origin": "http://["}), 403, "forbidden")


def test_health_metrics_and_the_description(client: httpx.Client, server: Server) -> None:
    root = str(client.base_url).removesuffix("/api/v1/")
    client.get("/datasets/shapes")
    assert httpx.get(f"{root}/healthz").json() == {"status": "alive"}
    assert httpx.get(f"{root}/readyz").json() == {"status": "ready"}
    figures = httpx.get(f"{root}/metrics").text
    assert re.search(r'vizsla_jobs\{state="done"\} [1-9]', figures)
    assert 'vizsla_request_seconds_count{method="GET",route="/datasets/{reference}",status="200"}' in figures
    described = client.get("/openapi.json").json()
    assert {"/api/v1/runs", "/api/v1/jobs/{id}/stop"} <= described["paths"].keys()
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    for operations in described["paths"].values():
        for operation in operations.values():
            assert operation["responses"].keys() & {"4XX", "5XX", "422"} == {"4XX", "5XX"}
            assert operation["responses"]["4XX"]["content"] == {"application/problem+json": schema}


def test_only_this_machine_is_served(cli: Cli) -> None:
    refused = cli("serve", "--host", "0.0.0.0", status=1)
    assert "there is no account to tell who may do what" in refused.err
    assert "There is no port 70000" in cli("serve", "--port", 70000, status=1).err


def test_a_second_server_is_refused(server: Server, cli: Cli) -> None:
    assert f"Process {server.process.pid} looks after this queue already" in cli("serve", "--port", 0, status=1).err


def test_training_outlives_its_server_and_the_next_one_takes_it_over(
    ws: Workspace, server: Server, tmp_path: Path
) -> None:
    """In a workspace of its own: the module's server goes on."""
    import vizsla

    with vizsla.open(tmp_path / "workspace") as own:
        datasets.create(own, "shapes", datasets.get(ws, "shapes").spec)
        first = Server(own.root)
        body = {"dataset": "shapes", "spec": TINY | {"epochs": 300, "checkpoint_every_s": 0.1}, "name": "r"}
        job = first.client.post("/runs", json=body).json()
        log = own.folder("run", job["thing"]) / "events.jsonl"
        _until(lambda: any(event["event"] == "step" for event in events.read(log)[0]))
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
        worker = runs.get(own, "r").progress.worker
        assert worker is not None, "it goes on without a server"
        os.kill(worker, signal.SIGKILL)
        second = Server(own.root)
        _until(lambda: own.store.jobs.get(job["id"]).attempt == 2)
        second.client.post("/runs/r/stop")
        _until(lambda: own.store.jobs.get(job["id"]).state == "stopped")
        assert second.stop(signal.SIGTERM) == 0
        assert jobs.keeper_of(own) is None
