"""The live and the large side of REST: curves, lists of many, logs, the socket, and what is asked twice."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from tests.flow.test_serve import LONG, TINY, _done, _problem, _until
from tests.support import Cli, Server
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import vizsla
from vizsla import events, files
from vizsla.api import history, jobs, logs, runs
from vizsla.errors import DatabaseUnavailable
from vizsla.store.workspace import Workspace
from vizsla.training.history import NAMES
from vizsla.web.app import create_app
from vizsla.web.schema import SeriesName

pytestmark = pytest.mark.slow

STEP = {"epoch": 1, "loss": 0.5, "learning_rate": 0.1, "elapsed_s": 1.0}


@pytest.fixture(scope="module")
def first(ws: Workspace) -> runs.RunStatus:
    """A run that was trained."""
    return runs.start(ws, "shapes", runs.TrainingSpec(**TINY), name="first")


@pytest.fixture(scope="module")
def server(ws: Workspace, first: runs.RunStatus) -> Iterator[Server]:
    started = Server(ws.root)
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def client(server: Server) -> httpx.Client:
    return server.client


@pytest.fixture
def cli(ws: Workspace) -> Cli:
    return Cli(ws.root)


def _copy(ws: Workspace, first: runs.RunStatus, name: str, **facts: Any) -> Path:
    """A run that was not trained: the folder of one that was, under another name."""
    at = events.now()
    entry = ws.store.add(
        "run", name, owner=facts.pop("owner", "somebody"), parents=[first.run.dataset.id], created_at=at
    )
    folder = ws.folder("run", entry.id)
    shutil.copytree(first.folder, folder)
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"id": entry.id, "name": name, "created_at": at} | facts))
    return folder


@pytest.fixture(scope="module")
def many(ws: Workspace, first: runs.RunStatus, server: Server) -> list[str]:
    """The names of runs, oldest first."""
    names = [f"{animal} {number}" for number, animal in enumerate(["cat", "dog", "Dog", "ant", "bee_x", "beexx"])]
    for name in names:
        folder = _copy(ws, first, name, owner="ada" if "og" in name else "bob")
        if name == "ant 3":
            with events.EventLog(folder / "events.jsonl") as log:
                log.write("failed", error={"kind": "error", "what": "x", "where": "", "remedy": ""})
    return ["first", *names]


def _names(client: httpx.Client, **wanted: Any) -> list[str]:
    """All names of a list of runs, page by page."""
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = client.get("/runs", params={"limit": 2, **wanted, **after}).raise_for_status().json()
        found += [item["run"]["name"] for item in page["items"]]
        if page["next"] is None:
            return found
        after = {"after": page["next"]}


def test_the_curves_are_the_same_everywhere(
    client: httpx.Client, ws: Workspace, first: runs.RunStatus, cli: Cli
) -> None:
    by_rest = client.get("/runs/first/history").json()
    curves = history.get(ws, "first")
    assert by_rest == cli("run", "history", "first", "--json").json
    assert {one["name"]: one["value"] for one in by_rest["series"]} == {
        one.name: one.value.tolist() for one in curves.series
    }
    told = events.read(first.folder / "events.jsonl")[0]
    losses = [event["loss"] for event in told if event["event"] == "step"]
    assert {one["name"]: one for one in by_rest["series"]}["loss"]["value"] == losses
    assert {"train_loss", "val_accuracy", "learning_rate", "memory_mb"} <= {one["name"] for one in by_rest["series"]}
    assert "loss" in cli("run", "history", "first").out
    assert SeriesName.__args__ == NAMES  # type: ignore[attr-defined]


def test_what_was_added_to_a_long_curve(client: httpx.Client, ws: Workspace, first: runs.RunStatus) -> None:
    path = _copy(ws, first, "long") / "events.jsonl"
    with events.EventLog(path) as log:
        for step in range(100, 5000):
            log.write("step", step=step, **STEP)
        whole = client.get("/runs/long/history", params={"points": 50, "series": ["loss", "learning_rate"]}).json()
        assert [one["name"] for one in whole["series"]] == ["loss", "learning_rate"]
        for one in whole["series"]:
            assert len(one["step"]) == len(one["value"]) == len(one["epoch"]) == 50
            assert one["num_points"] >= 4900
        assert whole["series"][0]["step"][-1] == 4999
        log.write("resumed", step=4000, after="lost")
        log.write("step", step=4001, **STEP)
    added = client.get("/runs/long/history", params={"since": whole["next"]}).json()
    assert added["undone_after"] == 4000
    assert {one["name"]: one["step"] for one in added["series"]} == {"loss": [4001], "learning_rate": [4001]}
    for wrong in ({"points": 2}, {"points": 10**6}, {"since": "x"}, {"series": "gain"}, {"from": 1}, {"since": 10**9}):
        found = _problem(client.get("/runs/long/history", params=wrong), 422, "invalid-input")
        assert found["where"].split(".")[0] == next(iter(wrong))
    _problem(client.get("/runs/none/history"), 404, "not-found")
    client.delete("/runs/long").raise_for_status()


def test_lists_are_filtered_and_sorted(client: httpx.Client, many: list[str]) -> None:
    assert _names(client) == many[::-1]
    assert _names(client, order="asc") == many
    assert _names(client, sort="name") == sorted(many)
    assert _names(client, sort="name", order="desc") == sorted(many)[::-1]
    assert _names(client, owner="ada", order="asc") == ["dog 1", "Dog 2"]
    assert _names(client, name="DOG", order="asc") == ["dog 1", "Dog 2"]
    assert _names(client, name="e_x") == ["bee_x 4"]
    assert _names(client, state="failed") == ["ant 3"]
    assert _names(client, state="failed", name="dog") == []
    assert _names(client, state="done", sort="name", limit=200) == sorted(set(many) - {"ant 3"})
    assert _names(client, dataset="shapes", network="lenet", order="asc") == many
    assert _names(client, network="alexnet") == []


def test_wrong_filters_are_named(client: httpx.Client, many: list[str]) -> None:
    following = client.get("/runs", params={"limit": 1}).json()["next"]
    for wrong in (
        {"state": "odd"},
        {"order": "newest"},
        {"sort": "size"},
        {"dataset": "none"},
        {"nets": "lenet"},
        {"limit": 0},
        {"after": "none"},
        {"after": following, "sort": "name"},
    ):
        found = _problem(client.get("/runs", params=wrong), 422, "invalid-input")
        assert found["where"] == next(iter(wrong)), found
    for noun, field in (("jobs", "kind"), ("models", "run"), ("evaluations", "split"), ("datasets", "sort")):
        assert _problem(client.get(f"/{noun}", params={field: "odd"}), 422, "invalid-input")["where"] == field


def test_pages_stay_right_while_things_come_and_go(
    client: httpx.Client, ws: Workspace, first: runs.RunStatus, many: list[str]
) -> None:
    for order in ("asc", "desc"):
        names = [f"page {number}" for number in range(6)]
        for name in names:
            _copy(ws, first, name)
        seen: list[str] = []
        after: dict[str, str] = {}
        for number in range(3):
            page = client.get(
                "/runs", params={"limit": 2, "sort": "name", "order": order, "name": "page", **after}
            ).json()
            seen += [item["run"]["name"] for item in page["items"]]
            after = {"after": page["next"]}
            # What was shown last goes, and something comes before it.
            client.delete(f"/runs/{seen[-1]}").raise_for_status()
            _copy(ws, first, f"page 0{number}" if order == "asc" else f"page 9{number}")
        assert seen == (names if order == "asc" else names[::-1])
        for name in _names(client, name="page"):
            client.delete(f"/runs/{name}").raise_for_status()


def test_a_list_is_as_the_files_are(client: httpx.Client, ws: Workspace, first: runs.RunStatus) -> None:
    folder = _copy(ws, first, "changing")

    def state() -> str:
        found: str = client.get("/runs", params={"limit": 1}).json()["items"][0]["progress"]["state"]
        assert client.get("/runs/changing").json()["progress"]["state"] == found
        return found

    assert state() == "done"
    with events.EventLog(folder / "events.jsonl") as log:
        log.write("resumed", step=1, after="done")
    assert state() == "lost"
    with vizsla.files.Lock(folder):
        assert state() == "running"
    assert state() == "lost"
    (folder / "run.json").rename(folder / "away.json")
    assert "changing" not in _names(client)
    (folder / "away.json").rename(folder / "run.json")
    runs.rename(ws, "changing", "changed")
    assert "changed" in _names(client)
    (folder / "run.json").write_text("{")
    assert "changed" not in _names(client)
    assert client.get("/runs/changed").status_code == 500
    client.delete("/runs/changed").raise_for_status()


def test_nobody_undoes_what_another_has_changed(client: httpx.Client, ws: Workspace, first: runs.RunStatus) -> None:
    _copy(ws, first, "edited")
    got = client.get("/runs/edited")
    tag = got.headers["etag"]
    same = client.get("/runs/edited", headers={"If-None-Match": f'"x", W/{tag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert client.get("/runs/edited", headers={"If-None-Match": '"x"'}).content == got.content
    with ThreadPoolExecutor(4) as pool:
        renamed = list(
            pool.map(
                lambda number: client.patch(
                    "/runs/" + got.json()["run"]["id"], json={"name": f"edited {number}"}, headers={"If-Match": tag}
                ),
                range(4),
            )
        )
    assert sorted(answer.status_code for answer in renamed) == [200, 412, 412, 412]
    winner = next(answer for answer in renamed if answer.status_code == 200)
    _problem(next(answer for answer in renamed if answer.status_code == 412), 412, "precondition-failed")
    path = "/runs/" + winner.json()["run"]["name"]
    assert client.get(path).headers["etag"] == winner.headers["etag"] != tag
    for stale in (tag, "W/" + winner.headers["etag"]):
        _problem(client.delete(path, headers={"If-Match": stale}), 412, "precondition-failed")
    _problem(client.delete("/datasets/shapes", headers={"If-Match": tag}), 412, "precondition-failed")
    assert client.delete(path, headers={"If-Match": winner.headers["etag"]}).status_code == 200
    for noun in ("datasets/shapes", "jobs/" + client.get("/jobs").json()["items"][0]["id"]):
        known = {"If-None-Match": client.get(f"/{noun}").headers["etag"]}
        assert client.get(f"/{noun}", headers=known).status_code == 304


def test_what_is_asked_again_is_not_done_again(client: httpx.Client) -> None:
    body = {"dataset": "shapes", "spec": LONG, "job": {"priority": -5}}
    key = {"Idempotency-Key": "once"}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.post("/runs", json=body, headers=key), range(4)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1
    assert len({answer.headers["location"] for answer in answers}) == 1
    job = answers[0].json()
    _problem(client.post("/runs", json=body | {"name": "x"}, headers=key), 422, "invalid-input")
    _problem(client.post("/evaluations", json={"subject": "first"}, headers=key), 422, "invalid-input")
    for wrong in ("", "a b", "x" * 201):
        found = _problem(client.post("/runs", json=body, headers={"Idempotency-Key": wrong}), 422, "invalid-input")
        assert found["where"] == "idempotency-key"
    client.post(f"/jobs/{job['id']}/stop").raise_for_status()
    _until(lambda: client.get(f"/jobs/{job['id']}").json()["state"] == "stopped")
    # What was refused has made nothing: it may be asked again with the same key.
    other = {"Idempotency-Key": "refused"}
    _problem(client.post("/runs", json={"dataset": "none"}, headers=other), 404, "not-found")
    again = client.post("/evaluations", json={"subject": "first", "split": "val"}, headers=other)
    _done(client, again)


def test_a_key_whose_answer_could_not_be_kept(ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, so that the database can be away at a chosen moment."""

    def away(*_: object, **options: object) -> None:
        raise DatabaseUnavailable("The database does not answer.")

    with files.Lock(tmp_path) as lock:
        app = create_app(ws, lock)
    other = TestClient(app, base_url="http://127.0.0.1/api/v1", raise_server_exceptions=False)
    body = {"dataset": "shapes", "spec": LONG, "job": {"priority": -5}}
    with monkeypatch.context() as patch:
        patch.setattr(ws.store.answers, "end", away)
        first = other.post("/runs", json=body, headers={"Idempotency-Key": "kept-in-memory"})
    again = other.post("/runs", json=body, headers={"Idempotency-Key": "kept-in-memory"})
    assert (first.status_code, again.text) == (202, first.text)
    with monkeypatch.context() as patch:
        patch.setattr(ws.store.jobs, "add_all", away)
        refused = other.post("/runs", json=body, headers={"Idempotency-Key": "away"})
    assert refused.status_code == 503
    second = other.post("/runs", json=body, headers={"Idempotency-Key": "away"})
    assert second.status_code == 202
    for answer in (second, first):
        jobs.stop(ws, answer.json()["id"], at_once=True)
    _until(lambda: not any(job.live for job in jobs.list_all(ws)))


