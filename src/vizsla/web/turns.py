"""Reading in turns: who reads hundreds of rows and files, each in a moment, does so alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

PATIENCE_S = 1.0

_reading = threading.Lock()


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """Wait until nobody else puts a part of a list together; not for long, as a database or a disk may be away.

    Each row and each file lets go of the interpreter's lock for a moment. Forty threads that do so at a time hand it
    round thousands of times a second: they keep a core busy with that alone, and each other waiting ten times as long
    as one after the other.
    """
    alone = _reading.acquire(timeout=PATIENCE_S)
    try:
        yield
    finally:
        if alone:
            _reading.release()
