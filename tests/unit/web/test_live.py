"""One reader for all who watch, and no memory for those who do not keep up."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import WebSocketDisconnect
from starlette.requests import HTTPConnection

import vizsla
from vizsla import events
from vizsla.errors import DatabaseUnavailable
from vizsla.store.workspace import Workspace
from vizsla.web import auth, live, steady
from vizsla.web.live import Live
from vizsla.web.routes import live as route
from vizsla.web.routes.live import Client


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with vizsla.open(tmp_path / "workspace") as opened:
        yield opened


class Socket(HTTPConnection):
    """A client: what it says, and what it is told, as long as it takes it."""

    def __init__(self, watching: Live, wishes: list[dict[str, Any]], *, takes: int = 10**9) -> None:
        app = SimpleNamespace(state=SimpleNamespace(live=watching, has_accounts=False))
        super().__init__(
            {
                "type": "websocket",
                "scheme": "ws",
                "server": ("127.0.0.1", 5000),
                "path": "/api/v1/live",
                "headers": [],
                "app": app,
            }
        )
        self.told: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self.gone = asyncio.Event()
        self._wishes = wishes
        self._takes = takes

    async def receive_text(self) -> str:
        if self._wishes:
            return json.dumps(self._wishes.pop(0))
        await self.gone.wait()
        raise WebSocketDisconnect(1001)

    async def send_text(self, text: str) -> None:
        if len(self.told) >= self._takes:
            await asyncio.Event().wait()
        self.told.append(json.loads(text))

    async def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def steps(self) -> list[int]:
        return [event["step"] for one in self.told if one["is"] == "events" for event in one["items"]]


def _run(ws: Workspace, name: str) -> Path:
    folder = ws.folder("run", ws.store.add("run", name).id)
    folder.mkdir()
    return folder / "events.jsonl"


async def _until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def test_many_clients_have_one_reader(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = live.EventsSource.after
    monkeypatch.setattr(live.EventsSource, "after", lambda self, place: (read.append(place), real(self, place))[1])
    path = _run(ws, "watched")

    async def main() -> None:
        watching = Live()
        async with watching.reading():
            wish = {"do": "watch", "what": "run", "id": "watched", "after": "0"}
            sockets = [Socket(watching, [dict(wish)]) for _ in range(30)]
            serving = [asyncio.create_task(Client(one, ws).serve()) for one in sockets]  # type: ignore[arg-type]
            await _until(lambda: all(one.told for one in sockets))
            assert watching.num_readers == 1
            for step in range(5):
                with events.EventLog(path) as log:
                    log.write("step", step=step)
                await _until(lambda step=step: all(one.steps() == list(range(step + 1)) for one in sockets))
            for one in sockets:
                one.gone.set()
            await asyncio.gather(*serving)
            assert watching.num_readers == 0

    asyncio.run(main())
    assert len(read) == len(set(read)) == 5, "each place was read once for all thirty"


def test_logs_are_told_line_by_line_and_a_last_line_without_an_end_when_the_work_has_ended(ws: Workspace) -> None:
    run = ws.store.add("run", "talks")
    folder = ws.folder("run", run.id)
    folder.mkdir()
    job = ws.store.jobs.add("run", run.id, "talks", owner="ada", need={})

    def printed(text: str) -> None:
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(text)

    def lines(socket: Socket) -> list[str]:
        return [line["text"] for told in socket.told if told["is"] == "lines" for line in told["items"]]

    async def main() -> None:
        watching = Live()
        async with watching.reading():
            wishes = [{"do": "watch", "what": "log", "id": id, "after": "0"} for id in ("talks", job.id)]
            late = {"do": "watch", "what": "log", "id": "talks", "after": "999"}
            sockets = [Socket(watching, [wishes[0]]), Socket(watching, [wishes[1]]), Socket(watching, [late])]
            serving = [asyncio.create_task(Client(one, ws).serve()) for one in sockets]  # type: ignore[arg-type]
            await _until(lambda: all(one.told for one in sockets))
            assert [one.told[0]["id"] for one in sockets[:2]] == [run.id, job.id], "of a run, and of a job"
            assert sockets[2].told[0]["where"] == "after", "no place to go on from"
            printed("épochs: 3\nlo")
            await _until(lambda: all(lines(one) == ["épochs: 3"] for one in sockets[:2]))
            printed("ss: 0.3\nno end")
            await _until(lambda: all(lines(one) == ["épochs: 3", "loss: 0.3"] for one in sockets[:2]))
            ws.store.jobs.change(job, "stopped", "asked")
            await _until(lambda: all(lines(one)[2:] == ["no end"] for one in sockets[:2]))
            told = [one.told[-1] for one in sockets[:2]]
            assert {one["next"] for one in told} == {str((folder / "log.txt").stat().st_size)}
            for one in sockets:
                one.gone.set()
            await asyncio.gather(*serving)

    asyncio.run(main())


def test_the_events_of_any_job_are_told(ws: Workspace) -> None:
    entry = ws.store.add("dataset", "dogs")
    folder = ws.folder("dataset", entry.id)
    folder.mkdir()
    job = ws.store.jobs.add("dataset", entry.id, "dogs", owner="ada", need={})

    async def main() -> None:
        watching = Live()
        async with watching.reading():
            socket = Socket(watching, [{"do": "watch", "what": "job", "id": name} for name in (job.id, "none")])
            serving = asyncio.create_task(Client(socket, ws).serve())  # type: ignore[arg-type]
            await _until(lambda: len(socket.told) == 2)
            assert socket.told[0] == {"is": "watching", "what": "job", "id": job.id, "next": "0"}
            assert socket.told[1]["kind"] == "not-found"
            with events.EventLog(folder / "events.jsonl") as log:
                log.write("progress", stage="read", done=3, total=9)
            await _until(lambda: len(socket.told) == 3)
            told = socket.told[2]
            assert (told["is"], told["what"], told["id"]) == ("events", "job", job.id)
            assert told["items"][0]["done"] == 3
            shutil.rmtree(folder)
            await _until(lambda: len(socket.told) == 4)
            assert socket.told[3] == {"is": "gone", "what": "job", "id": job.id}
            socket.gone.set()
            await serving

    asyncio.run(main())


def test_one_who_does_not_keep_up_is_let_go_and_the_others_are_not_held_up(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "SLOW_S", 0.3)
    monkeypatch.setattr(live, "PIECE_BYTES", 1000)
    with events.EventLog(_run(ws, "long")) as log:
        for step in range(2000):
            log.write("step", step=step)

    async def main() -> None:
        watching = Live()
        async with watching.reading():
            wish = {"do": "watch", "what": "run", "id": "long", "after": "0"}
            slow, quick = Socket(watching, [dict(wish)], takes=5), Socket(watching, [dict(wish)])
            serving = [asyncio.create_task(Client(one, ws).serve()) for one in (slow, quick)]  # type: ignore[arg-type]
            await _until(lambda: slow.closed and len(quick.steps()) == 2000)
            assert slow.closed == (1013, "too slow")
            assert quick.steps() == list(range(2000))
            quick.gone.set()
            await asyncio.gather(*serving)
            assert watching.num_readers == 0

    asyncio.run(main())


def test_who_may_not_watch_any_more_is_let_go(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "ADMITTED_FOR_S", 0.05)
    from vizsla.api import accounts

    accounts.create(ws, "ada", "correct horse battery", role="admin")

    async def main() -> None:
        watching = Live()
        socket = Socket(watching, [])
        await asyncio.wait_for(Client(socket, ws).serve(), 20)  # type: ignore[arg-type]
        assert socket.closed == (1008, "not-signed-in")

    asyncio.run(main())


class Away:
    """A database that is away while `is_away` is set, and how often it was asked then."""

    def __init__(self) -> None:
        self.is_away, self.asked = False, 0

    def check(self) -> None:
        if self.is_away:
            self.asked += 1
            raise DatabaseUnavailable("It does not answer.")


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Away:
    found = Away()
    admit, after = auth.admit, live.JobsSource.after
    monkeypatch.setattr(auth, "ADMITTED_FOR_S", 0.02)
    monkeypatch.setattr(auth, "admit", lambda *args: (found.check(), admit(*args))[1])
    monkeypatch.setattr(live.JobsSource, "after", lambda *args: (found.check(), after(*args))[1])
    return found


def test_while_the_database_is_away_a_socket_stays_and_goes_on_later(ws: Workspace, away: Away) -> None:
    async def main() -> None:
        watching = Live()
        async with watching.reading():
            socket = Socket(watching, [{"do": "watch", "what": "jobs", "after": "0"}])
            serving = asyncio.create_task(Client(socket, ws).serve())  # type: ignore[arg-type]
            await _until(lambda: socket.told)
            away.is_away = True
            ws.store.jobs.add("run", "1aaaaaaaaa", "first", owner="ada", need={})
            await _until(lambda: away.asked > 20)
            assert socket.closed is None
            away.is_away = False
            await _until(lambda: socket.told[-1]["is"] == "jobs")
            socket.gone.set()
            await serving

    asyncio.run(main())


def test_when_the_database_is_away_for_long_a_socket_ends(
    ws: Workspace, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steady, "AWAY_FOR_S", 0.1)
    away.is_away = True

    async def main() -> None:
        socket = Socket(Live(), [])
        await asyncio.wait_for(Client(socket, ws).serve(), 20)  # type: ignore[arg-type]
        assert socket.closed == (1013, "database-unavailable")

    asyncio.run(main())


def test_a_thing_that_cannot_be_read_is_told_and_left(ws: Workspace) -> None:
    _run(ws, "damaged").write_text("{\n")

    async def main() -> None:
        watching = Live()
        async with watching.reading():
            socket = Socket(watching, [{"do": "watch", "what": "run", "id": "damaged", "after": "0"}])
            serving = asyncio.create_task(Client(socket, ws).serve())  # type: ignore[arg-type]
            await _until(lambda: len(socket.told) == 2)
            assert socket.told[1]["is"] == "problem"
            assert watching.num_readers == 0
            socket.gone.set()
            await serving

    asyncio.run(main())
