"""The life of a service: workers that hang or die, something else to serve, the end; as processes."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from tests.support import Service, environment, kill_process

from vizsla import files
from vizsla.models.card import CARD, Card
from vizsla.serving.spec import SERVICE, ModelSpec, ServiceSpec, VersionSpec
from vizsla.store.workspace import Workspace

pytestmark = pytest.mark.slow
# The limits that a test cannot wait for, as an administrator cannot set them.
IMPATIENT = """
import sys
from vizsla.serving import supervisor
from vizsla.serving.__main__ import main
supervisor.SILENT_S = 2.0
supervisor.STEADY_S = 1.0
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def folder(ws: Workspace, cards: list[Card], tmp_path: Path) -> Path:
    """Both models, and a service of the first."""
    for card in cards:
        shutil.copytree(ws.folder("model", card.id), tmp_path / card.id)
    write(tmp_path, cards[0].id)
    return tmp_path


def write(folder: Path, id: str) -> None:
    versions = (VersionSpec(version=id, folder=Path(id)),)
    spec = ServiceSpec(models=(ModelSpec(name="shapes", versions=versions),))
    files.write_json(folder / SERVICE, spec.model_dump(mode="json"))


class Kept:
    """`python -m vizsla.serving` on a folder."""

    def __init__(self, folder: Path, *options: object) -> None:
        command = [sys.executable, "-c", IMPATIENT, folder / SERVICE, "--port", 0, *options]
        self.process = subprocess.Popen(
            list(map(str, command)), env=environment(folder), stderr=subprocess.PIPE, text=True
        )
        self.said = ""
        self.url = "http://127.0.0.1:" + self.read(r"port (\d+)\.")[1]

    def read(self, pattern: str) -> re.Match[str]:
        """Wait until it has said something."""
        assert self.process.stderr is not None
        while not (found := re.search(pattern, self.said)):
            line = self.process.stderr.readline()
            assert line, self.said
            self.said += line
        return found

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def version(self) -> str:
        """Which version answers; waits until one does."""
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = httpx.get(f"{self.url}/about", timeout=5)
                return str(answer.json()["models"][0]["versions"][0]["version"])
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def hangup(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        self.process.terminate()
        _, rest = self.process.communicate(timeout=60)
        self.said += rest
        return self.process.returncode


@pytest.fixture
def keep(folder: Path) -> Iterator[Callable[..., Kept]]:
    started: list[Kept] = []

    def start(*options: object) -> Kept:
        started.append(Kept(folder, *options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            assert one.stop() == 0
        one.process.stderr.close()


def test_a_worker_that_hangs_is_replaced_and_a_steady_one_at_once(keep: Callable[..., Kept], cards: list[Card]) -> None:
    service = keep()
    (worker,) = service.workers()
    worker.suspend()
    service.read("hangs: it is ended")
    service.read("Another one takes its place")
    assert service.version() == cards[0].id
    time.sleep(1.5)  # it has served for long, as this service takes it
    killed = time.monotonic()
    kill_process(service.workers()[0].pid)
    service.version()
    assert time.monotonic() - killed < 25, "the longest pause was not made"


def test_what_cannot_be_served_is_not_served_by_those_who_come_later_either(
    keep: Callable[..., Kept], folder: Path, cards: list[Card]
) -> None:
    first, second = (card.id for card in cards)
    service = keep("--workers", 2)
    model = folder / second / CARD
    card = model.read_text()
    for what in ("{ this is no service", ""):
        if what:
            (folder / SERVICE).write_text(what)
        else:
            model.write_text("{}")
            write(folder, second)
        service.said = ""
        service.hangup()
        service.read("What was served is served still")
        for worker in service.workers():
            kill_process(worker.pid)
        assert service.version() == first
    model.write_text(card)
    service.hangup()
    deadline = time.monotonic() + 30
    while service.version() != second:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for worker in service.workers():
        kill_process(worker.pid)
    assert service.version() == second, "and stays so"
    write(folder, first)  # back
    service.hangup()
    while service.version() != first:
        assert time.monotonic() < deadline + 30
        time.sleep(0.05)


def test_something_else_may_come_to_be_served_while_workers_begin(
    keep: Callable[..., Kept], folder: Path, cards: list[Card]
) -> None:
    service = keep()
    kill_process(service.workers()[0].pid)
    write(folder, cards[1].id)
    for _ in range(40):  # before, while and after the next one begins
        service.hangup()
        time.sleep(0.1)
    assert service.version() == cards[1].id
    assert service.process.poll() is None
    assert service.said.count("status -1") == 0


def test_keys_are_changed_without_a_gap(
    ws: Workspace, cards: list[Card], start: Callable[..., Service], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("k" * 20)
    service = start(ws.root, "first", "--keys", keys, TMPDIR=str(tmp_path))
    (place,) = tmp_path.glob("*/service.json")
    asked: dict[str, Any] = {"headers": {"X-API-Key": "k" * 20}}
    assert service.client.get("/about", **asked).status_code == 200
    place.write_text(place.read_text().replace(files.read_json(place)["keys"][0], "ab" * 32))
    service.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while service.client.get("/about", **asked).status_code != 401:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    place.write_text(place.read_text().replace(f'"{"ab" * 32}"', ""))
    service.process.send_signal(signal.SIGHUP)
    assert service.process.stderr is not None
    assert "comes to answer everybody only when it is begun anew" in service.process.stderr.readline()
    assert service.client.get("/about").status_code == 401


def test_at_its_end_nobody_is_left_waiting(keep: Callable[..., Kept]) -> None:
    service = keep()
    place = urlsplit(service.url)
    assert place.hostname
    assert place.port
    slow = socket.create_connection((place.hostname, place.port))
    slow.sendall(
        b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: 9\r\n\r\nabc"
    )
    time.sleep(0.5)
    service.process.terminate()
    deadline = time.monotonic() + 5
    while True:  # who comes now is told at once that nobody listens
        assert time.monotonic() < deadline
        try:
            httpx.get(service.url + "/v2/health/live", timeout=2)
        except httpx.ConnectError:
            break
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    slow.sendall(b"defghi")
    assert b"200 OK" in slow.recv(65536), "and who was being answered is answered"
    slow.close()
    assert service.process.wait(30) == 0
