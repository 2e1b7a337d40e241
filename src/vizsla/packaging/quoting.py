"""Words from people, made harmless in the files of a package: each format has its own way to be broken out of."""

from __future__ import annotations

import json
import re

# Controls, what turns the direction of the text around it, and what cannot be written as UTF-8 or in YAML.
_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]+"
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]|~$])")


def line(text: str) -> str:
    """Text on one line."""
    return _UNSEEN.sub(" ", text).strip()


def yaml(value: object) -> str:
    """A value in YAML: JSON is a part of it, and neither guesses what an unquoted word may mean."""
    return json.dumps(value, ensure_ascii=False)


def compose(value: object) -> str:
    """As `yaml`, where `$` names a variable."""
    return yaml(value).replace("$", "$$")


def docker(text: str) -> str:
    """Text in a Dockerfile: quotes and variables are nothing but text, and it ends where it should."""
    return '"' + re.sub(r'(["\\$])', r"\\\1", line(text)) + '"'


def unit(text: str) -> str:
    """Text in a unit of systemd, where % names what it knows and a last backslash goes on with the next line."""
    return line(text).replace("%", "%%").replace("\\", "/")


def markdown(text: str) -> str:
    """Text in Markdown, also in a cell of a table."""
    escaped = line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", escaped)
