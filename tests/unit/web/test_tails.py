"""Followed logs: so many at a time, and only for those who would be let in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

import vizsla
from vizsla import files
from vizsla.api import accounts
from vizsla.errors import Busy, DatabaseUnavailable, TooMany
from vizsla.store.workspace import Workspace
from vizsla.web import auth, steady, tails
from vizsla.web.tails import Followed, LogQuery, Thing, logged

PASSWORD = "correct horse battery"


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with vizsla.open(tmp_path / "workspace") as opened:
        yield opened


@pytest.fixture
def thing(ws: Workspace) -> Iterator[Thing]:
    """A run that is at work, as long as this lasts."""
    id = ws.store.add("run", "logged").id
    folder = ws.folder("run", id)
    folder.mkdir()
    (folder / "log.txt").write_text("one\n")
    with files.Lock(folder):
        yield Thing("run", id)


class Follower:
    """One who follows a log: what they are told, until they go."""

    def __init__(self, app: Any, name: str, secret: str = "") -> None:
        headers = [(b"authorization", f"Bearer {secret}".encode())] if secret else []
        scope = {"type": "http", "method": "GET", "path": "/log", "headers": headers, "app": app}
        scope["state"] = {"who": auth.Who(name, "admin")}
        self.request = Request(scope)
        self.told = b""
        self.begun, self.gone = asyncio.Event(), asyncio.Event()

    async def follow(self, ws: Workspace, thing: Thing) -> None:
        answer = await logged(ws, lambda: thing, self.request, LogQuery(follow=True))
        await answer(self.request.scope, self._receive, self._send)

    async def _receive(self) -> dict[str, str]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.told += message.get("body", b"")
        if self.told:
            self.begun.set()


def _app() -> Any:
    return SimpleNamespace(state=SimpleNamespace(followed=Followed(), has_accounts=False, closing=lambda: False))


@pytest.mark.parametrize("ends", ["token", "account", "disabled"])
def test_a_log_ends_with_what_proved_who_asks(
    ws: Workspace, thing: Thing, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    monkeypatch.setattr(auth, "ADMITTED_FOR_S", 0.05)
    accounts.create(ws, "ada", PASSWORD)
    accounts.create(ws, "vic", PASSWORD, role="viewer")
    secret, token = accounts.create_token(ws, "vic", "log")

    async def main() -> None:
        follower = Follower(_app(), "vic", secret)
        following = asyncio.create_task(follower.follow(ws, thing))
        await asyncio.wait_for(follower.begun.wait(), 20)
        done, _ = await asyncio.wait({following}, timeout=0.5)
        assert not done, "who may be told is told on"
        match ends:
            case "token":
                accounts.revoke(ws, "vic", token.id)
            case "account":
                accounts.delete(ws, "vic")
            case _:
                accounts.change(ws, "vic", disabled=True)
        await asyncio.wait_for(following, 20)
        assert b'"one"' in follower.told
        follower.request.app.state.followed.enter("vic")

    asyncio.run(main())


def test_a_log_outlives_a_moment_without_its_database_and_ends_when_it_is_long(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one of work that waits, of which only the database knows."""
    waiting = ws.store.jobs.add("run", "1aaaaaaaaa", "first", owner="ada", need={})
    asked = 0

    def fail(*_: Any) -> None:
        nonlocal asked
        asked += 1
        raise DatabaseUnavailable("It does not answer.")

    monkeypatch.setattr(auth, "ADMITTED_FOR_S", 0.0)
    monkeypatch.setattr(tails, "POLL_S", 0.01)
    monkeypatch.setattr(tails, "HEARTBEAT_S", 0.0)

    async def main() -> None:
        follower = Follower(_app(), "mia")
        following = asyncio.create_task(follower.follow(ws, Thing("run", waiting.thing)))
        await asyncio.wait_for(follower.begun.wait(), 20)
        monkeypatch.setattr(auth, "admit", fail)
        monkeypatch.setattr(tails, "is_live", fail)
        async with asyncio.timeout(20):
            while asked < 10:
                await asyncio.sleep(0.01)
        assert not following.done()
        monkeypatch.setattr(steady, "AWAY_FOR_S", 0.1)
        await asyncio.wait_for(following, 20)

    asyncio.run(main())


def test_so_many_are_followed_and_no_more(ws: Workspace, thing: Thing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "MAX_FOLLOWED_EACH", 2)
    monkeypatch.setattr(tails, "MAX_FOLLOWED", 3)

    async def main() -> None:
        app = _app()
        followers = [Follower(app, name) for name in ("mia", "mia", "olga")]
        following = [asyncio.create_task(one.follow(ws, thing)) for one in followers]
        for one in followers:
            await asyncio.wait_for(one.begun.wait(), 20)
        with pytest.raises(TooMany, match="You follow 2 logs"):
            await Follower(app, "mia").follow(ws, thing)
        with pytest.raises(Busy, match="3 logs are followed"):
            await Follower(app, "olga").follow(ws, thing)
        followers[0].gone.set()
        await asyncio.wait_for(following[0], 20)
        again = Follower(app, "mia")
        following.append(asyncio.create_task(again.follow(ws, thing)))
        await asyncio.wait_for(again.begun.wait(), 20)
        for one in (*followers, again):
            one.gone.set()
        await asyncio.wait_for(asyncio.gather(*following), 20)

    asyncio.run(main())
