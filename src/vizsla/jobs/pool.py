"""Warm processes that look at pictures for a server: how many, who waits, what takes too long, who has died.

A request never computes in the server's own process, and never waits for a device: the processes use the processor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from vizsla.errors import Busy, TooSlow, WorkerDied, from_dict
from vizsla.jobs.launch import python
from vizsla.models.warm import LENGTH, MAX_FRAME, MAX_MODELS, frame

MODULE = "vizsla.models.warm"
CHUNK = 2**16


class Sent(Protocol):
    """The bytes of a picture, read piece by piece."""

    @property
    def size(self) -> int | None:
        """How many there are."""

    async def read(self, size: int = -1, /) -> bytes:
        """Some of them."""


class Pool:
    """Processes that keep models loaded. It belongs to one event loop.

    They are started at the first use, replaced when one dies or takes too long, ended when nobody has asked for some
    minutes, and end with the process that started them, even if that is killed.
    """

    def __init__(
        self,
        module: str = MODULE,
        *,
        workers: int | None = None,
        line: int = 32,
        timeout_s: float = 60.0,
        idle_s: float = 300.0,
    ) -> None:
        """Start nothing yet.

        Args:
            module: what the processes run; it answers by `warm.serve`.
            workers: processes at most; by default one for each four cores, and two to four of them.
            line: requests that are at work, wait, or still send their pictures, at most.
            timeout_s: that a request may wait for a process, and that it may then take.
            idle_s: after which a process that nobody needs is ended.
        """
        self.at_work = 0
        self.places_taken = 0
        self._module = module
        self._line = line
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._free = asyncio.Semaphore(workers or min(4, max(2, (os.cpu_count() or 1) // 4)))
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()

    @property
    def pids(self) -> list[int]:
        """The processes that there are."""
        return [worker.pid for worker in (*self._idle, *self._busy)]

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place in the line, to be taken before the pictures are read.

        Raises:
            Busy: the line is full.
        """
        if self.places_taken >= self._line:
            raise Busy(
                f"{self._line} requests for predictions are at work or wait, and no more are let in.",
                remedy="Ask again in some seconds, or make a prediction of many pictures, which waits in the queue.",
            )
        self.places_taken += 1
        try:
            yield
        finally:
            self.places_taken -= 1

    async def predict(
        self, folder: Path, pictures: Sequence[Sent], *, top: int, thumbnails: bool = False
    ) -> list[dict[str, Any]]:
        """Classify pictures with the model in a folder: of each its `scores` and its `error`, as `Prediction` has them.

        With `thumbnails`, of each also its `thumbnail`, a small JPEG in base64, or None where it is no picture.

        Raises:
            InvalidInput: it is not a whole model.
            Busy: no process was free in time.
            TooSlow: it took too long; its process was replaced.
            WorkerDied: the process was killed at this work.
        """
        found: list[dict[str, Any]] = (await self.ask(folder, pictures, top=top, thumbnails=thumbnails))["predictions"]
        return found

    async def ask(self, folder: Path, pictures: Sequence[Sent], **question: Any) -> dict[str, Any]:
        """Ask a process something about pictures and what lies in a folder; raises as `predict` does."""
        async with self._worker(folder) as worker:
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = await worker.ask(folder, pictures, question)
            except TimeoutError:
                raise TooSlow(
                    f"The pictures took longer than {self._timeout_s:g} s.",
                    remedy="Send fewer or smaller ones, or make a prediction of them, which waits in the queue.",
                ) from None
            except (OSError, EOFError, ValueError):
                raise WorkerDied(
                    "The process that looked at the pictures has died; others go on.",
                    remedy="Ask again. If the same pictures end it again, memory may be short: send smaller ones.",
                ) from None
        if "failed" in answer:
            raise from_dict(answer["failed"])
        return answer

    @contextlib.asynccontextmanager
    async def _worker(self, folder: Path) -> AsyncIterator[_Worker]:
        """A process for one request, if possible one with this model; whatever goes wrong, it is ended."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._free.acquire()
        except TimeoutError:
            raise Busy("No process was free in time.", remedy="Ask again in some seconds.") from None
        self.at_work += 1
        try:
            worker = self._take(folder) or await _Worker.start(self._module)
            self._busy.add(worker)
            try:
                yield worker
            except BaseException:
                worker.end()
                raise
            else:
                self._keep(worker)
            finally:
                self._busy.discard(worker)
        finally:
            self.at_work -= 1
            self._free.release()

    def _take(self, folder: Path) -> _Worker | None:
        for worker in [worker for worker in self._idle if not worker.alive]:
            self._end(worker)
        with_model = [worker for worker in self._idle if folder in worker.folders]
        found = next(reversed(with_model or self._idle), None)
        if found is not None:
            self._idle.remove(found)
            found.until_idle.cancel()
        return found

    def _keep(self, worker: _Worker) -> None:
        self._idle.append(worker)
        worker.until_idle = asyncio.get_running_loop().call_later(self._idle_s, self._end, worker)

    def _end(self, worker: _Worker) -> None:
        worker.until_idle.cancel()
        self._idle.remove(worker)
        worker.end()

    def close(self) -> None:
        """End all processes, those at work too."""
        for worker in list(self._idle):
            self._end(worker)
        for worker in self._busy:
            worker.end()


class _Worker:
    """One process."""

    until_idle: asyncio.TimerHandle

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.folders: list[Path] = []
        """the models that it was asked for last, and keeps"""
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, module: str) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [*python(), module],
                # What computes beside ONNX Runtime keeps to one core too, and the cards are for trainings.
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        return cls(process, *await asyncio.open_connection(sock=ours))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    async def ask(self, folder: Path, pictures: Sequence[Sent], question: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for the answer.

        Raises:
            OSError, EOFError: the process has died.
            ValueError: its answer is none.
        """
        request = {"folder": str(folder), "sizes": [picture.size for picture in pictures], **question}
        self._writer.write(frame(request))
        for picture in pictures:
            while chunk := await picture.read(CHUNK):
                self._writer.write(chunk)
                await self._writer.drain()
        (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
        if length > MAX_FRAME:
            raise ValueError("an answer that is too long")
        answer = json.loads(await self._reader.readexactly(length))
        if not isinstance(answer, dict):
            raise ValueError("an answer that is no object")
        self.folders = [*(known for known in self.folders if known != folder), folder][-MAX_MODELS:]
        return answer

    def end(self) -> None:
        """Kill the process; harmless when it has died."""
        self._writer.close()
        self._process.kill()
        asyncio.get_running_loop().run_in_executor(None, self._process.wait)
