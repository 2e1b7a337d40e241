"""A process that answers requests: `python -m vizsla.serving.worker`, started by the supervisor.

The first line of its standard input is its order; it ends when that input does. When it takes requests it writes the
line `ready`; where it cannot, why, as JSON. SIGTERM: it says that it is not ready, answers what is under way, and ends.
SIGHUP: it serves the models that `service.json` names now.
"""

from __future__ import annotations

import asyncio
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
from vizsla.serving.answering import STUCK_S, Service
from vizsla.serving.app import create_app
from vizsla.serving.order import READY, Order
from vizsla.serving.spec import read

HUNG = 70
# Threads that are done with their Python give way sooner than by default, since each request waits for several.
SWITCH_S = 0.001

log = logging.getLogger("vizsla.service")


def tell(error: VizslaError) -> None:
    """Let the supervisor know why this worker cannot begin."""
    os.write(sys.stdout.fileno(), json.dumps(error.as_dict()).encode() + b"\n")


class _Server(uvicorn.Server):
    """Ends as a service should, and serves something else when it is told."""

    def __init__(self, config: uvicorn.Config, service: Service, order: Order) -> None:
        super().__init__(config)
        self._service, self._order = service, order
        self._reloading: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await self._service.models.load(self._service.spec)
        except VizslaError as error:
            tell(error)
            self.should_exit = True
            return
        await super().startup(sockets)
        if self.started:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
            os.write(sys.stdout.fileno(), READY)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.draining = True
        if self._order.drain_s and not self.should_exit:
            # Those who send requests here hear first that they should go elsewhere.
            asyncio.get_running_loop().call_later(self._order.drain_s, self._end)
        else:
            self._end()

    def _end(self) -> None:
        self.should_exit = True

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._serve_anew())
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    async def _serve_anew(self) -> None:
        try:
            await self._service.models.load(await asyncio.to_thread(read, self._order.service))
        except VizslaError as error:
            log.error("What was served is served still: %s", error)


def main() -> int:
    """Answer requests until the end of standard input, or a signal."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    sys.setswitchinterval(SWITCH_S)
    order = Order.model_validate_json(sys.stdin.readline())
    spec = read(order.service)
    app = create_app(spec, order.service.parent)
    settings: dict[str, Any] = {"ssl_certfile": order.tls_cert, "ssl_keyfile": order.tls_key}
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=order.grace_s,
        limit_concurrency=spec.limits.max_queue + 1000,
        **settings,
    )
    server = _Server(config, app.state.service, order)
    threading.Thread(target=_end_with_supervisor, args=(server,), daemon=True).start()
    threading.Thread(target=_end_when_hung, args=(app.state.service,), daemon=True).start()
    server.run(sockets=[socket.socket(fileno=order.fd)])
    return 0 if server.started else 1


def _end_with_supervisor(server: uvicorn.Server) -> None:
    sys.stdin.read()
    server.should_exit = True


def _end_when_hung(service: Service) -> None:
    """A pass that hangs cannot be ended from within: the supervisor starts another process."""
    while True:
        time.sleep(STUCK_S / 10)
        if any(one.batcher.stuck_s > STUCK_S for one in service.models.all()):
            log.error("A pass through a model hangs: this worker ends.")
            os._exit(HUNG)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VizslaError as error:
        tell(error)
        sys.exit(1)
