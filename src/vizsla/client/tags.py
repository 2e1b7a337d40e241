"""Tags of things, on a server."""

from __future__ import annotations

from collections.abc import Sequence

from vizsla.client import things
from vizsla.client.server import Server
from vizsla.store.rows import Kind, Used
from vizsla.store.tagnames import cleaned


def read(server: Server, kind: Kind, reference: str) -> list[str]:
    """See `vizsla.api.tags.read`."""
    found: list[str] = server.get(*things.at(server, kind, reference, "tags"))["tags"]
    return found


def write(server: Server, kind: Kind, reference: str, wanted: Sequence[str]) -> list[str]:
    """See `vizsla.api.tags.write`."""
    server.patch(*things.at(server, kind, reference), body={"tags": wanted})
    # What the server made of them. Asked for now, it might answer what another has written since.
    return cleaned(wanted)


def used(server: Server, kind: Kind, *, limit: int = 100) -> list[Used]:
    """See `vizsla.api.tags.used`."""
    return [Used(**one) for one in server.get("tags", kind=kind, limit=limit)]
