"""The commands that every noun has: `rename` and `notes`."""

from __future__ import annotations

from cyclopts import App

from vizsla.api import notes as written
from vizsla.api import things
from vizsla.cli.options import Common
from vizsla.cli.output import out, print_json, safe
from vizsla.client.server import Server
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


def _a(kind: Kind) -> str:
    return f"an {kind}" if kind == "evaluation" else f"a {kind}"


def safe_lines(text: str) -> str:
    """Lines of text for rich; see `safe`."""
    return "\n".join(safe(line) for line in text.splitlines())


def show_notes(ws: Workspace | Server, kind: Kind, id: str) -> None:
    """Print the notes on a thing, if there are any."""
    if found := written.read(ws, kind, id):
        out.print(f"\n{safe_lines(found)}", soft_wrap=True)
