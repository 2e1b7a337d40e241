"""Tags of things, on a server."""

from __future__ import annotations

from collections.abc import Sequence

from vizsla.client import things
from vizsla.client.server import Server
from vizsla.store.rows import Kind, Used


def read(server: Server, kind: Kind, reference: str) -> list[str]:
    """See `vizsla.api.tags.read`."""
    found: list[str] = server.get(*things.at(server, kind, reference, "tags"))["tags"]
    return found


def write(server: Server, kind: Kind, reference: str, wanted: Sequence[str]) -> list[str]:
    """See `vizsla.api.tags.write`."""
    place = things.at(server, kind, reference)
    server.patch(*place, body={"tags": wanted})
    found: list[str] = server.get(*place, "tags")["tags"]
    return found


def used(server: Server, kind: Kind, *, limit: int = 100) -> list[Used]:
    """See `vizsla.api.tags.used`."""
    return [Used(**one) for one in server.get("tags", kind=kind, limit=limit)]
