"""What the database said last, for what goes on for long: a moment in which it is away ends neither socket nor log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from vizsla.errors import DatabaseUnavailable

Answer = TypeVar("Answer")

# As long as a database may take until it is started again.
AWAY_FOR_S = 60.0


class Steady(Generic[Answer]):
    """A question that is asked again and again; while the database is away, its last answer holds."""

    def __init__(self, ask: Callable[[], Answer], last: Answer) -> None:
        """`last` is the answer until now."""
        self._ask = ask
        self._last = last
        self._answered_at = time.monotonic()

    def look(self) -> Answer:
        """The answer now.

        Raises:
            DatabaseUnavailable: the last one is older than `AWAY_FOR_S`.
        """
        try:
            self._last = self._ask()
        except DatabaseUnavailable:
            if time.monotonic() - self._answered_at > AWAY_FOR_S:
                raise
        else:
            self._answered_at = time.monotonic()
        return self._last
