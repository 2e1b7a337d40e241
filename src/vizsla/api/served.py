"""What lets a verb be given a server as well as a workspace."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import Concatenate, ParamSpec, TypeVar

from vizsla.client.server import Server
from vizsla.errors import InvalidInput
from vizsla.store.workspace import Workspace

Options = ParamSpec("Options")
Result = TypeVar("Result")


def served(
    verb: Callable[Concatenate[Workspace, Options], Result],
) -> Callable[Concatenate[Workspace | Server, Options], Result]:
    """Let a verb be given a server: then it is the function of its name in `vizsla.client`, which asks by REST.

    A negative `limit`, which folders and servers would each understand in a way of their own, is refused before.
    """

    @functools.wraps(verb)
    def either(ws: Workspace | Server, /, *args: Options.args, **options: Options.kwargs) -> Result:
        limit = options.get("limit")
        if isinstance(limit, int) and limit < 0:
            raise InvalidInput(f"The limit {limit} is negative.", where="limit", remedy="Give 0 or more.")
        if isinstance(ws, Workspace):
            return verb(ws, *args, **options)
        twin = import_module(f"vizsla.client.{verb.__module__.rpartition('.')[2]}")
        answer: Result = getattr(twin, verb.__name__)(ws, *args, **options)
        return answer

    return either
