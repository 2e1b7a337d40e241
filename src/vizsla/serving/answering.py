"""From a request to its answer: read, decode in threads, compute in batches, name the best classes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from starlette.requests import Request

from vizsla.errors import Busy, InvalidInput, TooLarge, TooSlow, VizslaError
from vizsla.images import links
from vizsla.images.decode import LARGE_PIXELS, num_pixels
from vizsla.images.preprocess import Preprocess
from vizsla.machine import system
from vizsla.serving.batcher import Pixels, Row
from vizsla.serving.bodies import Gone, Held, Picture, Share
from vizsla.serving.capture import TOP, Capture, Taken
from vizsla.serving.metrics import Metrics, Watched
from vizsla.serving.models import Models, Served
from vizsla.serving.spec import ServiceSpec

log = logging.getLogger("vizsla.service")

Result = TypeVar("Result")
# What is fetched is in memory until it is whole. Those of a request, and those that all requests wait for.
LINKS_AT_ONCE = 4
MAX_LINKS = 8
MAX_LINKS_OF_ALL = 32
# What is parsed at once: it takes about a millisecond.
SHORT_BYTES = 2**16
# A pass that takes longer has hung: the service says that it is not well, and is started anew.
STUCK_S = 60.0


class Fetch(Protocol):
    """Gets the bytes behind a link, as `images.links.fetch` does."""

    def __call__(self, link: str, write: Callable[[bytes], Awaitable[object]], *, max_bytes: int) -> Awaitable[None]:
        """Write so many at most, as they come."""


class Seen(NamedTuple):
    """What a model sees in a picture: a row of probabilities, or why it could not look."""

    row: Row | None
    error: VizslaError | None


class Service:
    """What all requests share."""

    def __init__(self, spec: ServiceSpec, root: Path, fetch: Fetch = links.fetch) -> None:
        self.spec = spec
        self.metrics = Metrics()
        self.watched: dict[tuple[str, str], Watched] = {}
        self.models = Models(root, self._watch)
        self.held = Held(round(spec.limits.max_held_mb * 1e6))
        self.draining = False
        self._fetch, self._num_links = fetch, 0
        self._links = asyncio.Semaphore(LINKS_AT_ONCE)
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="parse")
        self._decoding = _Decoding(spec.limits.max_megapixels)
        self._capture = Capture(spec.capture, root / spec.captured, self._captured) if spec.capture.wanted else None

    def _captured(self, model: str, version: str, became: str) -> None:
        self.metrics.captures.labels(model, version, became).inc()

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

    async def look(self, served: Served, pictures: list[Picture], share: Share | None = None) -> list[Seen]:
        """What a model sees in pictures; one that cannot be read fails alone. Their bytes are let go of.

        Args:
            share: what the request holds, of which the bytes are given back.

        Raises:
            Busy: too many wait already.
            TooLarge: there are too many links.
        """
        share = share or Share(self.held)
        # A request with many pictures leaves decoders to others.
        turns = asyncio.Semaphore(self._decoding.num_each)
        here = sum(not one.link for one in pictures)
        with served.batcher.coming(here) as came, self._linked(len(pictures) - here):

            async def one(picture: Picture) -> Seen:
                try:
                    if picture.link:
                        pixels = await self._fetched(served, picture, turns, share)
                    else:
                        try:
                            pixels = await self._decoded(served, picture, turns, share)
                        finally:
                            came()
                    row = await served.batcher.run(pixels)
                    self._consider(served, picture, row)
                    return Seen(row, None)
                except VizslaError as error:
                    return Seen(None, error)
                except Exception as error:  # whatever it is, the other pictures are none the worse
                    log.exception("A picture could not be looked at.")
                    return Seen(None, VizslaError(f"a defect of Vizsla: {type(error).__name__}"))
                finally:
                    _let_go(picture, share)

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

    async def parse(self, function: Callable[..., Result], data: bytes, *args: Any) -> Result:
        """What a function makes of a body: of a long one in a thread, so that others have their turn."""
        if len(data) <= SHORT_BYTES:
            return function(data, *args)
        return await asyncio.get_running_loop().run_in_executor(self._parser, _parse, function, data, *args)

    @contextlib.contextmanager
    def _linked(self, num_links: int) -> Iterator[None]:
        """Around a request with so many links."""
        if num_links > MAX_LINKS:
            raise TooLarge(f"A request may name {MAX_LINKS} links at most.", remedy="Send some of them at a time.")
        if num_links and self._num_links + num_links > MAX_LINKS_OF_ALL:
            raise Busy("Too many links are being fetched.", remedy="Come again in a moment, or send the files.")
        self._num_links += num_links
        try:
            yield
        finally:
            self._num_links -= num_links

    async def _fetched(self, served: Served, picture: Picture, turns: asyncio.Semaphore, share: Share) -> Pixels:
        """The picture behind a link as a model takes it; it takes a place before the model once it is here."""
        data = bytearray()

        async def write(piece: bytes) -> None:
            share.take(len(piece))
            data.extend(piece)

        try:
            async with self._links:
                await self._fetch(picture.link, write, max_bytes=self.spec.limits.max_request_bytes)
        except BaseException:
            share.give_back(len(data))
            raise
        picture.data = bytes(data)
        data.clear()
        with served.batcher.coming():
            return await self._decoded(served, picture, turns, share)

    async def _decoded(self, served: Served, picture: Picture, turns: asyncio.Semaphore, share: Share) -> Pixels:
        try:
            async with turns:
                return await self._decoding.run(served.card.preprocess, picture.data)
        finally:
            if self._capture is None:  # else it is not over yet
                _let_go(picture, share)

    def _consider(self, served: Served, picture: Picture, row: Row) -> None:
        """Keep a picture for people to label, if it is one of those."""
        if self._capture is None:
            return
        why = self._capture.why(float(row.max()))
        if why is not None:
            scores = served.predictor.best(row, TOP)
            self._capture.keep(Taken(served.name, served.version, picture.data, why, scores))

    def require_alive(self) -> None:
        """Raise `Busy` where a pass hangs."""
        if any(one.batcher.stuck_s > STUCK_S for one in self.models.all()):
            raise Busy("A pass through a model hangs.", remedy="Another worker takes over in a moment.")

    def require_ready(self) -> None:
        """Raise `Busy` where requests should go elsewhere."""
        self.require_alive()
        if self.draining or not self.models.all():
            raise Busy("The service is about to end." if self.draining else "The models are being loaded.")

    async def close(self) -> None:
        """Answer what is under way, and end."""
        await self.models.close()
        self._decoding.close()
        self._parser.shutdown(wait=False)
        if self._capture is not None:
            await asyncio.to_thread(self._capture.close)


def _let_go(picture: Picture, share: Share) -> None:
    """Let go of the bytes of a picture, once."""
    share.give_back(len(picture.data))
    picture.data = b""


def _parse(function: Callable[..., Result], data: bytes, *args: Any) -> Result:
    """What a function makes of a body, of which JSON may make millions of lists.

    Meanwhile nothing looks for garbage in circles: it would go through all of them again and again, and hold up
    every thread. For the same reason an error does not keep the frames in which they are.
    """
    looking = gc.isenabled()
    gc.disable()
    try:
        return function(data, *args)
    except VizslaError as error:
        error.__context__ = None
        raise error.with_traceback(None) from None
    finally:
        if looking:
            gc.enable()


class _Decoding:
    """Threads that decode. A large picture takes seconds, and gigabytes: one at a time, in a thread of its own."""

    def __init__(self, max_megapixels: float) -> None:
        self._max_pixels = round(max_megapixels * 1e6)
        self.num_each = max(1, round(system.cores()))
        # Beside what one request may have decoded at once, others find a thread.
        self._threads = ThreadPoolExecutor(self.num_each + 2, thread_name_prefix="decode")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="decode-large")

    async def run(self, how: Preprocess, data: bytes) -> Pixels:
        """The bytes of a picture as the array that a model takes.

        Raises:
            InvalidInput: it is no whole picture, or too large.
        """
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, self._unless_large, how, data)
        return found if found is not None else await loop.run_in_executor(self._large, how.to_array, data)

    def _unless_large(self, how: Preprocess, data: bytes) -> Pixels | None:
        pixels = 0
        with contextlib.suppress(InvalidInput):  # which the decoder raises too
            pixels = num_pixels(data)
        if pixels > self._max_pixels:
            raise InvalidInput(
                f"{pixels / 1e6:,.1f} megapixels, more than the limit of {self._max_pixels / 1e6:g}",
                remedy="Send it smaller.",
            )
        return how.to_array(data) if pixels <= LARGE_PIXELS else None

    def close(self) -> None:
        self._threads.shutdown(wait=False)
        self._large.shutdown(wait=False)


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


def require_shape(served: Served, shape: Sequence[int]) -> None:
    """Raise `InvalidInput` unless pixels of this shape are what a model takes."""
    wanted = shape_of(served)
    if len(shape) != 4 or tuple(shape[1:]) != wanted or not shape[0]:
        raise InvalidInput(
            f"The model takes pixels of shape [n, {', '.join(map(str, wanted))}], not {list(shape)}.",
            where="inputs.shape",
        )
