"""A service where nothing else of Vizsla is, as in a container: `python -m vizsla.serving service.json`.

It needs neither the libraries of the command line nor a workspace. SIGTERM lets it answer what is under way and end
with status 0.
"""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vizsla.errors import Conflict, InvalidInput, VizslaError
from vizsla.serving import supervisor
from vizsla.serving.spec import MAX_DRAIN_S, MAX_WORKERS, SERVICE, ServiceSpec, read

LOOPBACK = ("127.0.0.1", "::1", "localhost")

log = logging.getLogger("vizsla.service")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; returns the exit status."""
    asked = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        _serve(asked)
    except VizslaError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _serve(asked: argparse.Namespace) -> None:
    spec = read(asked.service)
    _check_reach(asked.host, spec, asked.public)
    with _listening(asked.host, asked.port) as listening:
        port = listening.getsockname()[1]
        plan = supervisor.Plan(
            asked.service, asked.workers, drain_s=asked.drain, tls_cert=asked.tls_cert, tls_key=asked.tls_key
        )
        names = ", ".join(model.name for model in spec.models)

        def say(said: supervisor.Said, error: VizslaError | None) -> None:
            if said == "serving":
                log.info("%s at %s, port %d.", names, asked.host, port)

        supervisor.run(plan, listening, say)


def _check_reach(host: str, spec: ServiceSpec, public: bool) -> None:
    """Refuse to answer everybody on a network unless that is wanted."""
    if host not in LOOPBACK and not spec.keys and not public:
        raise InvalidInput(
            f"{host} can be reached from elsewhere, and everybody could ask.",
            where="--host",
            remedy="Name the SHA-256 of a key among the keys of service.json, or say --public.",
        )


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Conflict(f"Port {port} of {host} cannot be had: {error.strerror}.", where="--port") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vizsla.serving", description="Answer with models until SIGTERM.")
    parser.add_argument("service", type=Path, nargs="?", default=Path(SERVICE), help="service.json")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=_bounded(int, 0, 65535), default=8000, help="port to listen on")
    parser.add_argument("--workers", type=_bounded(int, 1, MAX_WORKERS), default=1, help="processes")
    parser.add_argument(
        "--drain",
        type=_bounded(float, 0, MAX_DRAIN_S),
        default=0.0,
        help="seconds for which it says that it is not ready before it ends",
    )
    parser.add_argument("--public", action="store_true", help="answer everybody who can reach it, without keys")
    parser.add_argument("--tls-cert", type=Path, help="certificate (PEM)")
    parser.add_argument("--tls-key", type=Path, help="its key (PEM)")
    return parser


def _bounded(kind: type[int] | type[float], least: int, most: int) -> Callable[[str], float]:
    """Reads a number from an option, within its bounds."""

    def read_number(text: str) -> float:
        if not least <= (number := kind(text)) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not within {least} and {most}")
        return number

    read_number.__name__ = "number"
    return read_number


if __name__ == "__main__":
    sys.exit(main())
