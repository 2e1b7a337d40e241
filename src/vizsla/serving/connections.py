"""Connections that hold a server up for nobody: heads are bounded in bytes and in time, and answers have to be taken.

uvicorn bounds neither: one client could fill the memory with headers, or keep every place with connections on which it
says nothing, before any key is asked for.
"""

from __future__ import annotations

import asyncio
import resource
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 1024
"""bytes of a request line with its headers; as many may pass in a body without anything of the body in them"""
HEAD_S = 10.0
"""how long a head may take from its first byte, and the first one from the connection"""
TAKE_S = 30.0
"""how long nothing of an answer may be taken"""
MAX_CONNECTIONS = 1000
SPARE_FILES = 64

TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, for clients that mean harm."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        """See uvicorn."""
        super().__init__(*args, **settings)
        self.since = time.monotonic()
        self._unused = 0
        self._in_head = False
        self._head: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None
        self._unsent = 0

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Where there are too many, the one that has been idle for longest makes room."""
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > MAX_CONNECTIONS:
            others = [one for one in self.connections if isinstance(one, BoundedProtocol) and one.is_idle]
            min(others, key=lambda one: one.since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop(self._head, self._taking)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Refuses heads, and what is not body in bodies, beyond `MAX_HEAD`."""
        self._unused += len(data)
        super().data_received(data)
        # A socket that it has become speaks when it likes.
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        if self._unused > MAX_HEAD:
            if self.is_idle:
                self.transport.write(TOO_LARGE)
            self.transport.close()
        elif self._head is None and self.is_idle:
            self._await_head()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is here."""
        self._in_head = False
        self._unused = 0
        self._stop(self._head)
        self._head = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Something of a body is here."""
        self._unused = 0
        super().on_body(body)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; those behind a body are of no use to anybody."""
        if self._in_head:
            super().on_header(name, value)

    def on_response_complete(self) -> None:
        """The answer is written as far as the network takes it."""
        self.since = time.monotonic()
        super().on_response_complete()
        self._expect_taken()

    def pause_writing(self) -> None:
        """More is written than is taken."""
        super().pause_writing()
        self._expect_taken()

    def _await_head(self) -> None:
        self._head = self.loop.call_later(HEAD_S, self.transport.abort)

    def _expect_taken(self) -> None:
        """End the connection if nothing more of an answer is taken for `TAKE_S`."""
        if self._taking is None and (unsent := self.transport.get_write_buffer_size()):
            self._unsent = unsent
            self._taking = self.loop.call_later(TAKE_S, self._look)

    def _look(self) -> None:
        self._taking = None
        if self.transport.get_write_buffer_size() >= self._unsent:
            self.transport.abort()
        else:
            self._expect_taken()

    @staticmethod
    def _stop(*timers: asyncio.TimerHandle | None) -> None:
        for timer in timers:
            if timer is not None:
                timer.cancel()


def allow_files() -> None:
    """Let this process have as many open files as its connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS + SPARE_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
