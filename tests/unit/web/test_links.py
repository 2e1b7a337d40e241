"""Whose links are fetched when there are many."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from vizsla.errors import Busy
from vizsla.images.links import Write
from vizsla.web import links


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
