"""The names of all networks, kept in a file: who asks for a training learns of a slip of the pen before it is queued.

The names come from timm, which takes seconds to load; the first training of a workspace writes them down.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vizsla import files
from vizsla.errors import InvalidInput, NotFound, VizslaError, did_you_mean

FILE, FAMILIES, ANSWERS = "networks.json", "families.json", "networks"


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
    """Write the names down, unless that was done with this version of timm."""
    if _kept(cache) is None:
        _write(cache / FILE, {"timm": version("timm"), "names": list(names)})


def refuse_unknown(cache: Path, name: str) -> None:
    """Raise `NotFound` when the names are known and `name` is none; what follows a dot is looked at later."""
    names = _kept(cache)
    if names is not None and name.partition(".")[0] not in names:
        raise unknown(name, names)


def families(cache: Path, ask: Callable[[], Any]) -> list[tuple[str, str, str]]:
    """As `catalogue.families` tells them, from the cache or else by `ask`, whose answer is kept."""
    path = cache / FAMILIES
    try:
        kept = files.read_json(path)
        if kept["timm"] == version("timm"):
            return [(name, family, published) for name, family, published in kept["families"]]
    except (InvalidInput, OSError, KeyError, TypeError, ValueError):
        pass  # it is written anew
    answer = ask()
    keep(cache, answer["accepted"])
    _write(path, {"timm": version("timm"), "families": answer["families"]})
    return [(name, family, published) for name, family, published in answer["families"]]


def kept_answer(cache: Path, name: str) -> dict[str, Any] | None:
    """What is known of a network of the catalogue, for 1,000 classes in colour at the size that it was made for."""
    try:
        kept = files.read_json(cache / ANSWERS / f"{name}.json")
        answer = kept["answer"] if kept["timm"] == version("timm") else None
    except (InvalidInput, OSError, KeyError, TypeError):
        return None
    return answer if isinstance(answer, dict) and "num_parameters" in answer else None


def keep_answer(cache: Path, name: str, answer: dict[str, Any]) -> None:
    """Keep it for `kept_answer`."""
    _write(cache / ANSWERS / f"{name}.json", {"timm": version("timm"), "answer": answer})


def _write(path: Path, content: dict[str, Any]) -> None:
    """A cache that cannot be written is none."""
    with contextlib.suppress(OSError, VizslaError):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, content)


def _kept(cache: Path) -> list[str] | None:
    try:
        kept = files.read_json(cache / FILE)
        names = kept["names"] if kept["timm"] == version("timm") else None
    except (InvalidInput, OSError, KeyError, TypeError):
        return None
    return names if isinstance(names, list) else None
