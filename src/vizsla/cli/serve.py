"""`vizsla serve`: the workspace over HTTP, and its queue looked after."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import vizsla
from vizsla.api import keeper
from vizsla.cli.options import Common, count
from vizsla.cli.output import err, safe
from vizsla.errors import Conflict, InvalidInput

MAX_PORT = 65_535


def serve(
    *,
    host: Annotated[str, Parameter(help="Address to listen on; one of this machine's own loopback.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on; 0 takes a free one.", converter=count)] = 5000,
    allow: Annotated[
        tuple[Path, ...],
        Parameter(
            negative="",
            show_default=False,
            help="Folder below which requests may name pictures and weights. May be given more than once.",
        ),
    ] = (),
    common: Common = Common(),
) -> None:
    """Serve the workspace by REST, and look after its queue, until Ctrl-C.

    /api/v1/openapi.json describes the routes. What is at work goes on when the server ends, and the next one takes it
    over.
    """
    import uvicorn

    from vizsla.web.app import LOOPBACK, create_app

    if host not in LOOPBACK:
        raise InvalidInput(
            f"{host} can be reached from elsewhere, and there are no accounts yet to tell who may do what.",
            where="--host",
            remedy="Leave out --host, and reach this machine by ssh -L.",
        )
    for folder in allow:
        if not folder.is_dir():
            raise InvalidInput("There is no such folder.", where=str(folder), remedy="Give folders with --allow.")
    with vizsla.open(common.workspace) as ws, _listen(host, port) as listening:
        app = create_app(ws, keeper.take(ws), allowed=allow)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=10)
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listening.getsockname()[1]}/api/v1"
        err.print(f"Serving {safe(ws.root)} at {safe(url)}. Ctrl-C ends that; what is at work goes on.", soft_wrap=True)
        with contextlib.suppress(KeyboardInterrupt):  # raised again when all is closed
            uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InvalidInput: there is no such port.
        Conflict: it cannot be had.
    """
    if not 0 <= port <= MAX_PORT:
        raise InvalidInput(f"There is no port {port}.", where="--port", remedy=f"Choose one of 1 to {MAX_PORT}, or 0.")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Conflict(
            f"Port {port} of {host} cannot be had: {error.strerror}.", where="--port", remedy="Choose another --port."
        ) from None
