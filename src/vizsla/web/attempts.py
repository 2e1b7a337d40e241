"""How often a password may be tried."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, ip_address, ip_network
from typing import NamedTuple

from vizsla.errors import TooMany


class Bound(NamedTuple):
    """So many tries in so long a time."""

    tries: int
    window_s: float


PLACE = Bound(100, 15 * 60)
"""of one place: many may sit behind one address"""
PAIR = Bound(5, 15 * 60)
"""of one name from one place"""
NAME = Bound(50, 60 * 60)
"""of one name from everywhere"""

# A check takes 64 MB and a tenth of a second on purpose. Those who wait for one hold a thread each.
AT_ONCE, WAITING = 2, 8
PATIENCE_S = 3.0
KEYS_KEPT = 20_000


class Attempts:
    """Counts the tries of passwords; kept in memory, so that a restart of the server forgives."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tries: OrderedDict[tuple[Bound, str, str], deque[float]] = OrderedDict()
        self._waiting = threading.BoundedSemaphore(WAITING)
        self._room = threading.BoundedSemaphore(AT_ONCE)

    @contextlib.contextmanager
    def one(self, address: str, name: str) -> Iterator[None]:
        """One try, which has failed when the block raises. Counted before it is made: many at once are many.

        Raises:
            TooMany: there were too many, or others are being looked at.
        """
        place, name = _place(address), name[:100]
        keys = [(PLACE, place, ""), (PAIR, place, name), (NAME, "", name)]
        with self._turn():
            self._count(keys)
            yield
        with self._lock:
            for key in keys[1:]:
                self._tries.pop(key, None)
            if tries := self._tries.get(keys[0]):
                tries.pop()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._waiting.acquire(blocking=False):
            raise _too_many(1.0)
        try:
            if not self._room.acquire(timeout=PATIENCE_S):
                raise _too_many(1.0)
        finally:
            self._waiting.release()
        try:
            yield
        finally:
            self._room.release()

    def _count(self, keys: list[tuple[Bound, str, str]]) -> None:
        now = self._clock()
        with self._lock:
            for key in keys:
                bound, tries = key[0], self._tries.setdefault(key, deque())
                while tries and tries[0] <= now - bound.window_s:
                    tries.popleft()
                if len(tries) >= bound.tries:
                    raise _too_many(tries[0] + bound.window_s - now)
                tries.append(now)
                self._tries.move_to_end(key)
            while len(self._tries) > KEYS_KEPT:
                self._tries.popitem(last=False)


def _place(address: str) -> str:
    """An address; of version 6 the network that a single customer has."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ip_network((found, 64), strict=False))


def _too_many(wait_s: float) -> TooMany:
    wait = max(1, math.ceil(wait_s))
    error = TooMany("There were too many attempts to sign in.", remedy=f"Try again in {wait} s.")
    error.retry_after_s = wait
    return error
