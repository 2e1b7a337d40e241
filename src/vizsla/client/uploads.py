"""The verbs on uploads, on a server."""

from __future__ import annotations

from typing import Any

from vizsla.client.server import Server, parsed
from vizsla.datasets.upload import MAX_BYTES, Kind, Picture, Status, Upload
from vizsla.errors import InvalidInput

OF_STATUS = ("offset", "num_pictures", "expires_at")


def create(
    server: Server,
    name: str,
    *,
    kind: Kind = "archive",
    size: int | None = None,
    sha256: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> Status:
    """See `vizsla.api.uploads.create`."""
    if max_bytes != MAX_BYTES:
        raise InvalidInput("A server has its own bound of uploads.", where="max_bytes")
    return _status(server.post("uploads", body={"name": name, "kind": kind, "size": size, "sha256": sha256}))


def get(server: Server, id: str) -> Status:
    """See `vizsla.api.uploads.get`."""
    return _status(server.get("uploads", id))


def list_all(server: Server) -> list[Status]:
    """See `vizsla.api.uploads.list_all`."""
    return [_status(found) for found in server.get("uploads")]


def delete(server: Server, id: str) -> Upload:
    """See `vizsla.api.uploads.delete`."""
    gone = get(server, id).upload
    server.delete("uploads", id)
    return gone


def append(server: Server, id: str, offset: int, data: bytes) -> Status:
    """See `vizsla.api.uploads.append`."""
    return _status(server.send("PATCH", "uploads", id, data=data, headers={"Upload-Offset": str(offset)}))


def put_picture(server: Server, id: str, path: str, data: bytes) -> Status:
    """See `vizsla.api.uploads.put_picture`."""
    return _status(server.send("PUT", "uploads", id, "pictures", *path.split("/"), data=data))


def pictures(server: Server, id: str, after: int = 0) -> tuple[list[Picture], int]:
    """See `vizsla.api.uploads.pictures`."""
    page = server.get("uploads", id, "pictures", after=after)
    return parsed(list[Picture], page["items"]), after if page["next"] is None else int(page["next"])


def _status(found: dict[str, Any]) -> Status:
    record = {name: value for name, value in found.items() if name not in OF_STATUS}
    return Status(parsed(Upload, record), *(found[name] for name in OF_STATUS))
