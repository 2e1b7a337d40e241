"""How often a password may be tried."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address, ip_network

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from vizsla.errors import TooMany

# Of one name from one place, of one place (many may sit behind one address), and of one name from all places.
PAIR, PLACE, NAME = parse("5/15minutes"), parse("100/15minutes"), parse("50/hour")
# A check takes 64 MB and a tenth of a second on purpose.
AT_ONCE = 2
PATIENCE_S = 3.0


class Attempts:
    """Counts the tries of passwords; kept in memory, so that a restart of the server forgives."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._room = threading.BoundedSemaphore(AT_ONCE)

    @contextlib.contextmanager
    def one(self, address: str, name: str) -> Iterator[None]:
        """One try, which has failed when the block raises. Counted before it is made: many at once are many.

        Raises:
            TooMany: there were too many.
        """
        address, name = _place(address), name[:100]
        counted: list[tuple[RateLimitItem, tuple[str, ...]]] = [
            (PLACE, (address,)),
            (PAIR, (address, name)),
            (NAME, ("", name)),
        ]
        for item, keys in counted:
            if not self._limiter.hit(item, *keys):
                raise _too_many(self._limiter.get_window_stats(item, *keys).reset_time - time.time())
        if not self._room.acquire(timeout=PATIENCE_S):
            raise _too_many(PATIENCE_S)
        try:
            yield
        finally:
            self._room.release()
        for item, keys in counted[1:]:
            self._limiter.clear(item, *keys)


def _place(address: str) -> str:
    """An address; of version 6 the network that a single customer has."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((found, 64), strict=False)) if isinstance(found, IPv6Address) else address


def _too_many(wait_s: float) -> TooMany:
    wait_s = max(1, math.ceil(wait_s))
    error = TooMany("There were too many attempts to sign in.", remedy=f"Try again in {wait_s} s.")
    error.retry_after_s = wait_s
    return error
