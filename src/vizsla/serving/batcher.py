"""Pictures of many requests, computed together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vizsla.errors import Busy, VizslaError

log = logging.getLogger("vizsla.service")

Pixels = npt.NDArray[np.uint8]
Row = npt.NDArray[np.float32]
Compute = Callable[[Pixels], npt.NDArray[np.float32]]


class Watch(Protocol):
    """Is told of each batch when it has been computed."""

    def batch(self, num_pictures: int, waited_s: list[float], seconds: float) -> None:
        """A batch: how many pictures, how long each of them waited, how long it took."""


@dataclass(frozen=True, eq=False, slots=True)
class _Waiting:
    pixels: Pixels
    row: asyncio.Future[Row]
    since: float


class Batcher:
    """Puts pictures that come at about the same time into one pass through a network.

    A pass begins as soon as no further picture is on its way, at the latest when the oldest has waited `max_wait_s` or
    `max_batch` are there. While passes are computed, the next gathers: under load batches grow by themselves.
    """

    def __init__(
        self,
        compute: Compute,
        *,
        max_batch: int,
        max_wait_s: float,
        max_queue: int,
        passes: int = 1,
        watch: Watch | None = None,
    ) -> None:
        """Begin with nothing to do.

        Args:
            compute: uint8 (n, H, W, C) -> float32 (n, classes), in threads of its own.
            max_batch: pictures in a pass, at most.
            max_wait_s: how long a picture waits for others, at most.
            max_queue: pictures that may wait; more are refused.
            passes: that are computed at once, at most.
        """
        self._compute, self._watch = compute, watch
        self._max_batch, self._max_wait_s, self._max_queue = max_batch, max_wait_s, max_queue
        self._waiting: deque[_Waiting] = deque()
        self._coming = 0
        self._changed = asyncio.Event()
        self._threads = ThreadPoolExecutor(passes, thread_name_prefix="compute")
        self._began: dict[int, float] = {}
        """when each of the passes that are being computed began"""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._work(number)) for number in range(passes)]

    @property
    def stuck_s(self) -> float:
        """How long the longest pass that is being computed has taken; 0: none is; for ever: there will be no more."""
        if any(task.done() for task in self._tasks):
            return math.inf
        return time.monotonic() - min(began) if (began := list(self._began.values())) else 0.0

    @property
    def num_waiting(self) -> int:
        """Pictures that wait for a pass, and those on their way."""
        return len(self._waiting) + self._coming

    @contextlib.contextmanager
    def coming(self, num_pictures: int = 1) -> Iterator[Callable[[], None]]:
        """Around the decoding of pictures: those that wait already wait for these too. Yields what says that one came.

        Raises:
            Busy: as many wait as may.
        """
        if self.num_waiting + num_pictures > self._max_queue:
            raise Busy("Too many pictures are waiting.", remedy="Come again in a moment, or add workers.")
        left = num_pictures
        self._coming += num_pictures

        def came() -> None:
            nonlocal left
            if left:  # not after the end, when none of them is waited for any more
                left -= 1
                self._coming -= 1
                self._changed.set()

        try:
            yield came
        finally:
            while left:
                came()

    async def run(self, pixels: Pixels) -> Row:
        """uint8 (H, W, C) -> float32 (classes). Who is cancelled meanwhile leaves the batch.

        Raises:
            VizslaError: what the computation of this very picture raised.
        """
        row: asyncio.Future[Row] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(pixels, row, time.monotonic())
        self._waiting.append(waiting)
        self._changed.set()
        try:
            return await row
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):  # it is being computed
                self._waiting.remove(waiting)
            raise

    async def close(self) -> None:
        """Compute what waits, then end."""
        while self._waiting or self._began:
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()  # who has ended does not hang; and they hold what they were doing, which holds the model
        self._threads.shutdown(wait=False)

    async def _work(self, number: int) -> None:
        """Compute a pass after the other."""
        loop = asyncio.get_running_loop()
        while True:
            await self._gather()
            batch = self._take()
            if not batch:
                continue
            began = self._began[number] = time.monotonic()
            try:
                rows = await loop.run_in_executor(self._threads, self._pass, number, [one.pixels for one in batch])
            finally:
                del self._began[number]
            for one, row in zip(batch, rows, strict=True):
                if one.row.done():  # nobody waits for it any more
                    continue
                if isinstance(row, BaseException):
                    one.row.set_exception(row)
                else:
                    one.row.set_result(row)
            if self._watch is not None:
                took = time.monotonic() - began
                self._watch.batch(len(batch), [began - one.since for one in batch], took)

    async def _gather(self) -> None:
        """Wait until a pass should begin."""
        while not self._waiting or (self._coming and len(self._waiting) < self._max_batch):
            patience = None
            if self._waiting:
                patience = self._waiting[0].since + self._max_wait_s - time.monotonic()
                if patience <= 0:
                    return
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._changed.wait()

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._max_batch:
            one = self._waiting.popleft()
            if not one.row.done():
                batch.append(one)
        return batch

    def _pass(self, number: int, pictures: list[Pixels]) -> list[Row | BaseException]:
        """A row for each picture, or what it raised. Where a pass fails, each picture is computed alone."""
        self._began[number] = time.monotonic()
        try:
            rows = list(self._compute(np.stack(pictures)))
            if len(rows) != len(pictures):
                raise ValueError(f"{len(rows)} rows for {len(pictures)} pictures")
            return rows
        except VizslaError as error:
            failed: VizslaError = error
        except Exception as error:
            log.exception("A pass through a model failed.")
            failed = VizslaError(f"The model could not compute this: {type(error).__name__}.")
        return [failed] if len(pictures) == 1 else [row for one in pictures for row in self._pass(number, [one])]