def test_notes_have_a_tag_of_their_own(client: httpx.Client) -> None:
    before = client.get("/datasets/shapes/notes").headers["etag"]
    assert client.patch("/datasets/shapes", json={"notes": "mine"}, headers={"If-Match": before}).status_code == 200
    lost = client.patch("/datasets/shapes", json={"notes": "yours"}, headers={"If-Match": before})
    _problem(lost, 412, "precondition-failed")
    assert client.get("/datasets/shapes/notes").json() == {"notes": "mine\n"}


def test_a_log_is_followed_to_the_end_of_its_work(client: httpx.Client, ws: Workspace, cli: Cli) -> None:
    job = client.post("/runs", json={"dataset": "shapes", "spec": LONG, "name": "logged"}).json()
    folder = ws.folder("run", job["thing"])
    _until(lambda: client.get(f"/jobs/{job['id']}").json()["state"] == "running")
    with (folder / "log.txt").open("a") as log:
        log.write("first line\nä" + "ö" * 5000 + "\nlast")
    seen: list[dict[str, Any]] = []
    with client.stream("GET", f"/jobs/{job['id']}/log", params={"follow": True}) as told:
        assert told.headers["content-type"] == "application/x-ndjson"
        for line in told.iter_lines():
            seen.append(json.loads(line))
            if seen[-1]["goes_on"]:
                client.post("/runs/logged/stop").raise_for_status()
    text = "".join(one["text"] + ("" if one["goes_on"] else "\n") for one in seen)
    assert text.removesuffix("\n") == (folder / "log.txt").read_text().removesuffix("\n")
    assert all(len(one["text"].encode()) <= logs.MAX_LINE_BYTES for one in seen)
    assert _until(lambda: client.get(f"/jobs/{job['id']}").json()["state"]) == "stopped"
    half = len(seen) // 2
    rest = client.get("/runs/logged/log", params={"after": seen[half]["next"]}).text.splitlines()
    assert [json.loads(line) for line in rest] == seen[half + 1 :]
    assert cli("jobs", "log", job["id"], "--follow").out == text
    _problem(client.get("/runs/logged/log", params={"after": 10**9}), 422, "invalid-input")
    _problem(client.get("/jobs/none/log"), 404, "not-found")


