"""What a service needs to run: the modules of Vizsla that its processes import, and the libraries."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parents[1]
# What is started: the supervisor, and by its name the worker.
ROOTS = ("vizsla.serving.__main__", "vizsla.serving.worker")
# Files that are read beside the modules.
DATA = ("serving/static",)


class Needed(NamedTuple):
    """What some modules need."""

    modules: dict[str, Path]
    """the file of each module of Vizsla by its name, themselves and the packages around them included"""
    libraries: frozenset[str]
    """top-level names of what is imported from elsewhere, but for Python's own"""


def needed(roots: tuple[str, ...] = ROOTS) -> Needed:
    """All that modules import, at their top or within functions, and what that imports.

    The package itself is not followed: its functions open workspaces, which a service never does.
    """
    modules: dict[str, Path] = {}
    libraries = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name.partition(".")[0] != "vizsla":
            libraries.add(name.partition(".")[0])
            continue
        for part in _with_packages(name):
            path = _file(part)
            if path is not None and part not in modules:
                modules[part] = path
                if part != "vizsla":
                    waiting += _imported(ast.parse(path.read_text(encoding="utf-8")))
    return Needed(dict(sorted(modules.items())), frozenset(libraries - sys.stdlib_module_names))


def data() -> list[Path]:
    """The files beside the modules."""
    return [path for folder in DATA for path in sorted((SOURCE / folder).rglob("*")) if path.is_file()]


def _with_packages(name: str) -> Iterator[str]:
    """`a`, `a.b` and `a.b.c` for `a.b.c`."""
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _file(name: str) -> Path | None:
    """The file of a module; None for a name that is none, such as a function of a module."""
    place = SOURCE.joinpath(*name.split(".")[1:])
    package = place / "__init__.py"
    if package.is_file():
        return package
    return module if (module := place.with_name(f"{place.name}.py")).is_file() else None


def _imported(node: ast.AST) -> Iterator[str]:
    """The names that code imports, but for what only checkers of types do."""
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return
        case ast.Import(names=names):
            yield from (one.name for one in names)
        case ast.ImportFrom(module=str(module), names=names):
            yield module
            if module.partition(".")[0] == "vizsla":
                yield from (f"{module}.{one.name}" for one in names)
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _imported(child)
