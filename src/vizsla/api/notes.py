"""Notes: what people write about a thing. They lie in its folder, as `notes.txt`."""

from __future__ import annotations

import unicodedata

from vizsla import files
from vizsla.api import workspace
from vizsla.api.served import served
from vizsla.errors import InvalidInput, NotFound
from vizsla.store.rows import Kind
from vizsla.store.workspace import Workspace

NOTES = "notes.txt"
MAX_CHARACTERS = 10_000
# These let a text look like another one: https://trojansource.codes
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@served
def read(ws: Workspace, kind: Kind, reference: str) -> str:
    """The notes on a thing, "" where there are none."""
    path = ws.folder(kind, ws.store.find(reference, kind).id) / NOTES
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


@served
def write(ws: Workspace, kind: Kind, reference: str, text: str) -> str:
    """Replace the notes on a thing, also on a run that is at work; returns them as they are kept.

    Raises:
        NotFound: there is no such thing.
        Forbidden: it belongs to another.
        InvalidInput: see `cleaned`.
        Conflict: the thing is in the making.
    """
    entry = workspace.to_change(ws, kind, reference)
    text = cleaned(text)
    workspace.require_finished(ws, entry)
    path = ws.folder(kind, entry.id) / NOTES
    try:
        files.write_text(path, text + "\n") if text else path.unlink(missing_ok=True)
    except FileNotFoundError:
        raise NotFound(f"The {kind} {entry.name!r} was deleted at this moment.") from None
    return read(ws, kind, entry.id)


def cleaned(text: str) -> str:
    """Notes without white space at their ends and at those of their lines.

    Raises:
        InvalidInput: they are too long, or hold control characters, also those that turn the direction of writing.
    """
    text = "\n".join(line.rstrip() for line in text.strip().splitlines())
    if len(text) > MAX_CHARACTERS:
        raise InvalidInput(
            f"Notes have {MAX_CHARACTERS:,} characters at most, and these {len(text):,}.", where="notes", remedy="Cut."
        )
    if any(map(_controls, text)):
        raise InvalidInput("The notes hold control characters.", where="notes", remedy="Write plain text.")
    return text


def _controls(character: str) -> bool:
    # Cs: a surrogate, which is no character. Other unprintable ones are of use: no-break spaces, joiners.
    return character in _TURNS or (unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t")
