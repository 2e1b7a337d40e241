"""Ids that sort by time and are short enough to say: six characters of seconds and four of chance."""

from __future__ import annotations

import secrets
import time

# Crockford's base 32: no i, l, o, u, so nothing is misread or rude.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
EPOCH_S = 1_735_689_600  # 2025-01-01 UTC; six characters last until 2059


def new_id() -> str:
    """A new id such as `1swk2a7qx4`. Two made in the same second differ by chance: the database refuses a clash."""
    seconds = int(time.time()) - EPOCH_S
    digits = [ALPHABET[(seconds >> shift) & 31] for shift in range(25, -1, -5)]
    return "".join(digits) + "".join(secrets.choice(ALPHABET) for _ in range(4))
