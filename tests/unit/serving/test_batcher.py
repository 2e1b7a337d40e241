"""Pictures of many requests in one pass: together when they come together, alone when one is bad, never without end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from vizsla.errors import Busy, InvalidInput, VizslaError
from vizsla.serving.batcher import Batcher, Pixels


def picture(value: int) -> Pixels:
    return np.full((2, 2, 1), value, np.uint8)


class Sums:
    """A network whose answer is known, and which remembers the sizes of its passes."""

    def __init__(self, bad: int | None = None) -> None:
        self.passes: list[int] = []
        self.bad = bad
        self.go = threading.Event()
        self.go.set()

    def __call__(self, pixels: Pixels) -> np.ndarray:
        self.passes.append(len(pixels))
        assert self.go.wait(20)
        if self.bad is not None and (pixels == self.bad).any():
            raise InvalidInput("bad")
        return pixels.reshape(len(pixels), -1).sum(axis=1, keepdims=True).astype(np.float32)


def with_batcher(compute: Sums, work: Callable[[Batcher], Awaitable[None]], **limits: float) -> None:
    async def main() -> None:
        knobs = {"max_batch": 8, "max_wait_s": 5.0, "max_queue": 100} | limits
        batcher = Batcher(compute, **knobs)  # type: ignore[arg-type]
        await asyncio.wait_for(work(batcher), 30)
        await asyncio.wait_for(batcher.close(), 10)

    asyncio.run(main())


async def ask(batcher: Batcher, value: int, after: asyncio.Event | None = None) -> float:
    with batcher.coming() as came:
        if after is not None:
            await after.wait()
        came()
        return float((await batcher.run(picture(value)))[0])


def test_what_comes_together_is_computed_together_and_nothing_waits_for_nobody() -> None:
    compute = Sums()

    async def work(batcher: Batcher) -> None:
        assert await ask(batcher, 1) == 4  # at once: no other is on its way
        late = asyncio.Event()
        asked = [asyncio.create_task(ask(batcher, n, late if n == 5 else None)) for n in range(6)]
        await asyncio.sleep(0.1)
        assert compute.passes == [1], "the others wait for the one that is on its way"
        late.set()
        assert await asyncio.gather(*asked) == [0, 4, 8, 12, 16, 20]
        assert compute.passes == [1, 6]

    with_batcher(compute, work)


def test_a_pass_holds_so_many_and_waits_so_long() -> None:
    compute = Sums()

    async def work(batcher: Batcher) -> None:
        never = asyncio.Event()
        slow = asyncio.create_task(ask(batcher, 9, never))
        await asyncio.sleep(0)
        asked = [asyncio.create_task(ask(batcher, n)) for n in range(5)]
        await asyncio.gather(*asked)
        assert compute.passes == [4, 1], "a full pass begins at once, the rest when it has waited long enough"
        never.set()
        await slow

    with_batcher(compute, work, max_batch=4, max_wait_s=0.05)


def test_one_that_cannot_be_computed_fails_alone() -> None:
    compute = Sums(bad=3)

    async def work(batcher: Batcher) -> None:
        found = await asyncio.gather(*(ask(batcher, n) for n in range(6)), return_exceptions=True)
        assert isinstance(found.pop(3), InvalidInput)
        assert found == [0, 4, 8, 16, 20]

    with_batcher(compute, work)


def test_a_defect_is_told_as_an_error_and_the_next_pass_goes_on() -> None:
    def compute(pixels: Pixels) -> np.ndarray:
        return 1 / 0 if (pixels == 7).any() else np.ones((len(pixels), 1), np.float32)  # type: ignore[return-value]

    async def main() -> None:
        batcher = Batcher(compute, max_batch=8, max_wait_s=1, max_queue=10)
        with pytest.raises(VizslaError, match="ZeroDivisionError"):
            await batcher.run(picture(7))
        assert (await batcher.run(picture(1)))[0] == 1
        await batcher.close()

    asyncio.run(main())


def test_who_leaves_is_not_computed() -> None:
    compute = Sums()

    async def work(batcher: Batcher) -> None:
        compute.go.clear()
        first = asyncio.create_task(ask(batcher, 1))
        while not compute.passes:
            await asyncio.sleep(0.01)
        leaving, staying = (asyncio.create_task(ask(batcher, n)) for n in (2, 3))
        await asyncio.sleep(0.05)
        assert batcher.num_waiting == 2
        assert batcher.stuck_s > 0
        leaving.cancel()
        compute.go.set()
        assert await first == 4
        assert await staying == 12
        assert compute.passes == [1, 1]
        assert batcher.stuck_s == 0

    with_batcher(compute, work)


def test_the_queue_has_an_end_and_room_again_when_some_have_left() -> None:
    compute = Sums()

    async def work(batcher: Batcher) -> None:
        compute.go.clear()
        first = asyncio.create_task(ask(batcher, 1))
        while not compute.passes:
            await asyncio.sleep(0.01)
        asked = [asyncio.create_task(ask(batcher, n)) for n in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Busy), batcher.coming():
            pass
        with pytest.raises(Busy), batcher.coming(4):
            pass
        asked.pop().cancel()
        await asyncio.sleep(0.01)
        with batcher.coming():
            assert batcher.num_waiting == 3
        compute.go.set()
        await asyncio.gather(first, *asked)
        with batcher.coming(3):
            assert batcher.num_waiting == 3
        assert batcher.num_waiting == 0, "who did not come after all is not waited for"

    with_batcher(compute, work, max_queue=3)


def test_what_waits_is_answered_before_the_end() -> None:
    compute = Sums()

    async def main() -> None:
        batcher = Batcher(compute, max_batch=1, max_wait_s=1, max_queue=10)
        asked = [asyncio.create_task(batcher.run(picture(n))) for n in range(5)]
        await asyncio.sleep(0)
        await batcher.close()
        assert [float((await one)[0]) for one in asked] == [0, 4, 8, 12, 16]

    asyncio.run(main())


def test_a_network_that_forgets_pictures_fails_alone_too() -> None:
    """A graph whose batch was frozen answers one row, however many it is given."""

    async def main() -> None:
        batcher = Batcher(lambda pixels: np.ones((1, 2), np.float32), max_batch=8, max_wait_s=1, max_queue=10)
        found = await asyncio.gather(*(batcher.run(picture(n)) for n in range(3)))
        assert [one.shape for one in found] == [(2,)] * 3
        await batcher.close()

    asyncio.run(main())


def test_what_comes_too_late_is_counted_once() -> None:
    async def work(batcher: Batcher) -> None:
        with batcher.coming(2) as came:
            came()
            assert batcher.num_waiting == 1
        came()
        assert batcher.num_waiting == 0
        assert await ask(batcher, 1) == 4

    with_batcher(Sums(), work)


def test_two_passes_are_computed_at_once_and_neither_waits_for_the_other() -> None:
    compute = Sums()
    slow = threading.Event()

    def either(pixels: Pixels) -> np.ndarray:
        if (pixels == 1).any():
            compute.passes.append(len(pixels))
            assert slow.wait(20)
            return np.zeros((len(pixels), 1), np.float32)
        return compute(pixels)

    async def main() -> None:
        batcher = Batcher(either, max_batch=2, max_wait_s=1, max_queue=20, passes=2)
        held = asyncio.create_task(ask(batcher, 1))
        while not compute.passes:
            await asyncio.sleep(0.01)
        assert sorted([await ask(batcher, n) for n in range(2, 7)]) == [8, 12, 16, 20, 24]
        await asyncio.sleep(0.1)
        assert not held.done()
        assert batcher.stuck_s > 0.1, "of the one that takes longest, though others came and went"
        asked = [asyncio.create_task(ask(batcher, n)) for n in range(2, 6)]
        assert await asyncio.gather(*asked) == [8, 12, 16, 20]
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.05)
        assert not closing.done(), "what is computed is answered before the end"
        slow.set()
        await closing
        assert await held == 0
        assert batcher.stuck_s == 0, "it has ended, and does not hang"

    asyncio.run(main())


def test_under_load_as_many_are_computed_at_once_as_may() -> None:
    compute = Sums()
    compute.go.clear()

    async def main() -> None:
        batcher = Batcher(compute, max_batch=4, max_wait_s=1, max_queue=50, passes=2)
        asked = [asyncio.create_task(batcher.run(picture(n))) for n in range(20)]
        await asyncio.sleep(0.2)
        assert compute.passes == [4, 4]
        compute.go.set()
        assert [float((await one)[0]) for one in asked] == [4 * n for n in range(20)]
        assert compute.passes == [4] * 5
        await batcher.close()

    asyncio.run(main())
