"""Fields of forms, drawn from the settings of a stage: type, bounds, default and description are said there only."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel


class Field(NamedTuple):
    """A field of a form."""

    name: str
    """as forms send it, such as spec.width"""
    label: str
    help: str
    kind: Literal["number", "choice", "text"]
    choices: tuple[str, ...]
    min: float | None
    max: float | None
    step: str
    """of a number: "1" for whole ones"""
    default: str
    """as text; empty where there is none"""


def fields(model: type[BaseModel], prefix: str = "spec.") -> dict[str, Field]:
    """The fields of a model, by name."""
    schema = model.model_json_schema()
    return {name: _field(prefix + name, name, about) for name, about in schema["properties"].items()}


def _field(full: str, name: str, about: dict[str, Any]) -> Field:
    # Of what may be null, the other.
    kind = next((one for one in about.get("anyOf", []) if one.get("type") != "null"), about)
    choices = tuple(map(str, kind.get("enum", [])))
    is_number = kind.get("type") in ("integer", "number")
    default = about.get("default")
    return Field(
        name=full,
        label=name.replace("_", " ").capitalize(),
        help=about.get("description", ""),
        kind="choice" if choices else "number" if is_number else "text",
        choices=choices,
        min=kind.get("minimum", kind.get("exclusiveMinimum")),
        max=kind.get("maximum", kind.get("exclusiveMaximum")),
        step="1" if kind.get("type") == "integer" else "any",
        default="" if default is None else f"{default:g}" if isinstance(default, float) else str(default),
    )
