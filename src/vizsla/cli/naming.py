"""The commands that every noun has: `rename`, `notes` and `tags`, and the option by which its list is filtered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import App, Parameter

from vizsla.api import notes as written
from vizsla.api import tags as labels
from vizsla.api import things
from vizsla.cli.options import Common
from vizsla.cli.output import out, print_json, safe
from vizsla.client.server import Server
from vizsla.errors import InvalidInput
from vizsla.store.rows import Kind
from vizsla.store.workspace import Workspace

OF = "Id, name, or the beginning of one."


def add_rename(app: App, kind: Kind) -> None:
    """Give the commands of a noun `rename`."""

    def rename(original: str, name: str, /, *, common: Common = Common()) -> None:
        with common.open() as ws:
            before = things.find(ws, original, kind).name
            entry = things.rename(ws, kind, original, name)
        if common.json:
            print_json(entry._asdict())
        else:
            out.print(f"The {kind} {safe(before)} is now called {safe(name)}.")

    rename.__doc__ = f"Give {_a(kind)} another name.\n\nArgs:\n    original: {OF}\n    name: The new name."
    app.command(rename)


def add_notes(app: App, kind: Kind) -> None:
    """Give the commands of a noun `notes`."""

    def notes(name: str, text: str | None = None, /, *, common: Common = Common()) -> None:
        with common.open() as ws:
            found = written.read(ws, kind, name) if text is None else written.write(ws, kind, name, text)
        if common.json:
            print_json({"notes": found})
        else:
            out.print(safe_lines(found) or "[dim]There are no notes.[/]", soft_wrap=True)

    notes.__doc__ = (
        f"Show what was written about {_a(kind)}, or write it.\n\nArgs:\n    name: {OF}\n"
        "    text: What to write in place of the notes that there are; an empty text removes them."
    )
    app.command(notes)


def add_tags(app: App, kind: Kind) -> None:
    """Give the commands of a noun `tags`."""

    def tags(
        name: str,
        /,
        *tag: str,
        clear: Annotated[bool, Parameter(help="Remove all tags.", negative="", show_default=False)] = False,
        common: Common = Common(),
    ) -> None:
        if clear and tag:
            raise InvalidInput("Tags are given, or removed with --clear.", where="--clear", remedy="Leave one out.")
        with common.open() as ws:
            found = labels.write(ws, kind, name, tag) if tag or clear else labels.read(ws, kind, name)
        if common.json:
            print_json({"tags": found})
        else:
            out.print(joined(found) or "[dim]There are no tags.[/]", soft_wrap=True)

    tags.__doc__ = (
        f"Show the tags of {_a(kind)}, short labels to find it by, or give it others.\n\nArgs:\n    name: {OF}\n"
        "    tag: The tags in place of those that it has. Baseline and baseline are one."
    )
    app.command(tags)


Tagged = Annotated[
    tuple[str, ...],
    Parameter(
        help="Only those with this tag; given more than once, those with all of them.", negative="", show_default=False
    ),
]


def joined(tags: Sequence[str]) -> str:
    """Tags as one text for rich; see `safe`."""
    return ", ".join(map(safe, tags))


def say_no_tagged(kind: Kind, tags: Sequence[str]) -> None:
    """Say that a list holds nothing, since no thing has all of some tags."""
    out.print(f"No {kind} has {'the tag' if len(tags) == 1 else 'all of the tags'} {joined(tags)}.", soft_wrap=True)


def _a(kind: Kind) -> str:
    return f"an {kind}" if kind == "evaluation" else f"a {kind}"


def safe_lines(text: str) -> str:
    """Lines of text for rich; see `safe`."""
    return "\n".join(safe(line) for line in text.splitlines())


def show_written(ws: Workspace | Server, kind: Kind, id: str) -> None:
    """Print the tags of a thing and the notes on it, if there are any."""
    show_tags(labels.read(ws, kind, id))
    if found := written.read(ws, kind, id):
        out.print(f"\n{safe_lines(found)}", soft_wrap=True)


def show_tags(tags: Sequence[str]) -> None:
    """Print the tags of a thing, if there are any."""
    if tags:
        out.print(f"\ntags: {joined(tags)}", soft_wrap=True)
