"""The process that keeps a service of a workspace: `python -m vizsla.serving.hosted FOLDER`, the service's folder."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from pathlib import Path

from vizsla import files, work
from vizsla.errors import Conflict, VizslaError
from vizsla.events import EventLog
from vizsla.machine import usage
from vizsla.serving import hosting, supervisor
from vizsla.serving.figures import FIGURES
from vizsla.serving.spec import SERVICE

# As long as the workers of a process that was killed may answer what they had begun.
PATIENCE_S, POLL_S = 45.0, 0.25


def do(folder: Path, log: EventLog, stop: work.Stop) -> str:
    """Serve until it is stopped."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    (folder / FIGURES).unlink(missing_ok=True)
    with _listening(hosting.read(folder), stop) as listening:
        hosted = _with_port(folder, listening)
        url = hosting.url(hosted)

        def say(said: supervisor.Said, error: VizslaError | None) -> None:
            log.write(said, url=url, **({"error": error.as_dict()} if error else {}))
            if stop.asked:  # before anybody listened to that
                os.kill(os.getpid(), signal.SIGTERM)

        plan = supervisor.Plan(
            folder / SERVICE,
            hosted.workers,
            drain_s=hosted.drain_s,
            tls_cert=hosted.tls_cert,
            tls_key=hosted.tls_key,
            figures=folder / FIGURES,
        )
        supervisor.run(plan, listening, say)
    return "stopped"


def _listening(hosted: hosting.Hosting, stop: work.Stop) -> socket.socket:
    """The socket; what is left of an earlier life may still have its port for a while."""
    family = socket.AF_INET6 if ":" in hosted.host else socket.AF_INET
    deadline = time.monotonic() + PATIENCE_S
    while True:
        stop.check()
        try:
            return socket.create_server((hosted.host, hosted.port), family=family)
        except OSError as error:
            if time.monotonic() > deadline:
                raise Conflict(
                    f"Port {hosted.port} of {hosted.host} cannot be had: {os.strerror(error.errno or 0)}.",
                    where="port",
                    remedy="See what has it, or start another service with another --port.",
                ) from None
        time.sleep(POLL_S)


def _with_port(folder: Path, listening: socket.socket) -> hosting.Hosting:
    """A free port that was found is the service's from now on: its address stays."""
    found = hosting.read(folder)
    if found.port == 0:
        found = found.model_copy(update={"port": listening.getsockname()[1]})
        files.write_json(folder / hosting.HOSTING, found.model_dump(mode="json"))
    return found


if __name__ == "__main__":
    # Who has something else served tells this process so; before it listens to that, nobody means it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    work.leave(work.main(do, stop_at_once=False, beside=usage.watching))
