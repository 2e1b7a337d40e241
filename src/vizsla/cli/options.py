"""Options drawn from a spec: one definition of a setting serves the command line, programs and files."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cyclopts import Parameter
from pydantic import BaseModel, ValidationError

from vizsla.errors import InvalidInput

DEFAULT_WORKSPACE = Path("~/vizsla")

Spec = TypeVar("Spec", bound=BaseModel)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command takes."""

    workspace: Annotated[
        Path, Parameter(env_var="VIZSLA_WORKSPACE", help="Folder that holds datasets, runs and models.")
    ] = DEFAULT_WORKSPACE
    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print one JSON document instead of text.")
    ] = False


def with_options(spec: type[BaseModel], *, skip: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Any]:
    """Replace the parameter `options` of a command by one option for each field of `spec` but those in `skip`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        fields = {name: field for name, field in spec.model_fields.items() if name not in skip}
        hints = get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[name])
            for name, parameter in inspect.signature(command).parameters.items()
            if name != "options"
        ]
        drawn = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=Annotated[_plain(field.annotation), Parameter(help=field.description)],
            )
            for name, field in fields.items()
        ]

        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name, field.default) for name, field in fields.items()}
            return command(*args, **kwargs, options=given)

        signature = inspect.Signature([*own, *drawn])
        wrapped.__signature__ = signature  # type: ignore[attr-defined]
        wrapped.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
        del wrapped.__wrapped__
        return wrapped

    return decorate


def _plain(annotation: Any) -> Any:
    """A type without pydantic's bounds, which `make` checks: its errors name the option."""
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        return Union[tuple(_plain(part) for part in get_args(annotation))]  # noqa: UP007 - made at run time
    return annotation


def make(spec: type[Spec], **values: Any) -> Spec:
    """Build a spec from options.

    Raises:
        InvalidInput: a value is out of its bounds; the message names the option.
    """
    try:
        return spec(**values)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        option = f"--{str(first['loc'][0]).replace('_', '-')}" if first["loc"] else ""
        value = f" (given: {first['input']!r})" if option else ""
        raise InvalidInput(f"{option}: {message}{value}." if option else f"{message}.") from None
