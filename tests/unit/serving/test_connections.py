"""Clients that mean harm to a server, before it has read a request of theirs: over real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from vizsla.serving import connections

LONG_ANSWER = b"x" * 20_000_000
HEAD = b"POST / HTTP/1.1\r\nhost: here\r\n"
ENDLESS = (
    b"GET /?" + b"a" * 1_000_000,
    HEAD + b"x: " + b"a" * 1_000_000,
    HEAD + b"a:b\r\n" * 200_000,
    HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n" + b"a:b\r\n" * 200_000,
    HEAD + b"transfer-encoding: chunked\r\n\r\n1;" + b"a" * 1_000_000,
)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the size of what it got; `/long` with much. A socket says what it was told."""
    if scope["type"] == "websocket":
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        return
    request = Request(scope, receive)
    size = sum([len(part) async for part in request.stream()])
    long = scope["path"] == "/long"
    await Response(LONG_ANSWER if long else str(size), headers={"x-path": scope["path"]})(scope, receive, send)


class Running:
    """A server on loopback."""

    def __init__(self) -> None:
        config = uvicorn.Config(
            app, http=connections.BoundedProtocol, lifespan="off", log_config=None, timeout_keep_alive=2
        )
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.server = uvicorn.Server(config)
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self.server.run, args=([self._listening],))
        self._thread.start()

    def connect(self) -> socket.socket:
        """A connection that waits ten seconds for everything."""
        return socket.create_connection(self._listening.getsockname(), timeout=10)

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Running]:
    running = Running()
    yield running
    running.stop()


def ask(connection: socket.socket, path: str = "/", body: bytes = b"") -> bytes:
    """The answer to a request, to the end of what was written at once."""
    head = f"POST {path} HTTP/1.1\r\nhost: here\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection.recv(65536)


def to_the_end(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    parts = []
    try:
        while part := connection.recv(1 << 20):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize("sent", ENDLESS, ids=["address", "header", "headers", "trailers", "chunk extension"])
def test_what_has_no_end_is_cut_off(server: Running, sent: bytes) -> None:
    with server.connect() as connection:
        try:
            connection.sendall(sent)
        except ConnectionError:
            return
        told = to_the_end(connection)
    assert told == b"" or told.startswith(b"HTTP/1.1 4"), "not answered as if it were good"


def test_bodies_and_requests_that_follow_are_served(server: Running) -> None:
    with server.connect() as connection:
        for size in (0, 1, 5_000_000, 3):
            assert ask(connection, body=b"b" * size).endswith(b"\r\n\r\n" + str(size).encode())
        connection.sendall(
            2 * (HEAD + b"content-length: 2\r\nx-own: y\r\n\r\nab")
        )  # the second before the first's answer
        assert connection.recv(65536).count(b"200 OK") + connection.recv(65536).count(b"200 OK") == 2
    with server.connect() as connection:
        connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 50_000 + b"0\r\nt: x\r\n\r\n")
        assert connection.recv(65536).endswith(b"\r\n\r\n50000")


def test_who_says_nothing_or_stops_in_the_middle_of_a_head_is_let_go(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.5)
    for said in (b"", b"GET / HT", HEAD + b"x: y\r\n"):
        with server.connect() as connection:
            connection.sendall(said)
            assert to_the_end(connection) == b""
    with server.connect() as connection:
        assert b"200 OK" in ask(connection)
        connection.sendall(b"GET /")  # and after a request as before it
        assert to_the_end(connection) == b""
    with connect(f"ws://127.0.0.1:{server.port}") as told:  # a socket may take its time
        time.sleep(1)
        told.send("after a while")
        assert told.recv(timeout=10) == "after a while"
    with server.connect() as connection:  # and so may a body, the application says how long
        connection.sendall(HEAD + b"content-length: 2\r\n\r\na")
        time.sleep(1)
        connection.sendall(b"b")
        assert connection.recv(65536).endswith(b"\r\n\r\n2")


def test_idle_connections_make_room(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    with server.connect() as busy:
        busy.sendall(HEAD + b"content-length: 2\r\n\r\na")
        idle = [server.connect() for _ in range(60)]
        with server.connect() as connection:
            assert b"200 OK" in ask(connection)
        deadline = time.monotonic() + 5
        while len(server.server.server_state.connections) > 20:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        busy.sendall(b"b")
        assert busy.recv(65536).endswith(b"\r\n\r\n2"), "who is served stays"
    for one in idle:
        one.close()


def test_an_answer_has_to_be_taken(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "TAKE_S", 0.5)
    with server.connect() as slow:
        slow.sendall(b"GET /long HTTP/1.1\r\nhost: here\r\n\r\n")
        taken = 0
        while taken < 4_000_000:  # for longer than an answer may lie
            taken += len(slow.recv(100_000))
            time.sleep(0.02)
        while taken < len(LONG_ANSWER):
            taken += len(slow.recv(1 << 20))
    with server.connect() as deaf:
        deaf.sendall(b"GET /long HTTP/1.1\r\nhost: here\r\n\r\n")
        assert len(deaf.recv(1)) == 1
        deadline = time.monotonic() + 10
        while server.server.server_state.connections:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(to_the_end(deaf)) < len(LONG_ANSWER)


def test_many_at_once_are_served(server: Running) -> None:
    async def one(number: int) -> bool:
        reader, writer = await asyncio.open_connection(*server._listening.getsockname())
        answers = []
        for _ in range(5):
            writer.write(HEAD + b"content-length: 5\r\n\r\n%05d" % number)
            answers.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(1))
        writer.close()
        return all(answer.endswith(b"5") for answer in answers)

    async def every() -> list[bool]:
        return await asyncio.gather(*(one(number) for number in range(200)))

    assert all(asyncio.run(every()))
