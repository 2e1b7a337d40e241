"""The verbs on the machine, on a server."""

from __future__ import annotations

from vizsla.client.server import Server, parsed
from vizsla.machine.devices import Held


def held(server: Server) -> list[Held]:
    """See `vizsla.api.machine.held`."""
    return parsed(list[Held], server.get("devices"))
