"""From a request to its answer: read, decode in threads, compute in batches, name the best classes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from starlette.requests import Request

from vizsla.errors import Busy, InvalidInput, TooSlow, VizslaError
from vizsla.images import links
from vizsla.machine import system
from vizsla.serving.batcher import Row
from vizsla.serving.bodies import Gone, Held, Picture
from vizsla.serving.metrics import Metrics, Watched
from vizsla.serving.models import Models, Served
from vizsla.serving.spec import ServiceSpec

log = logging.getLogger("vizsla.service")

Result = TypeVar("Result")
# What is fetched is in memory until it is whole.
LINKS_AT_ONCE = 4
# A pass that takes longer has hung: the service says that it is not well, and is started anew.
STUCK_S = 60.0


class Seen(NamedTuple):
    """What a model sees in a picture: a row of probabilities, or why it could not look."""

    row: Row | None
    error: VizslaError | None


class Service:
    """What all requests share."""

    def __init__(self, spec: ServiceSpec, root: Path) -> None:
        self.spec = spec
        self.metrics = Metrics()
        self.watched: dict[tuple[str, str], Watched] = {}
        self.models = Models(root, self._watch)
        self.held = Held(round(spec.limits.max_held_mb * 1e6))
        self.draining = False
        self._links = asyncio.Semaphore(LINKS_AT_ONCE)
        self._decoders = ThreadPoolExecutor(max(1, round(system.cores())), thread_name_prefix="decode")

    def _watch(self, model: str, version: str) -> Watched:
        return self.watched.setdefault((model, version), self.metrics.watch(model, version))

    async def serve(self, spec: ServiceSpec) -> None:
        """Come to serve other models, with other keys, with links or without. The rest stays as it was begun with.

        Raises:
            InvalidInput: a model is not whole; then everything stays as it was.
            Unavailable: the device is not to be had.
        """
        changed = {"models": spec.models, "keys": spec.keys, "links": spec.links}
        spec = self.spec.model_copy(update=changed)
        await self.models.load(spec)
        self.spec = spec

    async def look(self, served: Served, pictures: list[Picture]) -> list[Seen]:
        """What a model sees in pictures; one that cannot be read fails alone.

        Raises:
            Busy: too many wait already.
        """
        with served.batcher.coming(len(pictures)) as came:

            async def one(picture: Picture) -> Seen:
                try:
                    try:
                        pixels = await self._decode(served, await self._bytes(picture))
                    finally:
                        came()
                    return Seen(await served.batcher.run(pixels), None)
                except VizslaError as error:
                    return Seen(None, error)
                except Exception as error:  # whatever it is, the other pictures are none the worse
                    log.exception("A picture could not be looked at.")
                    return Seen(None, VizslaError(f"a defect of Vizsla: {type(error).__name__}"))

            return await asyncio.gather(*map(one, pictures))

    async def compute(self, served: Served, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, H, W, C), preprocessed -> float32 (n, classes).

        Raises:
            Busy: too many wait already.
            VizslaError: what the computation raised.
        """
        with served.batcher.coming(len(pixels)) as came:
            for _ in pixels:
                came()
            return np.stack(await asyncio.gather(*map(served.batcher.run, pixels)))

    async def _bytes(self, picture: Picture) -> bytes:
        """The bytes of a picture, fetched where it is a link; they count among what is held while they come."""
        if not picture.link:
            return picture.data
        data = bytearray()

        async def write(piece: bytes) -> None:
            self.held.take(len(piece))
            data.extend(piece)

        try:
            async with self._links:
                await links.fetch(picture.link, write, max_bytes=round(self.spec.limits.max_request_mb * 1e6))
            return bytes(data)
        finally:
            self.held.give_back(len(data))

    async def _decode(self, served: Served, data: bytes) -> npt.NDArray[np.uint8]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._decoders, served.card.preprocess.to_array, data)

    def require_alive(self) -> None:
        """Raise `Busy` where a pass hangs."""
        slowest = max((one.batcher.stuck_s for one in self.models.all()), default=0.0)
        if slowest > STUCK_S:
            raise Busy(f"A pass through a model has taken {slowest:.0f} s so far.", remedy="Start the service anew.")

    def require_ready(self) -> None:
        """Raise `Busy` where requests should go elsewhere."""
        self.require_alive()
        if self.draining or not self.models.all():
            raise Busy("The service is about to end." if self.draining else "The models are being loaded.")

    async def close(self) -> None:
        """Answer what is under way, and end."""
        await self.models.close()
        self._decoders.shutdown(wait=False)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result], deadline_s: float) -> Result:
    """The result of work, which is cancelled when who asked leaves or when it takes too long.

    Raises:
        Gone: they left.
        TooSlow: it took too long.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_leaving(request))
    try:
        done, _ = await asyncio.wait({working, leaving}, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        if working in done:
            return working.result()
        if leaving in done:
            raise Gone
        raise TooSlow(f"The answer took longer than {deadline_s:g} s.", remedy="Come again, or send fewer pictures.")
    finally:
        working.cancel()
        leaving.cancel()


async def _leaving(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def shape_of(served: Served) -> tuple[int, int, int]:
    """(height, width, channels) of what a model takes."""
    how = served.card.preprocess
    return how.height, how.width, how.channels


def require_shape(served: Served, pixels: npt.NDArray[np.uint8]) -> None:
    """Raise `InvalidInput` unless this is what a model takes."""
    wanted = shape_of(served)
    if pixels.ndim != 4 or pixels.shape[1:] != wanted or not len(pixels):
        raise InvalidInput(
            f"The model takes pixels of shape [n, {', '.join(map(str, wanted))}], not {list(pixels.shape)}.",
            where="inputs.shape",
        )
