"""`vizsla doctor`: what this machine has, how fast it is, and what could be better."""

from __future__ import annotations

from itertools import groupby

from rich.padding import Padding
from rich.table import Table

from vizsla.api import machine
from vizsla.cli.opening import folder_of, require_here
from vizsla.cli.options import Common
from vizsla.cli.output import err, out, print_json, safe
from vizsla.machine.checks import Check

MARKS = {"good": "[green]good[/]", "note": "[yellow]note[/]", "problem": "[red]problem[/]"}


def doctor(*, common: Common = Common()) -> int:
    """Look at this machine: what it has, how fast it computes and copies, and what to do where that will not do.

    The exit status is 1 when there is a problem.
    """
    require_here(common, why="It looks at the machine that it runs on.")
    with err.status("Looking", spinner="dots") as status:
        found = machine.diagnose(folder_of(common), lambda stage: status.update(stage.capitalize()))
    problems = sum(check.verdict == "problem" for check in found)
    if common.json:
        print_json({"checks": [check._asdict() for check in found], "problems": problems})
    else:
        _show(found)
    return int(problems > 0)


def _show(found: list[Check]) -> None:
    width = max(len(check.name) for check in found)
    for topic, checks in groupby(found, key=lambda check: check.topic):
        rows = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        rows.add_column(min_width=7)
        rows.add_column(style="dim", min_width=width, no_wrap=True)
        rows.add_column(overflow="fold")
        for check in checks:
            rows.add_row(MARKS[check.verdict], check.name, safe(check.found))
            if check.remedy:
                rows.add_row("", "", safe(check.remedy))
        out.print(f"\n[bold]{safe(topic)}[/]")
        out.print(Padding(rows, (0, 0, 0, 2), expand=False))
    counts = [
        f"{count} {word}{'s' if count > 1 else ''}"
        for word in ("problem", "note")
        if (count := sum(check.verdict == word for check in found))
    ]
    out.print(f"\n{' and '.join(counts) or 'All is good'}.")
