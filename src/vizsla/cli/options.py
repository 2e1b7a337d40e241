"""Options drawn from a spec: one definition of a setting serves the command line, programs and files."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter, Token
from pydantic import BaseModel, ValidationError

from vizsla.cli import opening
from vizsla.errors import InvalidInput

if TYPE_CHECKING:
    from vizsla.client.server import Server
    from vizsla.store.workspace import Workspace

Spec = TypeVar("Spec", bound=BaseModel)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Output:
    """What every command takes."""

    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print one JSON document instead of text.")
    ] = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common(Output):
    """What a command takes that works on a workspace."""

    workspace: Annotated[
        Path | None,
        Parameter(
            show_default=False,
            help="Folder that holds datasets, runs and models. Default: VIZSLA_WORKSPACE, or ~/vizsla.",
        ),
    ] = None
    database: Annotated[
        str | None,
        Parameter(
            show_default=False,
            help="PostgreSQL database, as postgresql://USER@HOST/NAME; the workspace remembers it. Without one, a file "
            "in the workspace. Default: VIZSLA_DATABASE.",
        ),
    ] = None
    server: Annotated[
        str | None,
        Parameter(
            show_default=False,
            help="Server to ask in place of a folder, such as https://vizsla.example.org. Default: VIZSLA_SERVER. "
            "Its token is what `vizsla login` keeps, or VIZSLA_TOKEN.",
        ),
    ] = None

    def open(self) -> Workspace | Server:
        """The workspace that a command works on, a folder's or a server's, to be closed by a `with` statement."""
        return opening.opened(self)

    def open_here(self, *, why: str) -> Workspace:
        """As `open`, for a command that works on folders of this machine only.

        Args:
            why: it does, as a sentence.

        Raises:
            InvalidInput: it is to ask a server.
        """
        opening.require_here(self, why=why)
        return opening.folder(self)


def with_options(
    spec: type[BaseModel],
    *,
    skip: tuple[str, ...] = (),
    groups: dict[str, tuple[str, ...]] | None = None,
    given_only: bool = False,
) -> Callable[[Callable[..., Any]], Any]:
    """Replace the parameter `options` of a command by one option for each field of `spec` but those in `skip`.

    `groups` names the fields that the help shows together, in that order. With `given_only` the command gets the
    options that were given, whatever their value, and no defaults.
    """
    grouped: dict[str, dict[str, Any]] = {
        name: {"group": Group(title, sort_key=number)}
        for number, (title, names) in enumerate((groups or {}).items(), 1)
        for name in names
    }

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
                annotation=Annotated[
                    _plain(field.annotation),
                    Parameter(
                        help=field.description,
                        show_default=False if given_only else None,
                        # Not even None without one: cyclopts hides what is said to be in no group.
                        **grouped.get(name, {}),
                        **_converter(field.annotation),
                    ),
                ],
            )
            for name, field in fields.items()
        ]

        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            options = {} if given_only else {name: field.default for name, field in fields.items()}
            options |= {name: kwargs.pop(name) for name in fields if name in kwargs}
            return command(*args, **kwargs, options=options)

        signature = inspect.Signature([*own, *drawn])
        wrapped.__signature__ = signature  # type: ignore[attr-defined]
        wrapped.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
        del wrapped.__wrapped__
        return wrapped

    return decorate


def whole(_: Any, tokens: Sequence[Token]) -> int | None:
    """An int from an option, or None; cyclopts by itself would round 1.5."""
    text = tokens[0].value
    if text.lower() == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def _limit(kind: Any, tokens: Sequence[Token]) -> int | None:
    """As `whole`, but not 0, which shows nothing; the verbs refuse what is less."""
    found = whole(kind, tokens)
    if found == 0:
        raise ValueError("a number of 1 or more is needed, or none for all")
    return found


Limit = Annotated[int | None, Parameter(help="Show so many at most, the newest; none: all.", converter=_limit)]
SHOWN = 50


def count(kind: Any, tokens: Sequence[Token]) -> int:
    """An int from an option, as `whole`, but never None."""
    found = whole(kind, tokens)
    if found is None:
        raise ValueError("a number is needed")
    return found


def _converter(annotation: Any) -> dict[str, Any]:
    kinds = get_args(_plain(annotation)) or (_plain(annotation),)
    return {"converter": whole} if int in kinds else {}


def _plain(annotation: Any) -> Any:
    """A type without pydantic's bounds, which `make` checks: its errors name the option."""
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        return Union[tuple(_plain(part) for part in get_args(annotation))]  # noqa: UP007 - made at run time
    return annotation


def make(spec: type[Spec], *, of: str = "", **values: Any) -> Spec:
    """Build a spec from options.

    Args:
        of: what the names of its options begin with.

    Raises:
        InvalidInput: a value is out of its bounds; the message names the option.
    """
    try:
        return spec(**values)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "string_pattern_mismatch":
            message = "this is not a value that it takes; --help shows which ones it does"
        option = f"--{of}{str(first['loc'][0]).replace('_', '-')}" if first["loc"] else ""
        value = f" (given: {first['input']!r})" if option else ""
        raise InvalidInput(f"{option}: {message}{value}." if option else f"{message}.") from None


def given(spec: BaseModel) -> list[str]:
    """The options of a command that make `spec`: those fields that are not at their default."""
    words = []
    for name, value in spec.model_dump(exclude_defaults=True, mode="json").items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", str(value)]
    return words
