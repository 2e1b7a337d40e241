"""What lets a verb be given a server as well as a workspace."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import Concatenate, ParamSpec, TypeVar

from vizsla.client.server import Server
from vizsla.store.workspace import Workspace

Options = ParamSpec("Options")
Result = TypeVar("Result")


def served(
    verb: Callable[Concatenate[Workspace, Options], Result],
) -> Callable[Concatenate[Workspace | Server, Options], Result]:
    """Let a verb be given a server: then it is the function of its name in `vizsla.client`, which asks by REST."""

    @functools.wraps(verb)
    def either(ws: Workspace | Server, /, *args: Options.args, **options: Options.kwargs) -> Result:
        if isinstance(ws, Workspace):
            return verb(ws, *args, **options)
        twin = import_module(f"vizsla.client.{verb.__module__.rpartition('.')[2]}")
        answer: Result = getattr(twin, verb.__name__)(ws, *args, **options)
        return answer

    return either
