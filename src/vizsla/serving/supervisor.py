"""Keeps the workers of a service alive, ends them in peace, and tells them when something else is to be served.

SIGHUP: `service.json` is read again. All workers come to serve what it says, or all go on with what they serve.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from vizsla import files
from vizsla.errors import Conflict, InvalidInput, VizslaError, WorkerDied, from_dict
from vizsla.serving import figures, metrics
from vizsla.serving.order import ALIVE, READY, Order
from vizsla.serving.spec import ServiceSpec, read

# A worker that never came to take requests is started this often.
MAX_TRIES = 3
PAUSES_S = (0.1, 1.0, 5.0, 30.0)
STEADY_S = 60.0
# Models are large and disks are slow, but not for ever.
START_S = 600.0
# A worker whose loop says nothing for as long hangs.
SILENT_S = 20.0
# glibc keeps small blocks for later, and those of pictures are large: beyond this they go back to the system at once.
KEPT_BLOCK_BYTES = 4 << 20
# Each thread keeps so much of what is given back: else the system would clear the memory of every picture anew: a fifth
# of its decoding.
KEPT_BYTES = 16 << 20

MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(KEPT_BLOCK_BYTES), "MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES)}

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
    figures: Path | None = None
    """where it writes every few seconds what was answered, see `figures.Figures`"""


Said = Literal["serving", "ailing", "changed", "refused"]
"""a worker takes requests; none does any more; `service.json` was read again, and is served, or is not"""
OnSaid = Callable[[Said, VizslaError | None], None]


def run(plan: Plan, listening: socket.socket, on_said: OnSaid) -> None:
    """Serve until SIGTERM or Ctrl-C, then end all workers.

    Args:
        on_said: told how it goes, and of what does not, why.

    Raises:
        VizslaError: no worker came to take requests, and this is why.
        WorkerDied: as often as it was tried, without a word.
    """
    with _shared_figures(plan):
        asyncio.run(_Supervisor(plan, listening, on_said).run())


@contextlib.contextmanager
def _shared_figures(plan: Plan) -> Iterator[None]:
    """Where several workers put their figures, so that each can tell those of all, and this process too."""
    if plan.workers == 1 and plan.figures is None:
        yield
        return
    if plan.figures is None:
        with tempfile.TemporaryDirectory(prefix="vizsla-figures-") as folder:
            os.environ[metrics.FOLDER] = folder
            yield
        return
    own = plan.figures.with_suffix(".parts")  # no cleaner of temporary files comes here, nor is anything left behind
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    os.environ[metrics.FOLDER] = str(own)
    yield
    shutil.rmtree(own, ignore_errors=True)


class _Life(NamedTuple):
    """How a worker did."""

    ready: bool
    """whether it came to take requests"""
    why: VizslaError | None
    """what it said, if it did not"""
    status: str
    """how it ended"""


def pause_s(failures: int) -> float:
    """How long nobody takes the place of a worker that ended; failures: how often in a row, from 1 on."""
    return PAUSES_S[min(failures, len(PAUSES_S)) - 1]


class _Worker:
    """A process that answers, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process, spec: ServiceSpec) -> None:
        self._process, self.spec = process, spec
        self._answers: asyncio.Queue[VizslaError | None] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())
        self.pid = process.pid
        self.serves = False
        """whether it takes requests"""

    async def answer(self) -> VizslaError | None:
        """Why it cannot serve what it was told to last; None: it does.

        Raises:
            WorkerDied: it said nothing any more, or nothing for too long.
        """
        answer = asyncio.create_task(self._answers.get())
        try:
            await asyncio.wait([answer, self._reading], timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
        finally:
            answer.cancel()
        raise WorkerDied("A worker of the service does not come to an end with it.", where=str(self.pid))

    async def write(self, line: str) -> None:
        """Tell it something."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write(line.encode() + b"\n")
            await self._process.stdin.drain()

    def send(self, sign: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(sign)

    async def wait(self) -> int:
        """Its exit status, when it has ended; one whose loop hangs is ended."""
        await self._reading
        return await self._process.wait()

    async def _read(self) -> None:
        """What it says, to the end; all of it is read, or it would be held up."""
        assert self._process.stdout is not None
        while True:
            try:
                async with asyncio.timeout(SILENT_S if self.serves else None):
                    line = await self._process.stdout.readline()
            except TimeoutError:
                log.error("A worker of the service hangs: it is ended.")
                self.send(signal.SIGKILL)
                self.serves = False
                continue
            except ValueError:  # a line without an end, of whatever library
                continue
            if not line:
                return
            self._heed(line)

    def _heed(self, line: bytes) -> None:
        if line == ALIVE:
            self.serves = True
        elif line == READY:
            self.serves = True
            self._answers.put_nowait(None)
        else:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # it is not ours
                self._answers.put_nowait(from_dict(json.loads(line)))


class _Supervisor:
    def __init__(self, plan: Plan, listening: socket.socket, on_said: OnSaid) -> None:
        self._plan, self._listening, self._on_said = plan, listening, on_said
        self._spec = read(plan.service)
        self._workers: set[_Worker] = set()
        self._ending = asyncio.Event()
        self._rereading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = False
        self._ails = ""
        """why no worker takes requests any more"""

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._reread)
        ending = asyncio.create_task(self._ending.wait())
        keeping = [asyncio.create_task(self._keep()) for _ in range(self._plan.workers)]
        telling = asyncio.create_task(self._tell_figures())
        try:
            await asyncio.wait([ending, *keeping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ending.set()
            telling.cancel()
            self._listening.close()  # the workers have theirs: when they close it, nobody can connect any more
            self._tell(signal.SIGTERM)
            await asyncio.wait(keeping, timeout=self._plan.drain_s + self._plan.grace_s + 5)
            self._tell(signal.SIGKILL)
        for task in keeping:
            if task.done() and (error := task.exception()) is not None:
                raise error

    async def _tell_figures(self) -> None:
        """Write what was answered, from time to time."""
        if self._plan.figures is None:
            return
        watcher = figures.Watcher(os.environ[metrics.FOLDER])
        while True:
            await asyncio.sleep(figures.EVERY_S)
            with contextlib.suppress(OSError, VizslaError, ValueError):  # a worker may just be writing its own
                told = await asyncio.to_thread(watcher.look)
                files.write_json(self._plan.figures, told.model_dump(mode="json"))

    def _end(self) -> None:
        if self._ending.is_set():  # asked for twice: at once
            self._tell(signal.SIGTERM)
        self._ending.set()

    def _reread(self) -> None:
        task = asyncio.create_task(self._serve_anew())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self) -> None:
        """Have a worker until the end."""
        failures = 0
        while not self._ending.is_set():
            began = time.monotonic()
            ready, why, status = await self._one_life()
            if self._ending.is_set():
                return
            failures = 1 if ready and time.monotonic() - began > STEADY_S else failures + 1
            if not self._told:  # once it has served, others may serve still, and what is missing may come back
                if why is not None:
                    raise why
                if failures >= MAX_TRIES:
                    raise WorkerDied(
                        f"The service cannot begin: its worker ended with {status}, {failures} times.",
                        remedy="What it wrote above says why.",
                    )
            what = f"could not begin: {' '.join(str(why).split()).removesuffix('.')}" if why else f"ended with {status}"
            log.warning("A worker of the service %s. Another one takes its place.", what)
            if self._told and self._ails != what and not any(worker.serves for worker in self._workers):
                self._ails = what
                self._on_said("ailing", why or WorkerDied(f"The worker of the service {what}."))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause_s(failures))

    async def _one_life(self) -> _Life:
        """A worker from its start to its end."""
        try:
            worker = await self._start()
        except OSError as error:  # no processes, files or memory are left at this moment
            return _Life(False, None, str(error))
        if self._ending.is_set():  # it began while the others were told
            worker.send(signal.SIGTERM)
        why = None
        try:
            why = await worker.answer()
            ready = why is None
        except WorkerDied:
            ready = False
            worker.send(signal.SIGKILL)
        if ready and (not self._told or self._ails):
            self._told, self._ails = True, ""
            self._on_said("serving", None)
        async with self._rereading:  # something else may have come to be served while it was started
            if ready and worker.spec is not self._spec and await self._ask(worker, self._spec) is not None:
                worker.send(signal.SIGTERM)
        status = await worker.wait()
        self._workers.discard(worker)
        if metrics.FOLDER in os.environ:
            metrics.forget(worker.pid)
        return _Life(ready, why, f"status {status}")

    async def _start(self) -> _Worker:
        fd, plan, spec = self._listening.fileno(), self._plan, self._spec
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "vizsla.serving.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=[fd],
            env={**MALLOC, **os.environ},
            start_new_session=True,  # Ctrl-C at a terminal is for the supervisor, which ends it in peace
        )
        worker = _Worker(process, spec)
        self._workers.add(worker)
        order = Order(
            spec=spec,
            root=plan.service.absolute().parent,
            fd=fd,
            drain_s=plan.drain_s,
            grace_s=plan.grace_s,
            tls_cert=plan.tls_cert,
            tls_key=plan.tls_key,
        )
        await worker.write(order.model_dump_json())
        return worker

    async def _serve_anew(self) -> None:
        """Have every worker serve what the file says now; where one cannot, all go on with what they served."""
        async with self._rereading:
            try:
                wanted = read(self._plan.service)
                self._require_keys(wanted)
            except VizslaError as error:
                self._say_changed(error)
                return
            before, asked = self._spec, [worker for worker in self._workers if worker.serves]
            if not asked:
                what = "None of its workers answers at this moment."
                remedy = "Its log says why. Stop it, and have it serve something else then."
                self._say_changed(Conflict(what, remedy=remedy))
                return
            answers = await asyncio.gather(*(self._ask(worker, wanted) for worker in asked))
            errors = [answer for answer in answers if isinstance(answer, VizslaError)]
            if not errors:
                self._spec = wanted
                self._say_changed(None)
                return
            self._say_changed(errors[0])
            again = [worker for worker, answer in zip(asked, answers, strict=True) if answer is None]
            await asyncio.gather(*(self._ask(worker, before) for worker in again))

    def _say_changed(self, error: VizslaError | None) -> None:
        if error is not None:
            log.error("What was served is served still: %s", error)
        self._on_said("changed" if error is None else "refused", error)

    def _require_keys(self, wanted: ServiceSpec) -> None:
        """Refuse to answer everybody where it was begun for some: whether that is wanted was asked then."""
        if self._spec.keys and not wanted.keys:
            raise InvalidInput(
                "A service that asks for keys comes to answer everybody only when it is begun anew.", where="keys"
            )

    @staticmethod
    async def _ask(worker: _Worker, spec: ServiceSpec) -> VizslaError | None:
        """Have a worker serve something; why it does not. Should it die meanwhile, that may be the cause."""
        await worker.write(spec.model_dump_json())
        try:
            answer = await worker.answer()
        except WorkerDied:
            return WorkerDied("A worker ended while it went over.", remedy="The service's log may say why.")
        if answer is None:
            worker.spec = spec
        return answer

    def _tell(self, sign: signal.Signals) -> None:
        for worker in self._workers:
            worker.send(sign)
