"""`vizsla serve`: the workspace over HTTP, and its queue looked after."""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from vizsla.api import accounts, keeper
from vizsla.api.workspace import keep_free_bytes
from vizsla.cli.options import Common, count
from vizsla.cli.output import err, safe
from vizsla.datasets.upload import MAX_BYTES
from vizsla.errors import Conflict, InvalidInput
from vizsla.store.workspace import Workspace

if TYPE_CHECKING:
    from vizsla.web.links import Fetch

MAX_PORT = 65_535
MAX_UPLOAD_GB = 1e6
# What a client says on a socket is short.
MAX_MESSAGE_BYTES = 16_384
Format = Literal["text", "json"]


@Parameter(name="*", group="Where others can reach it")
@dataclass(frozen=True, kw_only=True)
class Reach:
    """How passwords and tokens cross a network."""

    tls_cert: Annotated[
        Path | None, Parameter(show_default=False, help="Certificate (PEM), with those that vouch for it.")
    ] = None
    tls_key: Annotated[Path | None, Parameter(show_default=False, help="The key of the certificate (PEM).")] = None
    plain: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Listen without TLS all the same, as behind a proxy that has it."
        ),
    ] = False
    proxy: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            show_default=False,
            help="Address of a proxy whose word is taken on who asks, and how (X-Forwarded-For, -Proto).",
        ),
    ] = ()


@Parameter(name="*", group="What requests may name")
@dataclass(frozen=True, kw_only=True)
class Named:
    """Pictures and weights that are not sent."""

    allow: Annotated[
        tuple[Path, ...],
        Parameter(
            negative="",
            show_default=False,
            help="Folder below which requests may name pictures and weights. May be given more than once.",
        ),
    ] = ()
    allow_links: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Fetch pictures that requests name by links, from the public internet only.",
        ),
    ] = False

    def check(self) -> None:
        """Refuse folders that are not there."""
        for folder in self.allow:
            if not folder.is_dir():
                raise InvalidInput("There is no such folder.", where=str(folder), remedy="Give folders with --allow.")

    def fetch(self) -> Fetch | None:
        """What gets the pictures behind links, if they may be named."""
        if not self.allow_links:
            return None
        from vizsla.images import links

        return links.fetch


