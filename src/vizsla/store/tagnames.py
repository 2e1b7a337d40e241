"""What can be a tag, and the file of tags in the folder of a thing. Light: who speaks to a server uses it too."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from vizsla.errors import InvalidInput

FILE = "tags.txt"
MAX_TAGS, MAX_CHARACTERS = 20, 40


def cleaned(tags: Iterable[str]) -> list[str]:
    """Tags as they are kept: sorted, and of those that differ in case only the first one.

    Raises:
        InvalidInput: one cannot be a tag, or there are too many.
    """
    if isinstance(tags, str):  # notes are a text, and each of its letters would do
        raise InvalidInput("Tags are a list of texts.", where="tags", remedy=f"Give [{tags[:MAX_CHARACTERS]!r}].")
    found: dict[str, str] = {}
    for one in tags:
        text = plain(one)
        # As with names, what cannot be seen is not taken, nor what turns the direction of writing: a tag is to be
        # recognised among others.
        if not 0 < len(text) <= MAX_CHARACTERS or not text.isprintable() or "," in text or text.startswith("-"):
            raise InvalidInput(
                f"{one[:60]!r} cannot be a tag.",
                where="tags",
                remedy=f"A tag is 1 to {MAX_CHARACTERS} printable characters, without a comma, and without a dash at"
                " its beginning.",
            )
        found.setdefault(folded(text), text)
    if len(found) > MAX_TAGS:
        what = f"A thing has {MAX_TAGS} tags at most, and these are {len(found):,}."
        raise InvalidInput(what, where="tags", remedy="Leave some out.")
    return [found[name] for name in sorted(found)]


def plain(text: str) -> str:
    """A text as a tag has it: composed, with single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def folded(text: str) -> str:
    """What tags are compared by: Baseline and baseline are one."""
    return plain(text).casefold()


def of_folder(folder: Path) -> list[str]:
    """The tags that the folder of a thing has. What else somebody has written into its file is left out."""
    try:
        lines = (folder / FILE).read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    found = []
    for line in filter(None, lines):
        with contextlib.suppress(InvalidInput):
            found += cleaned([line])
    return cleaned(found[:MAX_TAGS])
