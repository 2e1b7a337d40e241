"""Services of a workspace: started, asked, killed, gone over to other versions, stopped and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from tests.support import Cli, Server

import vizsla
from vizsla import events, files
from vizsla.api import datasets, jobs, models, runs, services
from vizsla.errors import Conflict, InvalidInput, NotFound, Unavailable
from vizsla.jobs import queue
from vizsla.models.card import Card
from vizsla.serving import figures
from vizsla.serving.hosting import Hosted, HostingSpec
from vizsla.store.workspace import Workspace

pytestmark = pytest.mark.slow
KEY = "a key that is long enough"


@pytest.fixture(autouse=True)
def nothing_goes_on(ws: Workspace) -> Iterator[None]:
    yield
    for one in services.list_all(ws):
        _stop(ws, one.id)
        services.delete(ws, one.id, with_pictures=True)


def _stop(ws: Workspace, reference: str) -> None:
    id = services.get(ws, reference).id
    if jobs.live_of(ws, id):
        jobs.stop(ws, id)
    _until(lambda: queue.turn(ws) or jobs.live_of(ws, id) is None)


def _until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _written(ws: Workspace, one: Hosted) -> list[object]:
    """What it serves, and what it will when it is started again."""
    folder = ws.folder("service", one.id)
    told = [json.loads((folder / name).read_text()) for name in ("hosting.json", "service.json")]
    return [told[0]["service"], told[1]["models"], told[0]["port"]]


def _ask(one: Hosted, picture: Path) -> str:
    """Which version answers."""
    answer = httpx.post(f"{one.url}predict", content=picture.read_bytes(), headers={"Content-Type": "image/png"})
    assert answer.status_code == 200, answer.text
    version: str = answer.json()["version"]
    return version


def test_it_answers_until_it_is_stopped_and_comes_back_at_its_address(
    ws: Workspace, cards: list[Card], pictures: list[Path]
) -> None:
    one = services.start(ws, HostingSpec(models=("first",)))
    assert (one.name, one.state, one.port > 0) == ("first", "running", True)
    job = jobs.get(ws, one.id).job
    assert (job.kind, job.state, job.held) == ("service", "running", ("host",))
    assert _ask(one, pictures[0]) == cards[0].id
    for refused in (lambda: services.delete(ws, "first"), lambda: models.delete(ws, "first")):
        with pytest.raises(Conflict):
            refused()
    with pytest.raises(Conflict, match="running"):
        services.resume(ws, "first")
    # It holds nothing that others need.
    assert runs.start(ws, "shapes", vizsla.TrainingSpec(net="lenet", tune="scratch", epochs=1)).progress.state == "done"
    _stop(ws, one.id)
    assert (services.get(ws, one.id).state, services.get(ws, one.id).url) == ("stopped", None)
    assert jobs.get(ws, one.id).job.state == "stopped"
    with pytest.raises(httpx.ConnectError):
        httpx.get(str(one.url))
    again = services.resume(ws, one.id)
    assert (again.id, again.url, again.state) == (one.id, one.url, "running")
    assert _ask(again, pictures[0]) == cards[0].id


def test_it_comes_back_when_it_was_killed(ws: Workspace, cards: list[Card], pictures: list[Path]) -> None:
    one = services.start(ws, HostingSpec(models=("first",), workers=2))
    killed = files.lock_holder(ws.folder("service", one.id))
    assert killed
    os.kill(killed, signal.SIGKILL)

    def is_back() -> bool:
        queue.turn(ws)
        holder = files.lock_holder(ws.folder("service", one.id))
        return holder not in (None, killed) and services.get(ws, one.id).state == "running"

    _until(is_back)
    assert services.get(ws, one.id).url == one.url
    assert _ask(one, pictures[0]) == cards[0].id
    job, history = jobs.get(ws, one.id)
    assert job.attempt == 2
    assert "attempt 2 of 101" in next(change.cause for change in reversed(history) if change.state == "queued")


def test_it_goes_over_to_other_versions_without_a_failed_request(
    ws: Workspace, cards: list[Card], pictures: list[Path]
) -> None:
    one = services.start(ws, HostingSpec(models=("shapes=first",), workers=2))
    assert [(m.name, v.name, v.share) for m in one.models for v in m.versions] == [("shapes", "first", 1.0)]
    told: list[str | Exception] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            try:
                told.append(_ask(one, pictures[0]))
            except Exception as error:
                told.append(error)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    try:
        both = services.update(ws, one.id, ["shapes=first", "shapes=the second"], share=0.5)
        assert [(v.version, v.share) for v in both.models[0].versions] == [(card.id, 0.5) for card in cards]
        _until(lambda: cards[1].id in told[-20:])
        services.update(ws, one.id, ["shapes=the second"])
        _until(lambda: len(told) > 20 and set(told[-20:]) == {cards[1].id})
        services.update(ws, one.id, ["shapes=first"])  # and back
        _until(lambda: set(told[-20:]) == {cards[0].id})
    finally:
        ended.set()
        for thread in asking:
            thread.join()
    assert set(told) == {card.id for card in cards}, "every request was answered"
    with pytest.raises(Conflict, match=r"in use by service shapes"):
        models.delete(ws, "the second")  # it may go back to that
    _stop(ws, one.id)
    services.update(ws, one.id, ["shapes=the second"])  # of one that is stopped: when it is started
    assert _ask(services.resume(ws, one.id), pictures[0]) == cards[1].id


def test_what_cannot_be_served_changes_nothing(
    ws: Workspace, cards: list[Card], pictures: list[Path], tmp_path: Path
) -> None:
    models.pack(ws, "first", tmp_path / "bad.zip")
    bad = models.bring(ws, tmp_path / "bad.zip", name="bad")
    one = services.start(ws, HostingSpec(models=("first",)))
    graph = ws.folder("model", bad.id) / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-100])
    before = _written(ws, one)
    with pytest.raises(Exception, match=r"model\.onnx|graph"):
        services.update(ws, one.id, ["bad"])
    with pytest.raises(NotFound):
        services.update(ws, one.id, ["nowhere"])
    with pytest.raises(InvalidInput, match="share"):
        services.update(ws, one.id, ["first"], share=2)
    found = services.get(ws, one.id)
    assert [v.name for m in found.models for v in m.versions] == ["first"]
    assert _ask(found, pictures[0]) == cards[0].id
    kept = events.read(ws.folder("service", one.id) / "events.jsonl", 0)[0]
    assert [event["event"] for event in kept] == ["serving", "refused"]
    with pytest.raises(InvalidInput, match="Name a model"):
        services.update(ws, one.id, [])
    assert _written(ws, one) == before


def test_what_cannot_begin_is_refused_at_once(ws: Workspace, cards: list[Card]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Conflict, match="Port"):
        services.start(ws, HostingSpec(models=("first",), port=taken.getsockname()[1]))
    for error, wanted in (
        (InvalidInput, {"host": "0.0.0.0"}),
        (InvalidInput, {"models": ("a b=first",)}),
        (InvalidInput, {"models": ("x=first", "x=first")}),
        (InvalidInput, {"share": 0.5}),
        (NotFound, {"models": ("nowhere",)}),
        (Unavailable, {"device": "cuda:7"}),
    ):
        with pytest.raises(error):
            services.start(ws, HostingSpec(**({"models": ("first",)} | wanted)))
    assert services.list_all(ws) == []


def test_two_updates_at_a_time_are_told_apart(ws: Workspace, cards: list[Card], pictures: list[Path]) -> None:
    one = services.start(ws, HostingSpec(models=("x=first",)))
    (worker,) = [child.pid for child in psutil.Process(files.lock_holder(ws.folder("service", one.id))).children()]
    os.kill(worker, signal.SIGSTOP)
    told: list[object] = []

    def update() -> None:
        try:
            told.append(services.update(ws, one.id, ["x=the second"]))
        except Exception as error:
            told.append(error)

    thread = threading.Thread(target=update)
    thread.start()
    time.sleep(0.5)
    with pytest.raises(Conflict, match="already"):
        services.update(ws, one.id, ["y=first"])
    os.kill(worker, signal.SIGCONT)
    thread.join()
    assert isinstance(told[0], Hosted), told
    assert [m.name for m in services.get(ws, one.id).models] == ["x"]
    assert _ask(one, pictures[0]) == cards[1].id


def test_one_of_which_no_worker_can_begin_ails_and_says_why(
    ws: Workspace, pictures: list[Path], tmp_path: Path
) -> None:
    models.pack(ws, "first", tmp_path / "first.zip")
    card = models.bring(ws, tmp_path / "first.zip", name="ill")
    one = services.start(ws, HostingSpec(models=("ill",)))
    graph = ws.folder("model", card.id) / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(b"no graph")
    (worker,) = psutil.Process(files.lock_holder(ws.folder("service", one.id))).children()
    worker.kill()
    _until(lambda: services.get(ws, one.id).state == "ailing")
    _until(lambda: "damaged" in (services.get(ws, one.id).error or {}).get("what", ""))
    assert "ailing" in Cli(ws.root)("service", "list").out
    assert "damaged" in "".join(Cli(ws.root)("service", "show", one.id)[1:])
    with pytest.raises(Conflict, match="ailing"):
        services.update(ws, one.id, ["first"])
    graph.write_bytes(whole)
    _until(lambda: services.get(ws, one.id).state == "running")
    assert _ask(one, pictures[0]) == card.id


def test_one_that_is_killed_again_and_again_is_started_later_each_time(
    ws: Workspace, cards: list[Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = services.start(ws, HostingSpec(models=("first",)))
    began = time.monotonic()
    for attempt in (2, 3, 4):

        def is_back(attempt: int = attempt) -> bool:
            queue.turn(ws)
            return jobs.get(ws, one.id).job.attempt == attempt and services.get(ws, one.id).state == "running"

        os.kill(files.lock_holder(ws.folder("service", one.id)) or 0, signal.SIGKILL)
        _until(is_back)
    assert time.monotonic() - began > 3, "after the first, 1 s and 2 s are waited"
    monkeypatch.setattr(queue, "STEADY_S", 0.0)  # all that it did since counts as well done
    os.kill(files.lock_holder(ws.folder("service", one.id)) or 0, signal.SIGKILL)
    _until(lambda: queue.turn(ws) or jobs.get(ws, one.id).job.attempt == 2)
    jobs.stop(ws, one.id, at_once=True)
    _until(lambda: queue.turn(ws) or jobs.live_of(ws, one.id) is None)
    assert services.get(ws, one.id).state == "stopped"


def test_a_port_that_is_taken_meanwhile_is_told_at_once(ws: Workspace, cards: list[Card]) -> None:
    one = services.start(ws, HostingSpec(models=("first",)))
    _stop(ws, one.id)
    with socket.create_server(("127.0.0.1", one.port)), pytest.raises(Conflict, match=f"Port {one.port}"):
        services.resume(ws, one.id)
    assert services.resume(ws, one.id).url == one.url


def test_names_of_models_may_hold_an_equals_sign(ws: Workspace, cards: list[Card], tmp_path: Path) -> None:
    models.pack(ws, "first", tmp_path / "first.zip")
    card = models.bring(ws, tmp_path / "first.zip", name="a=b")
    for asked, name in (("a=b", "a-b"), ("shapes=a=b", "shapes"), (f"shapes={card.id}", "shapes")):
        one = services.start(ws, HostingSpec(models=(asked,)), name=f"of {asked}")
        assert [(m.name, v.name) for m in one.models for v in m.versions] == [(name, "a=b")]


def test_one_that_cannot_load_its_model_has_failed_and_says_why(ws: Workspace, tmp_path: Path) -> None:
    models.pack(ws, "first", tmp_path / "first.zip")
    card = models.bring(ws, tmp_path / "first.zip", name="damaged")
    (ws.folder("model", card.id) / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(vizsla.errors.VizslaError):
        services.start(ws, HostingSpec(models=("damaged",)))
    (one,) = services.list_all(ws)
    assert (one.state, one.url) == ("failed", None)
    assert one.error


def test_what_it_answered_is_counted(ws: Workspace, cards: list[Card], pictures: list[Path]) -> None:
    one = services.start(ws, HostingSpec(models=("first",), workers=2))
    for picture in pictures[:7]:
        _ask(one, picture)
    httpx.post(f"{one.url}predict", content=b"no picture", headers={"Content-Type": "image/png"})
    _until(lambda: (found := services.get(ws, one.id).figures) is not None and found.requests == 8)
    found = services.get(ws, one.id).figures
    assert found
    assert (found.failed, found.in_flight) == (0, 0), "a bad picture is no failure of the service"
    assert [(v.model, v.version, v.requests) for v in found.versions] == [("first", cards[0].id, 8)]
    assert found.p50_ms is not None
    assert found.p95_ms is not None
    assert 0 < found.p50_ms <= found.p95_ms < 30_000
    assert found.per_s == pytest.approx(8 / found.seconds, rel=0.3)
    assert sum(found.recent_per_s) * figures.EVERY_S == pytest.approx(8, rel=0.3)


def test_the_same_by_commands_and_by_rest(
    ws: Workspace, cards: list[Card], pictures: list[Path], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    cli = Cli(ws.root)
    told = cli("service", "start", "first", "--port", 0, "--keys", keys, "--name", "guarded", "--json").json
    assert (told["name"], told["state"], told["num_keys"]) == ("guarded", "running", 1)
    assert KEY not in (ws.folder("service", told["id"]) / "hosting.json").read_text()
    sent = {"content": pictures[0].read_bytes(), "headers": {"Content-Type": "image/png"}}
    assert httpx.post(f"{told['url']}predict", **sent).status_code == 401
    sent["headers"]["Authorization"] = f"Bearer {KEY}"
    assert httpx.post(f"{told['url']}predict", **sent).status_code == 200
    assert "guarded" in cli("service", "list").out
    assert "who shows one of 1 keys" in cli("service", "show", "guarded").out
    server = Server(ws.root)
    client = server.client
    try:
        body = client.get("/services/guarded")
        assert body.status_code == 200
        assert "keys" not in {*body.json(), *body.json()["limits"]}
        job = client.post("/services", json={"models": ["the second"], "name": "by rest"})
        assert job.status_code == 202, job.text
        _until(lambda: client.get("/services/by%20rest").json()["state"] == "running")
        over = client.post("/services/by%20rest/models", json={"models": ["first"]})
        assert [m["name"] for m in over.json()["models"]] == ["first"], over.text
        listed = client.get("/services", params={"state": "running"}).json()["items"]
        assert {one["name"] for one in listed} == {"guarded", "by rest"}
        for status, wrong in {
            422: {"models": ["first"], "host": "0.0.0.0"},
            404: {"models": ["nowhere"]},
            409: {"models": ["first"], "name": "guarded"},
        }.items():
            assert client.post("/services", json=wrong).status_code == status, wrong
        assert client.post("/services", json={"models": ["first"], "tls_cert": "/etc/passwd"}).status_code == 422
        assert client.delete("/services/by%20rest").status_code == 409
        assert client.post(f"/jobs/{job.json()['id']}/stop").status_code == 202
        _until(lambda: client.get("/services/by%20rest").json()["state"] == "stopped")
        assert client.delete("/services/by%20rest").status_code == 200
        assert cli("service", "stop", "guarded", "--json").json["kind"] == "service"
    finally:
        assert server.stop() == 0


def test_one_whose_events_are_damaged_fails_alone(ws: Workspace, cards: list[Card]) -> None:
    one = services.start(ws, HostingSpec(models=("first",)))
    place = ws.folder("service", one.id) / "events.jsonl"
    whole = place.read_text()
    with place.open("a") as file:  # before it ends: whoever looks after the queue would start it again at once
        file.write("rubbish\n")
    os.kill(files.lock_holder(place.parent) or 0, signal.SIGKILL)
    _until(lambda: queue.turn(ws) or jobs.live_of(ws, one.id) is None)
    assert jobs.get(ws, one.id).job.state == "failed"
    place.write_text(whole)


def test_what_it_is_unsure_of_is_kept_and_becomes_a_dataset(
    ws: Workspace, cards: list[Card], pictures: list[Path], tmp_path: Path
) -> None:
    cli = Cli(ws.root)
    assert "keeps no pictures" in cli("service", "captured", services.start(ws, HostingSpec(models=("first",))).id).out
    shown = cli("service", "start", "first", "--port", 0, "--name", "keen", "--workers", 2, "--capture-below", 1).out
    assert "keen" in shown
    one = services.get(ws, "keen")
    with pytest.raises(NotFound, match="No pictures"):
        services.pack_captured(ws, "keen", tmp_path / "none.zip")
    for picture in pictures:
        _ask(one, picture)
    sent = {path.read_bytes() for path in pictures}
    _until(lambda: services.captured(ws, "keen").num_pictures == len(sent))
    told = services.captured(ws, "keen")
    assert told.num_bytes == sum(map(len, sent))
    assert "a probability below 1, for 30 days" in cli("service", "show", "keen").out
    assert f"{len(sent)} pictures" in cli("service", "captured", "keen").out
    figures_ = httpx.get(f"{one.url}metrics").text
    kept = [line for line in figures_.splitlines() if "captures_total{" in line and 'became="kept"' in line]
    assert sum(float(line.split()[-1]) for line in kept) == len(sent), "of both workers"

    packed = tmp_path / "captured.zip"
    assert "Wrote" in cli("service", "captured", "keen", "--out", packed).out
    assert cli("service", "captured", "keen", "--out", packed, status=1).err.count("There is such a file") == 1
    with zipfile.ZipFile(packed) as archive:
        assert {archive.read(name) for name in archive.namelist()} == sent
        labels = {name.partition("/")[0] for name in archive.namelist()}
    assert labels == {one.label for one in told.classes}
    # What is labelled goes into training: here all under one more class, as if somebody had moved them.
    right = Path(told.folder) / "first" / "pictures" / "something else"
    right.mkdir()
    for path in sorted(Path(told.folder).glob("first/pictures/*/*.png"))[::2]:
        path.rename(right / path.name)
    again = services.captured(ws, "keen")
    assert again.num_pictures == len(sent)
    assert "something else" in {one.label for one in again.classes}
    spec = vizsla.DatasetSpec(source=right.parent, width=32, height=32, small_classes="drop")
    made = datasets.create(ws, "labelled", spec)
    assert made.found == len(sent)
    assert "something else" in made.labels
    _stop(ws, one.id)
    assert services.captured(ws, "keen").num_pictures == len(sent), "they are there as long as the service is"
    with pytest.raises(Conflict, match=f"has kept {len(sent)} pictures"):
        services.delete(ws, "keen")
    told_why = cli("service", "delete", "keen", status=1).err
    assert f"has kept {len(sent)} pictures" in " ".join(told_why.split())
    assert "There are: first." in " ".join(
        cli("service", "captured", "keen", "--model", "none", "--out", tmp_path / "x.zip", status=1).err.split()
    )
    assert "Deleted" in cli("service", "delete", "keen", "--with-pictures").out
    refused = cli("service", "start", "first", "--port", 0, "--capture-max-mb", 5, status=1).err
    assert "would keep no pictures" in refused
