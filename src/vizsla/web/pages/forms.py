"""The fields of a form, drawn from a spec: one definition of a setting serves pages, options and files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

# Words that are no words when their underscores are taken away.
TITLES = {
    "ema": "Running mean (EMA)",
    "hue": "Change of hue",
    "net": "Network",
    "rms_decay": "RMS decay",
    "gpu_memory": "GPU memory",
    "val_every": "Validate every",
    "tune": "What is trained",
    "crop": "Crop side",
    "jitter": "Colour jitter",
    "val_percent": "Validation percent",
    "val_folder": "Validation pictures",
    "test_folder": "Test pictures",
}


class Input(NamedTuple):
    """A field of a form. Numbers are texts as a form holds them."""

    name: str
    """where it is in the request, such as spec.epochs"""
    id: str
    title: str
    kind: str
    """number, text, check or choice"""
    sentence: str
    value: str
    """what is filled in; "" for the default"""
    usual: str
    """the default; "" where it depends on other fields"""
    choices: tuple[tuple[str, str], ...]
    """values and their titles"""
    type: str
    """what the value is sent as: string, number or boolean"""
    low: str
    high: str
    bounds: str
    """in words; "" where any number will do"""
    step: str
    required: bool

    @property
    def changed(self) -> bool:
        """Whether something else than the default is filled in."""
        return self.value not in ("", self.usual)


def inputs(
    spec: type[BaseModel],
    prefix: str,
    names: Iterable[str] | None = None,
    values: Mapping[str, Any] | None = None,
    *,
    shows_defaults: bool = False,
) -> dict[str, Input]:
    """The fields of a spec by their names, as `form.html` draws them.

    Args:
        prefix: where in the request the spec is, such as `spec`; "" where it is the request.
        names: which, and in which order; all by default.
        values: what is filled in; the rest keeps its default.
        shows_defaults: whether defaults are filled in like what is asked for; else a field that is left empty names it.
    """
    schema = spec.model_json_schema()
    required, definitions = schema.get("required", []), schema.get("$defs", {})
    found = {}
    for name in names if names is not None else schema["properties"]:
        about = _resolved(schema["properties"][name], definitions)
        place = f"{prefix}.{name}" if prefix else name
        one = _input(name, place, about, values or {}, required=name in required)
        found[name] = one._replace(value=one.value or one.usual) if shows_defaults else one
    return found


def groups(
    spec: type[BaseModel],
    prefix: str,
    grouped: Mapping[str, Iterable[str]],
    *,
    skip: Iterable[str] = (),
    values: Mapping[str, Any] | None = None,
) -> dict[str, list[Input]]:
    """The fields of a spec by the titles of their groups, without those in `skip`."""
    every = inputs(spec, prefix, values=values)
    left_out = set(skip)
    found = {title: [every[name] for name in names if name not in left_out] for title, names in grouped.items()}
    return {title: fields for title, fields in found.items() if fields}


def title_of(name: str) -> str:
    """A setting's name for people: `batch_size` is `Batch size`."""
    return TITLES.get(name) or name.replace("_", " ").capitalize()


def text_of(value: Any) -> str:
    """A value as a form holds it: "" for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) and math.isclose(value, float(f"{value:g}")) else str(value)


def _resolved(about: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A schema without references and without the `or null`; `optional` says whether there was one."""
    parts = about.get("anyOf", [])
    real = [part for part in parts if part.get("type") != "null"]
    whole = {**(real[0] if real else {}), **{name: value for name, value in about.items() if name != "anyOf"}}
    if "$ref" in whole:
        whole |= definitions[whole.pop("$ref").rpartition("/")[2]]
    if words := [part["const"] for part in real if "const" in part]:  # one word beside others, such as "auto"
        whole["enum"] = [*words, *whole.get("enum", [])]
    return whole | {"optional": len(real) < len(parts)}


def _input(name: str, place: str, about: dict[str, Any], values: Mapping[str, Any], *, required: bool) -> Input:
    kind, type_ = _kind(about)
    default = about.get("default")
    usual = text_of(default)
    given = values.get(name, default)
    return Input(
        name=place,
        id="f-" + place.replace(".", "-"),
        title=title_of(name),
        kind=kind,
        sentence=about.get("description", ""),
        # A number or text that is the default shows as such; a choice or a check has to show something.
        value="" if kind in ("number", "text") and text_of(given) == usual else text_of(given),
        usual=usual,
        choices=_choices(about, type_),
        type=type_,
        low=text_of(about.get("minimum", about.get("exclusiveMinimum"))),
        high=text_of(about.get("maximum", about.get("exclusiveMaximum"))),
        bounds=_bounds(about),
        step="1" if about.get("type") == "integer" else "any",
        required=required,
    )


def _kind(about: dict[str, Any]) -> tuple[str, str]:
    """How a field is drawn, and as what its value is sent."""
    if "enum" in about:
        return "choice", "string"
    if about.get("type") == "boolean":
        return ("choice", "boolean") if about["optional"] else ("check", "boolean")
    return ("number", "number") if about.get("type") in ("integer", "number") else ("text", "string")


def _choices(about: dict[str, Any], type_: str) -> tuple[tuple[str, str], ...]:
    named: tuple[tuple[str, str], ...]
    if "enum" in about:
        named = tuple((value, value) for value in about["enum"])
    elif type_ == "boolean" and about["optional"]:
        named = (("true", "on"), ("false", "off"))
    else:
        return ()
    return (("", "default"), *named) if about["optional"] else named


def _bounds(about: dict[str, Any]) -> str:
    low, high = about.get("minimum"), about.get("maximum")
    above, below = about.get("exclusiveMinimum"), about.get("exclusiveMaximum")
    parts = [f"above {_number(above)}"] if above is not None else []
    parts += [f"below {_number(below)}"] if below is not None else []
    if low is not None and high is not None:
        return f"{_number(low)} to {_number(high)}"
    parts += [f"{_number(low)} or more"] if low is not None else []
    parts += [f"{_number(high)} at most"] if high is not None else []
    return ", ".join(parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"
