"""Which notes are kept."""

from __future__ import annotations

import pytest

from vizsla.api.notes import cleaned
from vizsla.errors import InvalidInput


@pytest.mark.parametrize(
    "text",
    [
        "Voil\u00e0\u00a0: 12\u202f%\u00a0!",  # no-break spaces, as French has them
        "\u65e5\u672c\u8a9e\u3000\u306e\u3000\u30e1\u30e2",  # Japanese, with wide spaces
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with a zero-width non-joiner
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # a family: three faces, joined
        "a\tb\n\nc",
    ],
)
def test_every_writing_is_kept(text: str) -> None:
    assert cleaned(f" {text} \n") == text


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x7f", "\x9b", "\ud800", "\u202a", "\u202e", "\u2066", "\u2069"])
def test_what_controls_a_screen_or_turns_the_writing_is_refused(character: str) -> None:
    with pytest.raises(InvalidInput, match="control characters"):
        cleaned(f"a{character}b")
