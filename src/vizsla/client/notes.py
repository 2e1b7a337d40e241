"""Notes on things, on a server."""

from __future__ import annotations

from vizsla.client import things
from vizsla.client.server import Server
from vizsla.store.rows import Kind


def read(server: Server, kind: Kind, reference: str) -> str:
    """See `vizsla.api.notes.read`."""
    found: str = server.get(*things.at(server, kind, reference, "notes"))["notes"]
    return found


def write(server: Server, kind: Kind, reference: str, text: str) -> str:
    """See `vizsla.api.notes.write`."""
    place = things.at(server, kind, reference)
    server.patch(*place, body={"notes": text})
    found: str = server.get(*place, "notes")["notes"]
    return found
