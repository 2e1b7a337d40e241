"""Which workspace a command works on: a folder of this machine, or what a server has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import vizsla
from vizsla.datasets.spec import upload_id
from vizsla.errors import InvalidInput
from vizsla.networks import own

if TYPE_CHECKING:
    from vizsla.cli.options import Common
    from vizsla.client.server import Server
    from vizsla.store.rows import Kind
    from vizsla.store.workspace import Workspace

DEFAULT, BESIDE_CLONE = Path("~/vizsla"), Path("~/vizsla-workspace")


def server_of(common: Common) -> str | None:
    """The address of the server that a command is to ask, or None where it works on a folder.

    Raises:
        InvalidInput: both a folder and a server are named.
    """
    named = common.workspace or common.database
    if common.server and named:
        raise InvalidInput("A command works on a folder or on a server.", remedy="Give --workspace or --server.")
    # A folder that is named on the command line is meant, whatever the environment says.
    return common.server or (None if named else os.environ.get("VIZSLA_SERVER") or None)


def folder_of(common: Common) -> Path:
    """The folder of the workspace of a command that works on one."""
    return common.workspace or Path(os.environ.get("VIZSLA_WORKSPACE") or _default())


def _default() -> Path:
    """Where work is kept unless somebody says otherwise. A `git clone` in a home folder takes the usual name."""
    return BESIDE_CLONE if (DEFAULT.expanduser() / "src" / "vizsla").is_dir() else DEFAULT


def folder(common: Common) -> Workspace:
    """The workspace of a command that works on a folder, open."""
    return vizsla.open(folder_of(common), database=common.database or os.environ.get("VIZSLA_DATABASE") or None)


def opened(common: Common) -> Workspace | Server:
    """See `Common.open`."""
    url = server_of(common)
    if url is None:
        return folder(common)
    from vizsla.cli import tokens
    from vizsla.client.server import base_of

    return vizsla.connect(url, os.environ.get("VIZSLA_TOKEN") or tokens.find(base_of(url)))


def require_here(common: Common, *, why: str) -> None:
    """Raise `InvalidInput` when a command that cannot is to ask a server."""
    url = server_of(common)
    if url is not None:
        where = "--server" if common.server else "VIZSLA_SERVER"
        raise InvalidInput(f"This command asks no server. {why}", where=f"{where}: {url}", remedy="Give --workspace.")


def require_whole(common: Common, *paths: Path | None) -> None:
    """Raise `InvalidInput` where a path is to name a file of a server and depends on where this command runs."""
    for path in paths:
        if path is not None and upload_id(path) is None and not path.is_absolute() and server_of(common) is not None:
            raise InvalidInput(
                "With a server, paths name files of the server.",
                where=str(path),
                remedy="Give the whole path there, or --upload.",
            )


def own_path(net: str, common: Common) -> str:
    """A network's name; of a user's own, its absolute path, unless there is no such file here, or a server is asked.

    What is not here is looked for in the folders of networks.
    """
    if server_of(common) is not None:
        return net
    path = Path(net).expanduser()
    return str(path.absolute()) if own.is_own(net) and path.exists() else net


def place(ws: Workspace | Server, kind: Kind, id: str) -> str:
    """Where a thing lies: its folder, or its address."""
    from vizsla.store.workspace import Workspace

    return str(ws.folder(kind, id)) if isinstance(ws, Workspace) else ws.place(f"{kind}s", id)
