"""Keeps the workers of a service alive, ends them in peace, and tells them when something else is to be served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from vizsla.errors import VizslaError, WorkerDied, from_dict
from vizsla.serving import metrics
from vizsla.serving.order import READY, Order

MAX_WORKERS = 64
MAX_DRAIN_S = 600
# A worker that never came to take requests is started this often.
MAX_TRIES = 3
PAUSES_S = (0.1, 1.0, 5.0, 30.0)
STEADY_S = 60.0

log = logging.getLogger("vizsla.service")


class Plan(NamedTuple):
    """How a service is run."""

    service: Path
    """`service.json`"""
    workers: int = 1
    drain_s: float = 0.0
    """how long it says that it is not ready before it takes no more connections"""
    grace_s: int = 30
    """how long requests under way have to end"""
    tls_cert: Path | None = None
    tls_key: Path | None = None


def run(plan: Plan, listening: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then end all workers.

    Args:
        on_ready: called when the first worker takes requests.

    Raises:
        VizslaError: no worker came to take requests, and this is why.
        WorkerDied: as often as it was tried, without a word.
    """
    with _shared_figures(plan.workers):
        asyncio.run(_Supervisor(plan, listening, on_ready).run())


@contextlib.contextmanager
def _shared_figures(workers: int) -> Iterator[None]:
    """Where several workers put their figures, so that each can tell those of all."""
    if workers == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="vizsla-figures-") as folder:
        os.environ[metrics.FOLDER] = folder
        yield


class _Supervisor:
    def __init__(self, plan: Plan, listening: socket.socket, on_ready: Callable[[], None]) -> None:
        self._plan, self._listening, self._on_ready = plan, listening, on_ready
        self._workers: set[asyncio.subprocess.Process] = set()
        self._ending = asyncio.Event()
        self._told = False

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self._ending.set)
        loop.add_signal_handler(signal.SIGHUP, self._tell, signal.SIGHUP)
        ending = asyncio.create_task(self._ending.wait())
        keeping = [asyncio.create_task(self._keep()) for _ in range(self._plan.workers)]
        try:
            await asyncio.wait([ending, *keeping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ending.set()
            self._tell(signal.SIGTERM)
            await asyncio.wait(keeping, timeout=self._plan.drain_s + self._plan.grace_s + 5)
            self._tell(signal.SIGKILL)
        for task in keeping:
            if task.done() and (error := task.exception()) is not None:
                raise error

    async def _keep(self) -> None:
        """Have a worker until the end."""
        failures = 0
        while not self._ending.is_set():
            began = time.monotonic()
            worker = await self._start()
            if self._ending.is_set():  # it began while the others were told
                worker.send_signal(signal.SIGTERM)
            ready, why = await self._came(worker)
            status = await worker.wait()
            self._workers.discard(worker)
            self._forget(worker.pid)
            if self._ending.is_set():
                return
            failures = 0 if ready and time.monotonic() - began > STEADY_S else failures + 1
            if not self._told:  # once it has served, others may serve still, and what is missing may come back
                if why is not None:
                    raise why
                if failures >= MAX_TRIES:
                    raise WorkerDied(
                        f"The service cannot begin: its worker ended with status {status}, {failures} times.",
                        remedy="What it wrote above says why.",
                    )
            what = f"could not begin: {why}" if why else f"ended with status {status}"
            log.warning("A worker of the service %s. Another one takes its place.", what)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), PAUSES_S[min(failures, len(PAUSES_S)) - 1])

    async def _start(self) -> asyncio.subprocess.Process:
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "vizsla.serving.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=[self._listening.fileno()],
            start_new_session=True,  # Ctrl-C at a terminal is for the supervisor, which ends it in peace
        )
        self._workers.add(worker)
        plan = self._plan
        order = Order(
            service=plan.service.absolute(),
            fd=self._listening.fileno(),
            drain_s=plan.drain_s,
            grace_s=plan.grace_s,
            tls_cert=plan.tls_cert,
            tls_key=plan.tls_key,
        )
        assert worker.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            worker.stdin.write(order.model_dump_json().encode() + b"\n")
            await worker.stdin.drain()
        return worker

    async def _came(self, worker: asyncio.subprocess.Process) -> tuple[bool, VizslaError | None]:
        """Whether a worker came to take requests, and why it did not, if it said so."""
        assert worker.stdout is not None
        line = await worker.stdout.readline()
        if line != READY:
            return False, from_dict(json.loads(line)) if line else None
        if not self._told:
            self._told = True
            self._on_ready()
        return True, None

    def _forget(self, pid: int) -> None:
        """The figures that a worker which is gone had at the moment."""
        if metrics.FOLDER in os.environ:
            metrics.forget(pid)

    def _tell(self, sign: signal.Signals) -> None:
        for worker in self._workers:
            if worker.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    worker.send_signal(sign)
