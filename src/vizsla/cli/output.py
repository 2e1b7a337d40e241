"""What the terminal shows: tables, figures with their interval, errors. Text from outside is made harmless first."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from rich import box
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

# A file or a pipe has no width: what reads it wants whole lines.
out = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200)
err = Console(stderr=True, highlight=False)

STATE_STYLES = {
    "queued": "dim",
    "starting": "cyan",
    "running": "cyan",
    "stopping": "yellow",
    "ailing": "red",
    "done": "green",
    "stopped": "yellow",
    "failed": "red",
    "lost": "red",
}


def safe(text: object) -> str:
    """Text for rich: without markup, and with control characters (which could drive the terminal) spelled out."""
    return escape(printable(text))


def printable(text: object) -> str:
    """Text with control characters, which could drive the terminal, spelled out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def print_json(value: Any) -> None:
    """Print one JSON document: pydantic models, dataclass-like mappings, lists and plain values."""
    sys.stdout.write(json.dumps(_plain(value), indent=2) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def print_error(fields: Mapping[str, str]) -> None:
    """Print an expected error: what, where, and what to do."""
    err.print(f"[bold red]Error:[/] {safe(fields['what'])}", soft_wrap=True)
    if fields["where"]:
        err.print(f"  in {safe(fields['where'])}", style="dim", soft_wrap=True)
    for line in fields["remedy"].splitlines():
        err.print(f"  {safe(line)}", soft_wrap=True)


# A broken id or state could not be read or copied.
WHOLE = ("id", "state", "epoch", "time")


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = (), whole: Sequence[str] = WHOLE
) -> Table:
    """A calm table. Cells are markup already: pass text from outside through `safe`.

    Args:
        right: columns of numbers.
        whole: columns of which no cell is broken into lines.
    """
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in columns:
        justify: JustifyMethod = "right" if column in right else "left"
        made.add_column(column, justify=justify, overflow="fold", no_wrap=column in whole)
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    return made


def say_more(num: int, limit: int | None, *, which: str = "newest") -> None:
    """Below a table of `num` rows, say that there may be more where it ends at the limit."""
    if limit is not None and num >= limit:
        out.print(f"[dim]The {limit:,} {which}; there may be more, which --limit shows.[/]")


def facts(pairs: Sequence[tuple[str, object]]) -> Table:
    """Two columns: what, and its value."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="dim")
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(name, str(value))
    return made


def state(name: str) -> str:
    """The state of a run, in its colour."""
    return f"[{STATE_STYLES[name]}]{name}[/]"


def next_step(command: Sequence[str], why: str) -> None:
    """Say what to type next, quoted as a shell needs it."""
    out.print(f"\n[dim]{why}[/]\n  [bold]{safe(shlex.join(command))}[/]", soft_wrap=True)