@Parameter(name="*", group="Room")
@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the disk is used for."""

    max_upload: Annotated[
        float, Parameter(help="Size in GB of the largest archive, or folder of pictures, that is taken as an upload.")
    ] = MAX_BYTES / 1e9
    keep_free: Annotated[
        float | None,
        Parameter(
            show_default=False,
            help="GB of the disk that stay free: with less, nothing new begins. VIZSLA_KEEP_FREE says the same to all "
            "commands. Default: 5 % of the disk, at most 1 GB.",
        ),
    ] = None

    def max_upload_bytes(self) -> int:
        """The size of the largest upload."""
        if not 0 < self.max_upload < MAX_UPLOAD_GB:
            what = f"{self.max_upload:g} GB is no size."
            raise InvalidInput(what, where="--max-upload", remedy="Give GB, such as 50.")
        return int(self.max_upload * 1e9)

    def apply(self, ws: Workspace) -> Workspace:
        """The workspace of which so much stays free."""
        if self.keep_free is None:
            return ws
        return replace(ws, keep_free_bytes=keep_free_bytes(self.keep_free, where="--keep-free"))


def serve(
    *,
    host: Annotated[
        str, Parameter(help="Address to listen on. One that others can reach needs an account, and TLS.")
    ] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on; 0 takes a free one.", converter=count)] = 5000,
    named: Named = Named(),
    limits: Limits = Limits(),
    reach: Reach = Reach(),
    log_format: Annotated[
        Format,
        Parameter(help="text says what needs attention; json writes that and each request as an object a line."),
    ] = "text",
    common: Common = Common(),
) -> None:
    """Serve the workspace to browsers and by REST, and look after its queue, until Ctrl-C.

    /api/v1/openapi.json describes the routes. What is at work goes on when the server ends, and the next one takes it
    over. Once there is an account (`vizsla account create`), everybody has to sign in.
    """
    import uvicorn

    from vizsla.web import logs
    from vizsla.web.app import create_app
    from vizsla.web.guard import LOOPBACK

    named.check()
    max_upload_bytes = limits.max_upload_bytes()
    check_certificate(reach.tls_cert, reach.tls_key)
    _check_proxies(reach)
    with common.open_here(why="It is the server.") as opened:
        ws = limits.apply(opened)
        if host not in LOOPBACK:
            _check_reachable(ws, host, reach)
        with listen(host, port) as listening:
            app = create_app(
                ws,
                keeper.take(ws),
                allowed=named.allow,
                fetch=named.fetch(),
                proxied=bool(reach.proxy),
                max_upload_bytes=max_upload_bytes,
                closing=lambda: server.should_exit,
            )
            logs.install(log_format)
            server = uvicorn.Server(uvicorn.Config(app, **_settings(reach)))
            _say(ws, _url("https" if reach.tls_cert else "http", host, listening))
            with contextlib.suppress(KeyboardInterrupt):  # raised again when all is closed
                server.run(sockets=[listening])


def _say(ws: Workspace, url: str) -> None:
    console = f"[bold]{safe(url.removesuffix('api/v1'))}[/]"
    err.print(
        f"Serving {safe(ws.root)} at {console} to browsers, and to programs at {safe(url)}. "
        "Ctrl-C ends that; what is at work goes on.",
        soft_wrap=True,
    )


def _settings(reach: Reach) -> dict[str, Any]:
    from vizsla.serving import connections

    connections.allow_files()
    return {
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": 10,
        "http": connections.BoundedProtocol,
        "ssl_ciphers": "ECDHE+AESGCM:ECDHE+CHACHA20",
        "proxy_headers": bool(reach.proxy),
        "forwarded_allow_ips": list(reach.proxy),
        "ssl_certfile": reach.tls_cert,
        "ssl_keyfile": reach.tls_key,
        "ws_max_size": MAX_MESSAGE_BYTES,
        # What is told is small and often: to compress it for every client would cost more than it saves.
        "ws_per_message_deflate": False,
    }


def _url(scheme: str, host: str, listening: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{listening.getsockname()[1]}/api/v1"


def _check_reachable(ws: Workspace, host: str, reach: Reach) -> None:
    """Refuse to serve those who cannot be told apart, or whose passwords others could read."""
    if not accounts.list_all(ws):
        raise InvalidInput(
            f"{host} can be reached from elsewhere, and there is no account to tell who may do what.",
            where="--host",
            remedy="Make one: vizsla account create NAME. Or leave out --host, and reach this machine by ssh -L.",
        )
    if reach.tls_cert is None and not reach.plain:
        raise InvalidInput(
            f"{host} can be reached from elsewhere, and passwords would cross the network for all to read.",
            where="--host",
            remedy="Give --tls-cert and --tls-key; or --plain where a proxy with TLS stands before it.",
        )


def check_certificate(cert: Path | None, key: Path | None) -> None:
    """Raise `InvalidInput` unless a certificate and its key can be used, or neither is given."""
    if cert is None and key is None:
        return
    if cert is None or key is None:
        raise InvalidInput("A certificate and its key belong together.", remedy="Give both --tls-cert and --tls-key.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise InvalidInput(
            f"The certificate and its key cannot be used: {error}.",
            where=str(cert),
            remedy="Give PEM files that belong together, the key without a password.",
        ) from None


def _check_proxies(reach: Reach) -> None:
    """Only addresses: the word of everybody would be no word at all."""
    for proxy in reach.proxy:
        try:
            all_of_them = ip_network(proxy).prefixlen == 0
        except ValueError:
            all_of_them = True
        if all_of_them:
            raise InvalidInput(
                f"{proxy!r} is not the address of a proxy.",
                where="--proxy",
                remedy="Use one like 10.0.0.2 or 10.0.0.0/24.",
            )


def _no_password() -> str:
    raise ValueError("the key has a password")


def listen(host: str, port: int) -> socket.socket:
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
