"""What happened in a run beside its steps: where it went on, what it was told, how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import orjson

from vizsla.events import CURVE, Event

# Lines that begin so are most of a log, and are not parsed.
_OFTEN = tuple(f'{{"event": "{kind}"'.encode() for kind in (*CURVE, "progress"))
MAX_MARKS = 500


class Mark(NamedTuple):
    """Something that happened."""

    kind: str
    """the event's, or `memory` and `nan` of what is about those"""
    at: str
    step: int
    """the last that was done before"""
    text: str


def marks_of(path: Path) -> list[Mark]:
    """The marks in the events at a path, the last `MAX_MARKS` of them; what cannot be read is left out."""
    found: list[Mark] = []
    last = b""
    try:
        with path.open("rb") as lines:
            for line in lines:
                if line.startswith(_OFTEN):
                    last = line
                    continue
                event = _parsed(line)
                if event is not None:
                    found.append(_mark(event, _step(last)))
                    last = line if event["event"] == "resumed" else last
    except FileNotFoundError:
        return []
    return found[-MAX_MARKS:]


def _parsed(line: bytes) -> Event | None:
    try:
        event: Event = orjson.loads(line)
    except orjson.JSONDecodeError:  # cut short
        return None
    return event


def _step(line: bytes) -> int:
    event = _parsed(line) if line else None
    step = event.get("step", 0) if event else 0
    return int(step)


def _mark(event: dict[str, Any], step: int) -> Mark:
    kind, text = event["event"], ""
    match kind:
        case "started":
            text = f"Began: {event['epochs']:,} epochs, {event['total_steps']:,} steps."
        case "resumed":
            step = event["step"]
            text = f"Went on from step {step:,}, after it was {event.get('after') or 'lost'}."
        case "extended":
            text = f"Made longer: {event['epochs']:,} epochs, {event['total_steps']:,} steps."
        case "again":
            text = "Began anew, after its worker was killed."
        case "notice":
            text = event["text"]
        case "failed":
            text = event["error"]["what"]
        case _:
            text = kind.capitalize() + "."
    return Mark(_special(text) or kind, event.get("at", ""), step, text)


def _special(text: str) -> str:
    low = text.lower()
    if "memory" in low:
        return "memory"
    return "nan" if "finite" in low else ""