def _live(server: Server, **options: Any) -> ClientConnection:
    return connect(str(server.client.base_url).replace("http", "ws") + "live", **options)


def _heard(socket: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message, which is of this kind."""
    found: dict[str, Any] = json.loads(socket.recv(timeout=120))
    assert found["is"] == kind, found
    return found


def _watch(socket: ClientConnection, what: str, **fields: str) -> dict[str, Any]:
    socket.send(json.dumps({"do": "watch", "what": what, **fields}))
    return _heard(socket, "watching")


def _hear_all(socket: ClientConnection) -> None:
    while True:
        socket.recv(timeout=120)


def test_nothing_is_missed_or_told_twice(server: Server, ws: Workspace, first: runs.RunStatus) -> None:
    """Clients come, go and come again while a run is written; each knows every event once."""
    path = _copy(ws, first, "written") / "events.jsonl"
    begin = path.stat().st_size
    seen: list[list[int]] = [[] for _ in range(4)]

    def follow(number: int) -> None:
        place = str(begin)
        while not seen[number] or seen[number][-1] < 999:
            with _live(server) as socket:
                assert _watch(socket, "run", id="written", after=place)["next"] == place
                for _ in range(number + 1):
                    told = _heard(socket, "events")
                    place = told["next"]
                    seen[number] += [event["step"] for event in told["items"]]
                    if seen[number][-1] == 999:
                        break

    with ThreadPoolExecutor(4) as pool:
        followers = [pool.submit(follow, number) for number in range(4)]
        with events.EventLog(path) as log:
            for step in range(1000):
                log.write("step", step=step, **STEP)
                time.sleep(0.002)
        for follower in followers:
            follower.result(60)
    assert seen == [list(range(1000))] * 4
    server.client.delete("/runs/written").raise_for_status()


def test_from_now_on_and_until_it_is_gone(server: Server, ws: Workspace, first: runs.RunStatus) -> None:
    folder = _copy(ws, first, "watched")
    with _live(server) as socket:
        assert _watch(socket, "run", id="watched")["next"] == str((folder / "events.jsonl").stat().st_size)
        with events.EventLog(folder / "events.jsonl") as log:
            log.write("notice", text="now")
        told = _heard(socket, "events")
        assert (told["id"], [event["text"] for event in told["items"]]) == (folder.name, ["now"])
        server.client.delete("/runs/watched").raise_for_status()
        assert _heard(socket, "gone") == {"is": "gone", "what": "run", "id": folder.name}
        for wrong, kind in (
            ("{", "invalid-input"),
            (b"{", "invalid-input"),
            ('{"do": "dance", "what": "run"}', "invalid-input"),
            ('{"do": "watch", "what": "run", "id": "watched"}', "not-found"),
            ('{"do": "watch", "what": "run", "id": "first", "after": "1"}', "invalid-input"),
            ('{"do": "watch", "what": "jobs", "after": "99999999"}', "invalid-input"),
        ):
            socket.send(wrong)
            assert _heard(socket, "problem")["kind"] == kind
        socket.send('{"do": "leave", "what": "run", "id": "first"}')
        _watch(socket, "jobs")


def test_jobs_are_watched(server: Server) -> None:
    with _live(server) as socket:
        place = _watch(socket, "jobs")["next"]
        made = server.client.post("/evaluations", json={"subject": "first", "split": "val"}).json()
        told: list[dict[str, Any]] = []
        while not told or told[-1]["state"] != "done":
            told += _heard(socket, "jobs")["items"]
    assert told[0]["state"] == "queued"
    assert {one["job"]["id"] for one in told} == {made["id"]}
    assert told[-1]["job"] == {
        k: v for k, v in server.client.get(f"/jobs/{made['id']}").json().items() if k != "history"
    }
    with _live(server) as socket:
        _watch(socket, "jobs", after=place)
        again = _heard(socket, "jobs")["items"]
    states = [change["state"] for change in server.client.get(f"/jobs/{made['id']}").json()["history"]]
    assert [one["state"] for one in again] == states == [one["state"] for one in told]


def test_sockets_of_other_sites_are_refused(server: Server) -> None:
    own = str(server.client.base_url).removesuffix("/api/v1/")
    with _live(server, origin=own):
        pass
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        with pytest.raises(InvalidStatus) as refused:
            _live(server, additional_headers=headers).close()
        assert refused.value.response.status_code == 403


def test_the_methods_of_a_path_are_all_named(client: httpx.Client) -> None:
    refused = client.put("/runs/first")
    _problem(refused, 405, "method-not-allowed")
    assert refused.headers["allow"] == "DELETE, GET, PATCH"
    assert client.put("/runs").headers["allow"] == "GET, POST"


def test_a_server_that_ends_lets_nobody_wait(ws: Workspace, tmp_path: Path) -> None:
    """Sockets are closed, logs that are followed end, and keys of a server that was killed are free."""
    with vizsla.open(tmp_path / "workspace") as own:
        shutil.copytree(
            ws.folder("dataset", ws.store.exact("shapes", "dataset").id), own.root / "datasets" / "1aaaaaaaaa"
        )
        facts = own.root / "datasets" / "1aaaaaaaaa" / "dataset.json"
        facts.write_text(json.dumps(json.loads(facts.read_text()) | {"id": "1aaaaaaaaa"}))
        vizsla.api.workspace.sweep(own)
        assert own.store.answers.begin(own.user, "left", "0" * 64) is None
        server = Server(own.root)
        job = server.client.post(
            "/runs", json={"dataset": "shapes", "spec": LONG, "name": "r"}, headers={"Idempotency-Key": "left"}
        ).json()
        _until(lambda: own.store.jobs.get(job["id"]).state == "running")
        ended = threading.Event()

        def follow() -> None:
            with server.client.stream("GET", "/runs/r/log", params={"follow": True}) as told:
                told.read()
            ended.set()

        thread = threading.Thread(target=follow)
        thread.start()
        with _live(server) as socket:
            _watch(socket, "run", id="r")
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                _hear_all(socket)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        thread.join(30)
        assert ended.is_set()
        assert server.process.wait(30) == 0
        assert time.monotonic() - began < 9, "nothing had to be torn away"
        server.stop()
        runs.stop(own, "r")
        _until(lambda: not runs.get(own, "r").progress.worker)
