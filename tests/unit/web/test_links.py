"""Whose links are fetched when there are many."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack
from typing import Any

import pytest

from vizsla.errors import Busy
from vizsla.images.links import Write
from vizsla.web import links, logs


class Host:
    """Answers no link that is slow, until it is told to go on."""

    def __init__(self) -> None:
        self.going_on = asyncio.Event()
        self.asked = 0

    async def fetch(self, link: str, write: Write, *, max_bytes: int) -> None:
        self.asked += 1
        if "slow" in link:
            await self.going_on.wait()
        await write(b"picture")


async def bring(fetching: links.Links, asked: list[str], account: str) -> list[Any]:
    async with AsyncExitStack() as closing:
        return list(await fetching.bring(asked, closing, account=account, max_each=100, max_bytes=1000))


async def turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def test_the_slow_links_of_one_account_leave_places_to_others() -> None:
    async def main() -> None:
        host = Host()
        fetching = links.Links(host.fetch)
        slow = [asyncio.create_task(bring(fetching, ["slow"] * links.MAX_LINKS, "mia")) for _ in range(3)]
        await turns()
        assert host.asked == links.AT_ONCE_EACH < links.AT_ONCE
        async with asyncio.timeout(5):
            found = await bring(fetching, ["a"] * links.MAX_LINKS, "ada")
        assert not any(isinstance(one, links.Unfetched) for one in found)
        host.going_on.set()
        assert [len(one) for one in await asyncio.gather(*slow)] == [links.MAX_LINKS] * 3

    asyncio.run(main())


def test_so_many_requests_are_let_in() -> None:
    async def main() -> None:
        host = Host()
        fetching = links.Links(host.fetch)
        slow = [asyncio.create_task(bring(fetching, ["slow"], "mia")) for _ in range(links.LINE_EACH)]
        await turns()
        with pytest.raises(Busy):
            await bring(fetching, ["a"], "mia")
        slow += [asyncio.create_task(bring(fetching, ["slow"], f"m{n}")) for n in range(links.LINE - links.LINE_EACH)]
        await turns()
        with pytest.raises(Busy):
            await bring(fetching, ["a"], "ada")
        host.going_on.set()
        await asyncio.gather(*slow)
        for account in ("mia", "ada"):
            assert len(await bring(fetching, ["a"], account)) == 1

    asyncio.run(main())


def test_the_log_says_who_had_which_hosts_asked(caplog: pytest.LogCaptureFixture) -> None:
    asked = [
        "https://B.example/private.png?token=secret",
        "https://ada:secret@a.example:443/",
        "https://b.example/",
        "http://[",
        "secret",
        "http://" + "c" * 1000 + "/",
        "http://d.example\n/",
    ]
    with caplog.at_level(logging.INFO, logger="vizsla.web.links"):
        asyncio.run(bring(links.Links(Host().fetch), asked, "mia"))
        refused = links.Links(Host().fetch)
        asyncio.run(bring_too_much(refused))
    first, second = caplog.records
    line = json.loads(logs.JsonLines().format(first))
    hosts = ["", "a.example", "b.example", "c" * links.MAX_HOST, "d.example"]
    assert (line["level"], line["account"], line["hosts"]) == ("info", "mia", hosts)
    assert (line["links"], line["failed"]) == (7, 0)
    assert json.loads(logs.JsonLines().format(second))["failed"] == 1
    assert "secret" not in caplog.text
    assert "private" not in caplog.text


async def bring_too_much(fetching: links.Links) -> None:
    async with AsyncExitStack() as closing:
        await fetching.bring(["http://a.example/"], closing, account="", max_each=100, max_bytes=1)
