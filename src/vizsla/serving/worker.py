"""A process that answers requests: `python -m vizsla.serving.worker`, started by the supervisor.

`order.py` says what the two say to each other over its standard input and output. It ends when that input does.
SIGTERM: it says that it is not ready, answers what is under way, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any

import uvicorn

from vizsla.errors import VizslaError
from vizsla.serving import connections
from vizsla.serving.answering import STUCK_S, Service
from vizsla.serving.app import create_app
from vizsla.serving.order import ALIVE, ALIVE_S, READY, Order
from vizsla.serving.spec import ServiceSpec

HUNG, SPARE_S = 70, 5.0
# Threads that are done with their Python give way sooner than by default, since each request waits for several.
SWITCH_S = 0.001

log = logging.getLogger("vizsla.service")


def tell(what: bytes | VizslaError) -> None:
    """Let the supervisor know how it stands, or why something cannot be served."""
    line = json.dumps(what.as_dict()).encode() + b"\n" if isinstance(what, VizslaError) else what
    with contextlib.suppress(BrokenPipeError):  # it is gone, and this process ends with it
        os.write(sys.stdout.fileno(), line)


class _Server(uvicorn.Server):
    """Ends as a service should, and serves something else when it is told."""

    def __init__(self, config: uvicorn.Config, service: Service, order: Order) -> None:
        super().__init__(config)
        self._service, self._order = service, order

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await self._service.models.load(self._service.spec)
        except VizslaError as error:
            tell(error)
            self.should_exit = True
            return
        await super().startup(sockets)
        if self.started:
            _settle()
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._heed, args=(loop,), daemon=True).start()
            tell(READY)
            self._say_alive(loop)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining:  # told a second time: it is meant
            self.should_exit = self.force_exit = True
        self._service.draining = True
        if self._order.drain_s:
            # Those who send requests here hear first that they should go elsewhere.
            asyncio.get_running_loop().call_later(self._order.drain_s, self._end)
        else:
            self._end()

    def _end(self) -> None:
        self.should_exit = True

    def _say_alive(self, loop: asyncio.AbstractEventLoop) -> None:
        """From the loop itself, so that who listens learns when it hangs."""
        tell(ALIVE)
        loop.call_later(ALIVE_S, self._say_alive, loop)

    def _heed(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: do what the supervisor says, until it says nothing any more."""
        for line in sys.stdin:
            spec = ServiceSpec.model_validate_json(line)
            asyncio.run_coroutine_threadsafe(self._go_over(spec), loop).result()
        # Nobody sees any more whether the loop hangs, and who comes next needs the address.
        end = threading.Timer(self._order.drain_s + self._order.grace_s + SPARE_S, os._exit, (HUNG,))
        end.daemon = True
        end.start()
        loop.call_soon_threadsafe(self._end)

    async def _go_over(self, spec: ServiceSpec) -> None:
        try:
            await self._service.serve(spec)
        except VizslaError as error:
            tell(error)
        except Exception as error:
            log.exception("Something else was to be served.")
            tell(VizslaError(f"A model cannot be loaded: {type(error).__name__}."))
        else:
            _settle()
            tell(READY)


def _settle() -> None:
    """Have what is there to stay looked through for garbage no more: that takes a tenth of a second each time."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def main() -> int:
    """Answer requests until the end of standard input, or a signal."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # A warning for whatever is no HTTP would let strangers fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    sys.setswitchinterval(SWITCH_S)
    order = Order.model_validate_json(sys.stdin.readline())
    connections.allow_files()
    app = create_app(order.spec, order.root)
    settings: dict[str, Any] = {"ssl_certfile": order.tls_cert, "ssl_keyfile": order.tls_key}
    config = uvicorn.Config(
        app,
        http=connections.BoundedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=order.grace_s,
        **settings,
    )
    server = _Server(config, app.state.service, order)
    threading.Thread(target=_end_when_hung, args=(app.state.service,), daemon=True).start()
    server.run(sockets=[socket.socket(fileno=order.fd)])
    return 0 if server.started else 1


def _end_when_hung(service: Service) -> None:
    """A pass that hangs cannot be ended from within: the supervisor starts another process."""
    while True:
        time.sleep(STUCK_S / 10)
        if any(one.batcher.stuck_s > STUCK_S for one in service.models.all()):
            log.error("A pass through a model hangs: this worker ends.")
            os._exit(HUNG)


if __name__ == "__main__":
    # The whole group may be told; what it means is for the supervisor to say.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        sys.exit(main())
    except VizslaError as error:
        tell(error)
        sys.exit(1)
