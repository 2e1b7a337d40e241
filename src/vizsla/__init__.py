"""Vizsla turns a folder of labelled pictures into a trained, tested and exported vision model.

import vizsla
from vizsla.api import datasets, evaluations, models, runs

ws = vizsla.open("my-workspace")
dogs = datasets.create(ws, "dogs", DatasetSpec(source="photos"))
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from vizsla.client.server import Server
    from vizsla.datasets.spec import DatasetSpec
    from vizsla.errors import VizslaError
    from vizsla.store.workspace import Workspace
    from vizsla.training.spec import TrainingSpec

# ONNX Runtime would send figures of its use to its makers, unless this is there before it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__all__ = ["DatasetSpec", "TrainingSpec", "VizslaError", "connect", "open"]

_LAZY = {
    "DatasetSpec": "vizsla.datasets.spec",
    "TrainingSpec": "vizsla.training.spec",
    "VizslaError": "vizsla.errors",
}


def open(path: str | Path, *, database: str | None = None) -> Workspace:
    """Open the workspace at `path`, creating it when the folder is missing or empty.

    Args:
        database: address of a PostgreSQL database, `postgresql://USER@HOST/DATABASE`, which the workspace remembers;
            without one, a file in the workspace.

    Raises:
        InvalidInput: the path is a file, or a folder with other things in it; or the address is none.
        Conflict: the workspace was last used by a newer Vizsla, or uses another database.
        DatabaseUnavailable: the database does not answer.
    """
    from pathlib import Path

    from vizsla.api.workspace import open_workspace

    return open_workspace(Path(path), database)


def connect(url: str, token: str | None = None, *, account: str | None = None, password: str | None = None) -> Server:
    """A workspace that `vizsla serve` has at `url`: to be given to the verbs in place of one that is opened here.

    With a token nothing is asked yet. Paths that are given to verbs are paths on the server, but for `uploads.send`.

    Args:
        url: such as https://vizsla.example.org, or http://127.0.0.1:5000.
        token: what proves to the server who asks.
        account: in place of a token, for what a token may not do, such as changing accounts: who signs in.
        password: of that account.

    Raises:
        InvalidInput: this is no such address, or a secret would be sent without encryption to another machine.
        NotSignedIn: account and password do not belong together.
    """
    from vizsla.client.server import Server

    return Server(url, token, account=account, password=password)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vizsla' has no attribute {name!r}")
