"""A picture that nobody thought of fails alone, and is waited for by nobody."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from vizsla.errors import Busy, InvalidInput, TooLarge
from vizsla.images.preprocess import Preprocess
from vizsla.serving.answering import Seen, Service
from vizsla.serving.batcher import Batcher
from vizsla.serving.bodies import Picture
from vizsla.serving.spec import Limits, ModelSpec, ServiceSpec, VersionSpec


def to_array(data: bytes) -> np.ndarray:
    """As a decoder: some pictures are refused, and one meets a defect."""
    if data == b"bad":
        raise InvalidInput("not a picture")
    if data == b"defect":
        raise ZeroDivisionError
    return np.full((2, 2, 1), data[0], np.uint8)


def test_the_others_are_answered(tmp_path: Path) -> None:
    model = ModelSpec(name="m", versions=(VersionSpec(version="1", folder=tmp_path),))

    async def main() -> tuple[list[Seen], int]:
        service = Service(ServiceSpec(models=(model,)), tmp_path)
        batcher = Batcher(lambda pixels: pixels[:, 0, 0].astype(np.float32), max_batch=8, max_wait_s=20, max_queue=9)
        served: Any = SimpleNamespace(
            batcher=batcher, card=SimpleNamespace(preprocess=SimpleNamespace(to_array=to_array))
        )
        pictures = [Picture("", data) for data in (b"a", b"bad", b"defect", b"b")]
        found = await asyncio.wait_for(service.look(served, pictures), 10)
        waiting = batcher.num_waiting
        await batcher.close()
        await service.close()
        return found, waiting

    found, waiting = asyncio.run(main())
    assert [one.row.tolist() if one.row is not None else None for one in found] == [[97.0], None, None, [98.0]]
    assert [one.error.what for one in found if one.error] == ["not a picture", "a defect of Vizsla: ZeroDivisionError"]
    assert waiting == 0


HOW = Preprocess(width=28, height=28, channels=1, resize="squash")


def png(side: int) -> bytes:
    """A black square."""
    out = io.BytesIO()
    Image.new("L", (side, side)).save(out, "PNG")
    return out.getvalue()


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, fetch: Any = None, **limits: Any) -> AsyncIterator[tuple[Service, Any]]:
    """A service, and a model that tells the mean of a picture."""
    model = ModelSpec(name="m", versions=(VersionSpec(version="1", folder=tmp_path),))
    spec = ServiceSpec(models=(model,), limits=Limits(**limits), links=True)
    service = Service(spec, tmp_path, fetch) if fetch else Service(spec, tmp_path)
    batcher = Batcher(lambda pixels: pixels.mean((1, 2)).astype(np.float32), max_batch=8, max_wait_s=0.01, max_queue=64)
    try:
        yield service, SimpleNamespace(batcher=batcher, card=SimpleNamespace(preprocess=HOW))
    finally:
        await batcher.close()
        await service.close()


def test_a_picture_is_refused_by_the_size_in_its_header(tmp_path: Path) -> None:
    async def main() -> list[Seen]:
        async with serving(tmp_path, max_megapixels=0.5) as (service, served):
            return await service.look(served, [Picture("", png(700)), Picture("", png(800))])

    inside, beyond = asyncio.run(main())
    assert inside.error is None
    assert beyond.error is not None
    assert beyond.error.what == "0.6 megapixels, more than the limit of 0.5"


def test_large_pictures_hold_up_no_others(tmp_path: Path) -> None:
    """Decoding one of them takes as long as many requests of others."""
    large, small = png(5600), png(28)
    running, most = 0, 0

    class Slow(Preprocess):
        def to_array(self, source: bytes | Path) -> npt.NDArray[np.uint8]:
            nonlocal running, most
            if len(source) == len(large):  # type: ignore[arg-type]
                running += 1
                most = max(most, running)
                time.sleep(0.2)
                running -= 1
                return np.zeros((28, 28, 1), np.uint8)
            return super().to_array(source)

    async def main() -> tuple[int, list[Seen]]:
        async with serving(tmp_path) as (service, served):
            served.card.preprocess = Slow(**HOW.model_dump())
            hostile = [Picture("", large) for _ in range(6)]
            tasks = [asyncio.create_task(service.look(served, hostile[half::2])) for half in (0, 1)]
            await asyncio.sleep(0.05)
            asked = 0
            while not any(task.done() for task in tasks):
                (seen,) = await service.look(served, [Picture("", small)])
                assert seen.error is None
                asked += 1
            return asked, [one for task in tasks for one in await task]

    asked, seen = asyncio.run(main())
    assert asked > 20
    assert most == 1
    assert all(one.error is None for one in seen)


def test_a_request_with_many_pictures_leaves_decoders_to_others(tmp_path: Path) -> None:
    class Slow(Preprocess):
        def to_array(self, source: bytes | Path) -> npt.NDArray[np.uint8]:
            time.sleep(0.05 if len(source) > 100 else 0)  # type: ignore[arg-type]
            return np.zeros((28, 28, 1), np.uint8)

    async def main() -> float:
        async with serving(tmp_path) as (service, served):
            served.card.preprocess = Slow(**HOW.model_dump())
            num = 40 * (os.cpu_count() or 1)
            served.batcher._max_queue = num + 1
            async with asyncio.TaskGroup() as together:
                together.create_task(service.look(served, [Picture("", bytes(200)) for _ in range(num)]))
                await asyncio.sleep(0.02)
                began = time.monotonic()
                await service.look(served, [Picture("", b"x")])
                return time.monotonic() - began

    assert asyncio.run(main()) < 0.4


def test_links_take_places_when_they_are_here_and_are_few(tmp_path: Path) -> None:
    slow = asyncio.Event()
    data = png(28)

    async def fetch(link: str, write: Any, *, max_bytes: int) -> None:
        await slow.wait()
        if "none" in link:
            raise InvalidInput("no picture there")
        await write(data)

    def links(num: int) -> list[Picture]:
        return [Picture("", b"", f"http://a.b/{n}") for n in range(num)]

    async def main() -> None:
        async with serving(tmp_path, fetch) as (service, served):
            with pytest.raises(TooLarge, match="8 links"):
                await service.look(served, links(9))
            tasks = [asyncio.create_task(service.look(served, links(8))) for _ in range(4)]
            await asyncio.sleep(0.05)
            assert served.batcher.num_waiting == 0
            with pytest.raises(Busy, match="links"):
                await service.look(served, links(1))
            (seen,) = await service.look(served, [Picture("", data)])
            assert seen.error is None
            slow.set()
            answers = await asyncio.gather(*tasks)
            assert all(one.error is None for answer in answers for one in answer)
            with service.held.share() as share:
                first, second = await service.look(served, [*links(1), Picture("", b"", "http://a.b/none")], share)
                assert share.num_bytes == 0
            assert first.error is None
            assert second.error is not None
            assert service.held._bytes == 0

    asyncio.run(asyncio.wait_for(main(), 20))


def test_bytes_are_given_back_when_they_are_decoded(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (service, served):
            pictures = [Picture("", png(28)), Picture("", b"bad")]
            with service.held.share() as share:
                share.take(sum(len(one.data) for one in pictures))
                await service.look(served, pictures, share)
                assert share.num_bytes == 0
            assert [one.data for one in pictures] == [b"", b""]

    asyncio.run(main())


def test_what_is_parsed_in_a_thread_leaves_nothing_behind(tmp_path: Path) -> None:
    class Left(list[int]):
        pass

    held: list[weakref.ref[Left]] = []

    def parse(data: bytes) -> None:
        much = Left()
        held.append(weakref.ref(much))
        assert not gc.isenabled()
        try:
            raise ValueError(much)
        except ValueError:
            raise InvalidInput("no") from None

    async def main() -> None:
        async with serving(tmp_path) as (service, _):
            with pytest.raises(InvalidInput):
                await service.parse(parse, bytes(10**6))
            assert gc.isenabled()
            assert held[0]() is None
            where = [await service.parse(lambda data: threading.current_thread().name, bytes(n)) for n in (9, 10**6)]
            assert where == [threading.current_thread().name, "parse_0"]

    asyncio.run(main())
