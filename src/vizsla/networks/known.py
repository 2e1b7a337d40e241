"""The names of all networks, kept in a file: who asks for a training learns of a slip of the pen before it is queued.

The names come from timm, which takes seconds to load; the first training of a workspace writes them down.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from vizsla import files
from vizsla.errors import InvalidInput, NotFound, VizslaError, did_you_mean

FILE = "networks.json"


def unknown(name: str, near: Sequence[str]) -> NotFound:
    """What is said of a network that is not there.

    Args:
        near: names that may have been meant.
    """
    return NotFound(
        f"There is no network named {name!r}.",
        where="net",
        remedy=f"{did_you_mean(name, near)} `vizsla network list` shows every name.".strip(),
    )


def keep(cache: Path, names: Sequence[str]) -> None:
    """Write the names down, unless that was done with this version of timm. A cache that cannot be written is none."""
    if _kept(cache) is None:
        with contextlib.suppress(OSError, VizslaError):
            cache.mkdir(exist_ok=True)
            files.write_json(cache / FILE, {"timm": version("timm"), "names": list(names)})


def refuse_unknown(cache: Path, name: str) -> None:
    """Raise `NotFound` when the names are known and `name` is none; what follows a dot is looked at later."""
    names = _kept(cache)
    if names is not None and name.partition(".")[0] not in names:
        raise unknown(name, names)


def _kept(cache: Path) -> list[str] | None:
    try:
        kept = files.read_json(cache / FILE)
        names = kept["names"] if kept["timm"] == version("timm") else None
    except (InvalidInput, OSError, KeyError, TypeError):
        return None
    return names if isinstance(names, list) else None
