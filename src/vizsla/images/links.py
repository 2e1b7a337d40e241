"""A picture by its link, from the public internet only.

Who names a link has this machine ask for them. So that nobody looks through it into the network that it stands in,
every address that a host has must be public, the connection goes to an address that was looked at, and what is refused
is told in the same words whether something is there or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import queue
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Sequence
from concurrent.futures import Future
from functools import cache, partial
from typing import Any, NamedTuple

import httpcore
import httpx
import psutil

from vizsla.errors import InvalidInput, TooLarge, TooSlow, Unavailable, VizslaError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Reachable = Callable[[Address], bool]
Resolve = Callable[[str, int], Sequence[str]]
Write = Callable[[bytes], Awaitable[object]]

MAX_LINK = 2000
MAX_REDIRECTS = 5
TIMEOUT_S = 10.0
# Of one host: that may be looked at, and that are asked.
MAX_ADDRESSES = 32
MAX_ASKED = 4
# What is collected of a picture before it is written: a host may send it byte by byte.
PIECE = 2**16
# Of what stands before a picture, also of the answers before the last (1xx), of which a host may send any number.
MAX_HEAD = 2**15
# Of that, what is taken apart before others have their turn.
HEAD_PIECE = 2**12
PORTS = (80, 443)
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {
    "User-Agent": "Vizsla",
    # The formats that are decoded; a server that can choose sends no others.
    "Accept": "image/jpeg, image/png, image/webp, image/gif, image/bmp, image/tiff, image/*;q=0.1",
    "Accept-Encoding": "identity",
    "Connection": "close",
}
BROKEN = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)
SEND_IT = "Save the picture, and send the file."

_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
# 127.1, 2130706433 and 0x7f000001 are addresses to a resolver, and names to who reads them.
_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Not for everybody, though some versions of Python call them global.
_RESERVED = tuple(
    map(
        ipaddress.ip_network,
        (
            "168.63.129.16/32",  # what Azure tells its machines
            "192.0.0.0/24",  # protocols; what Oracle's cloud tells its machines
            "192.88.99.0/24",  # 6to4 relays
            "2001::/23",  # protocols; Teredo, which holds an IPv4 address
            "2001:db8::/32",  # documents
            "2002::/16",  # 6to4, which holds an IPv4 address
            "3fff::/20",  # documents
        ),
    )
)


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet; of NAT64, whether the IPv4 address in it is.

    One with a zone is of a network here: where a zone means nothing, the kernel ignores it, and asks the address.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        if address in _NAT64:
            return is_public(_inside(address))
        if address not in _UNICAST:
            return False
    special = address.is_multicast or address.is_reserved or any(address in network for network in _RESERVED)
    return address.is_global and not special


def is_reachable(address: Address) -> bool:
    """Whether pictures are fetched from there: public, and not of this machine, whose firewall it would pass by."""
    return is_public(address) and _inside(address) not in _own()


def _inside(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to; another address as it is, without a zone."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or ipaddress.IPv6Address(int(address))


def _own() -> set[Address]:
    """The addresses of this machine. Compared as addresses: as texts, each has many spellings."""
    own = set()
    for one in (one for them in psutil.net_if_addrs().values() for one in them):
        with contextlib.suppress(ValueError):  # of a card, not of a network
            own.add(_inside(ipaddress.ip_address(one.address)))
    return own


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system knows them; blocks."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class _Names:
    """Threads that look names up, apart from others: names whose servers are slow hold up nothing but links.

    They are daemons: a process that is to end, as by Ctrl-C, does not wait for those servers.
    """

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads
        self._started = 0
        self._asked: queue.SimpleQueue[tuple[Future[Sequence[str]], Callable[[], Sequence[str]]]] = queue.SimpleQueue()

    async def ask(self, resolve: Resolve, host: str, port: int) -> Sequence[str]:
        """What `resolve` says, or raises."""
        found: Future[Sequence[str]] = Future()
        self._asked.put((found, partial(resolve, host, port)))
        if self._started < self._num_threads:
            self._started += 1
            threading.Thread(target=self._work, name="names", daemon=True).start()
        return await asyncio.wrap_future(found)

    def _work(self) -> None:
        while True:
            found, look = self._asked.get()
            if not found.set_running_or_notify_cancel():
                continue  # who asked has gone
            try:
                found.set_result(look())
            except BaseException as error:
                found.set_exception(error)


_names = _Names(8)


async def fetch(
    link: str,
    write: Write,
    *,
    max_bytes: int,
    timeout_s: float = TIMEOUT_S,
    reachable: Reachable = is_reachable,
    resolve: Resolve = resolve,
    ports: Container[int] = PORTS,
    trusted: ssl.SSLContext | None = None,
) -> None:
    """Get the bytes behind a link, which say that they are a picture.

    Args:
        write: takes them, piece by piece as they come; also those of one that turns out to be refused.
        timeout_s: for all of it, with every redirect.
        reachable: which addresses may be asked.
        resolve: the addresses of a host.
        ports: that may be asked.
        trusted: certificates, by default those of well-known authorities.

    Raises:
        InvalidInput: it is no such link, it leads to no public address, or to no picture.
        TooLarge: it has more bytes.
        TooSlow: it took longer.
        Unavailable: the host does not answer, or not with a picture.
    """
    way = _Way(reachable, resolve, ports, trusted or _authorities())
    try:
        async with asyncio.timeout(timeout_s):
            place = _place(link, ports)
            for _ in range(1 + MAX_REDIRECTS):
                async with _asked(place, way, timeout_s) as answer:
                    if answer.status not in REDIRECTS:
                        await _content(answer, place, write, max_bytes)
                        return
                    place = _next(answer, place, ports)
    except TimeoutError:
        raise TooSlow(f"The link took longer than {timeout_s:g} s.", where=_shown(link), remedy=SEND_IT) from None
    raise InvalidInput(
        f"The link leads on more than {MAX_REDIRECTS} times.", where=_shown(link), remedy="Link to the picture itself."
    )


class _Way(NamedTuple):
    """How hosts are found and asked."""

    reachable: Reachable
    resolve: Resolve
    ports: Container[int]
    trusted: ssl.SSLContext


class _Place(NamedTuple):
    """Where a picture is said to be."""

    url: httpx.URL
    host: str
    """without the dot at its end"""
    port: int


@cache
def _authorities() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def _place(link: str, ports: Container[int]) -> _Place:
    """The parts of a link.

    Raises:
        InvalidInput: it is none, or one that is not followed.
    """
    remedy = "Write it like https://example.org/picture.jpg."
    try:
        url = httpx.URL(link.strip()) if len(link) <= MAX_LINK else None
    except (httpx.InvalidURL, ValueError):
        url = None
    if url is None or not url.scheme:
        raise InvalidInput("This is no link.", where=_shown(link), remedy=remedy)
    if url.scheme not in ("http", "https"):
        raise InvalidInput("Only links of http and https are followed.", where=_shown(link), remedy=remedy)
    if url.userinfo:
        # Not shown: it may hold a secret.
        raise InvalidInput("A link with a name or password is not followed.", where="link", remedy=SEND_IT)
    host = url.raw_host.decode("ascii").lower().removesuffix(".")
    if _literal(host) is None and not _NAME.fullmatch(host):
        raise InvalidInput("This is no link.", where=_shown(link), remedy=remedy)
    port = url.port if url.port is not None else {"http": 80, "https": 443}[url.scheme]
    if port not in ports:
        raise InvalidInput(f"No picture is fetched from port {port}.", where=_shown(link), remedy=SEND_IT)
    return _Place(url.copy_with(host=host), host, port)


def _literal(host: str) -> Address | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host)
    return None


def _shown(link: str) -> str:
    return link if len(link) <= 100 else f"{link[:100]}…"


async def _addresses(place: _Place, way: _Way) -> list[Address]:
    """Where the host of a link is asked for.

    Raises:
        InvalidInput: it has no address, or one that may not be asked: which of both it is would tell what names there
            are in the network here.
    """
    literal = _literal(place.host)
    if literal is not None:
        found = [literal]
    elif _NUMBER.fullmatch(place.host):
        found = []
    else:
        try:
            texts = await _names.ask(way.resolve, place.host, place.port)
            found = [ipaddress.ip_address(text) for text in texts]
        except (OSError, ValueError):  # among them a name that cannot be asked for
            found = []
    # A zone is refused whatever may be reached: which address the kernel makes of it was not looked at.
    zoned = any(isinstance(one, ipaddress.IPv6Address) and one.scope_id is not None for one in found)
    if zoned or not 0 < len(found) <= MAX_ADDRESSES or not all(map(way.reachable, found)):
        raise InvalidInput(
            "The link leads to no address on the public internet.",
            where=_shown(place.host),
            remedy="Check how it is written, and that this machine reaches the internet. Pictures of a private network "
            "are sent as files.",
        )
    return list(dict.fromkeys(found))[:MAX_ASKED]


class _Answer(NamedTuple):
    """What a place says of itself, and its content, which is still to come."""

    status: int
    headers: httpx.Headers
    content: httpcore.Response


@contextlib.asynccontextmanager
async def _asked(place: _Place, way: _Way, timeout_s: float) -> AsyncIterator[_Answer]:
    """The answer of a place, without its content.

    A connection is for one answer: another host at the same address has another certificate.
    """
    addresses = await _addresses(place, way)
    network = _Network()
    async with httpcore.AsyncConnectionPool(ssl_context=way.trusted, network_backend=network) as pool:
        response = await _first(pool, place, addresses, timeout_s)
        network.is_head = False
        try:
            yield _Answer(response.status, httpx.Headers(response.headers), response)
        finally:
            await response.aclose()


async def _first(
    pool: httpcore.AsyncConnectionPool, place: _Place, addresses: Sequence[Address], timeout_s: float
) -> httpcore.Response:
    """The answer at the first of the addresses that can be connected to. Nobody looks the name up again.

    Raises:
        Unavailable: there is none, or it is no answer.
    """
    # A connection that hangs leaves time for the next address.
    seconds = {"connect": timeout_s / 3, "read": timeout_s, "write": timeout_s, "pool": timeout_s}
    extensions = {"sni_hostname": place.host, "timeout": seconds}
    headers = HEADERS | {"Host": place.url.netloc.decode("ascii")}
    failed: Exception
    for address in addresses:
        url = httpcore.URL(scheme=place.url.scheme, host=str(address), port=place.port, target=place.url.raw_path)
        try:
            return await pool.handle_async_request(
                httpcore.Request("GET", url, headers=list(headers.items()), extensions=extensions)
            )
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            failed = error
        except BROKEN as error:
            raise _silence(error, place) from None
    raise _silence(failed, place)


class _Network(httpcore.AsyncNetworkBackend):
    """Connections on which nobody sends heads without end."""

    def __init__(self) -> None:
        self.is_head = True
        """until the last answer has come"""
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(self, *args: Any, **how: Any) -> httpcore.AsyncNetworkStream:
        """A connection."""
        return _Counted(self, await self._network.connect_tcp(*args, **how))


class _Counted(httpcore.AsyncNetworkStream):
    """A connection of which the head is read in small pieces, and only so many."""

    def __init__(self, network: _Network, stream: httpcore.AsyncNetworkStream) -> None:
        self._network = network
        self._stream = stream
        self._left = MAX_HEAD

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Some of what comes."""
        if not self._network.is_head:
            return await self._stream.read(max_bytes, timeout)
        if not self._left:
            raise httpcore.RemoteProtocolError("a head that is too long")
        data = await self._stream.read(min(max_bytes, self._left, HEAD_PIECE), timeout)
        self._left -= len(data)
        await asyncio.sleep(0)  # what is there already is read without waiting
        return data

    async def start_tls(self, *args: Any, **how: Any) -> httpcore.AsyncNetworkStream:
        """The same connection, from here on encrypted."""
        return _Counted(self._network, await self._stream.start_tls(*args, **how))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send something."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        """What is known about the connection."""
        return self._stream.get_extra_info(info)


def _silence(error: Exception, place: _Place) -> VizslaError:
    what = "The host of the link does not answer as it should."
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        what = "The certificate of the link's host is not trusted."
    return Unavailable(what, where=_shown(place.host), remedy=SEND_IT)


def _next(answer: _Answer, place: _Place, ports: Container[int]) -> _Place:
    """Where a place sends its callers, which is looked at like the first.

    Raises:
        InvalidInput: that cannot be followed.
    """
    try:
        target = str(place.url.join(answer.headers.get("location", "")))
    except (httpx.InvalidURL, ValueError):  # the standard library joins them, and raises errors of its own
        target = ""
    there = _place(target, ports)
    if place.url.scheme == "https" and there.url.scheme == "http":
        raise InvalidInput("The link leads from https to http.", where=_shown(place.host), remedy=SEND_IT)
    return there


async def _content(answer: _Answer, place: _Place, write: Write, max_bytes: int) -> None:
    """Write what a place answers, if it is a picture as it stands.

    Raises:
        Unavailable, InvalidInput, TooLarge: it is none.
    """
    where = _shown(place.host)
    if answer.status != httpx.codes.OK:
        raise Unavailable(
            f"The host of the link answers {answer.status}.",
            where=where,
            remedy="See whether the link opens in a browser that is not signed in there.",
        )
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind.startswith("image/") and kind != "application/octet-stream":
        raise InvalidInput(
            f"The link leads to no picture, but to {_shown(kind) or 'something without a type'}.",
            where=where,
            remedy="Link to the picture itself, not to the page that shows it.",
        )
    if answer.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        # What is packed may be a thousand times larger than what was counted.
        raise InvalidInput("The host of the link sends it packed.", where=where, remedy=SEND_IT)
    declared = answer.headers.get("content-length", "0")
    too_large = TooLarge(f"more than the limit of {max_bytes / 1e6:g} MB", where=where, remedy="Send a smaller one.")
    if declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise too_large
    num_bytes, piece = 0, bytearray()
    try:
        async for chunk in answer.content.aiter_stream():
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                raise too_large
            piece += chunk
            if len(piece) >= PIECE:
                await write(bytes(piece))
                piece.clear()
            await asyncio.sleep(0)  # others have their turn, also when it comes in a million pieces at once
    except BROKEN:
        raise Unavailable("The host of the link broke off.", where=where, remedy="Try again.") from None
    await write(bytes(piece))
