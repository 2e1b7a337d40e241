"""Pictures by links, from servers on the loopback address; what leads into private networks is refused."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ipaddress
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from tests.support import certificate

from vizsla.errors import InvalidInput, TooLarge, TooSlow, Unavailable, VizslaError
from vizsla.images import links

PICTURE = b"\x89PNG what is behind it is for the decoder to say"
NOWHERE = "The link leads to no address on the public internet."


class Site(BaseHTTPRequestHandler):
    """A site that serves a picture, and misbehaves in many ways."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Be quiet."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers))  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):  # who asked may have gone
            getattr(self, self.path.partition("?")[0].strip("/").replace("-", "_").partition("/")[0] or "picture")()

    def answer(self, status: int = 200, body: bytes = PICTURE, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Type": "image/png", "Content_Length": str(len(body)), **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def picture(self) -> None:
        self.answer()

    def unknown_type(self) -> None:
        self.answer(Content_Type="application/octet-stream; x=y")

    def page(self) -> None:
        self.answer(Content_Type="text/html; charset=utf-8")

    def no_type(self) -> None:
        self.answer(Content_Type="")

    def missing(self) -> None:
        self.answer(404)

    def partial(self) -> None:
        self.answer(206)

    def packed(self) -> None:
        self.answer(body=gzip.compress(bytes(10_000_000)), Content_Encoding="gzip")

    def cut(self) -> None:
        self.answer(Content_Length="1000")
        self.close_connection = True

    def declared(self) -> None:
        self.answer(Content_Length="40000000000")

    def endless(self) -> None:
        self.answer(body=b"", Content_Length="", Connection="close")
        while True:
            self.wfile.write(bytes(100_000))

    def large(self) -> None:
        self.answer(body=bytes(500_000))

    def crumbs(self) -> None:
        self.answer(body=b"", Content_Length="", Transfer_Encoding="chunked")
        self.wfile.write(b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n")

    def drip(self) -> None:
        self.answer(body=b"", Content_Length="1000")
        for _ in range(100):
            self.wfile.write(b"x")
            time.sleep(0.1)

    def drip_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(100):
            self.wfile.write(f"X-{number}: y\r\n".encode())
            time.sleep(0.1)

    def many_headers(self) -> None:
        while True:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000)

    def informs(self) -> None:
        for _ in range(3):
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
        self.answer()

    def endless_informing(self) -> None:
        while True:
            self.wfile.write(b"HTTP/1.1 102 x\r\n\r\n" * 5000)

    def no_http(self) -> None:
        self.wfile.write(b"220 mail.example ESMTP\r\n")
        self.close_connection = True

    def to(self) -> None:
        self.answer(302, b"", Location=self.path.partition("?")[2])

    def loop(self) -> None:
        self.answer(302, b"", Location="/loop")

    def nowhere(self) -> None:
        self.answer(302, b"", Location="")

    def hops(self) -> None:
        left = int(self.path.rpartition("/")[2])
        self.answer(307, b"", Location=f"/hops/{left - 1}" if left > 1 else "/picture")


@contextlib.contextmanager
def serving(trusted: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Any]:
    server = ThreadingHTTPServer((host, 0), Site)
    server.asked = []  # type: ignore[attr-defined]
    if trusted is not None:
        server.socket = trusted.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def site() -> Iterator[Any]:
    with serving() as server:
        yield server


def _here(address: links.Address) -> bool:
    """In place of the public internet: 127.0.0.1. All else here is private."""
    return str(address) == "127.0.0.1"


USUAL: dict[str, Any] = {
    "reachable": _here,
    "ports": range(65536),
    "resolve": lambda host, port: ["127.0.0.1"],
}


def get(link: str, **how: Any) -> bytes:
    return b"".join(pieces(link, **{"max_bytes": 10**6, **USUAL, **how}))


def pieces(link: str, **how: Any) -> list[bytes]:
    """What is written, as it comes."""
    written: list[bytes] = []

    async def write(data: bytes) -> None:
        written.append(data)

    asyncio.run(links.fetch(link, write, **how))
    return written


def refused(kind: type[VizslaError], link: str, **how: Any) -> VizslaError:
    with pytest.raises(kind) as found:
        get(link, **how)
    assert found.value.what
    assert found.value.remedy
    return found.value


def of(site: Any, path: str = "/picture", host: str = "pictures.example") -> str:
    return f"http://{host}:{site.server_address[1]}{path}"


def test_a_picture_is_fetched(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert get(of(site)) == PICTURE
    assert get(of(site, "/unknown-type")) == PICTURE
    assert get(of(site, "/hops/5")) == PICTURE
    assert get(of(site, "/informs")) == PICTURE
    assert get(of(site, host="127.0.0.1")) == PICTURE
    path, headers = site.asked[0]
    assert path == "/picture"
    assert headers["Host"] == f"pictures.example:{site.server_address[1]}"
    assert headers["Accept-Encoding"] == "identity"
    assert get(of(site, "/picture?ä=ü", host="bücher.example.")) == PICTURE
    path, headers = site.asked[-1]
    assert path == "/picture?%C3%A4=%C3%BC"
    assert headers["Host"] == f"xn--bcher-kva.example:{site.server_address[1]}"
    assert "cookie" not in headers
    assert "authorization" not in headers


def test_a_picture_is_written_as_it_comes(site: Any) -> None:
    """It is nowhere in memory as a whole, and bytes that come one by one are not written one by one."""
    written = pieces(of(site, "/large"), max_bytes=10**6, **USUAL)
    assert (len(b"".join(written)), len(written) > 3) == (500_000, True)
    assert max(map(len, written)) < 3 * links.PIECE
    assert len(pieces(of(site, "/crumbs"), max_bytes=10**6, **USUAL)) == 1


@pytest.mark.parametrize(
    ("path", "kind", "what"),
    [
        ("/page", InvalidInput, "The link leads to no picture, but to text/html."),
        ("/no-type", InvalidInput, "The link leads to no picture, but to something without a type."),
        ("/missing", Unavailable, "The host of the link answers 404."),
        ("/partial", Unavailable, "The host of the link answers 206."),
        ("/packed", InvalidInput, "The host of the link sends it packed."),
        ("/cut", Unavailable, "The host of the link broke off."),
        ("/no-http", Unavailable, "The host of the link does not answer as it should."),
        ("/many-headers", Unavailable, "The host of the link does not answer as it should."),
        ("/endless-informing", Unavailable, "The host of the link does not answer as it should."),
        ("/declared", TooLarge, "more than the limit of 1 MB"),
        ("/endless", TooLarge, "more than the limit of 1 MB"),
        ("/loop", InvalidInput, "The link leads on more than 5 times."),
        ("/hops/6", InvalidInput, "The link leads on more than 5 times."),
        ("/to?file:///etc/passwd", InvalidInput, "Only links of http and https are followed."),
        ("/to?ftp://pictures.example/a.png", InvalidInput, "Only links of http and https are followed."),
        ("/to?http://ada:secret@pictures.example/", InvalidInput, "A link with a name or password is not followed."),
        ("/to?http://[", InvalidInput, "This is no link."),
        ("/to?http:////]", InvalidInput, "This is no link."),
        ("/to?//[::1", InvalidInput, "This is no link."),
        ("/to?http://10.0.0.1/", InvalidInput, NOWHERE),
        ("/to?//169.254.169.254/latest/meta-data", InvalidInput, NOWHERE),
    ],
)
def test_what_is_no_picture_is_refused(site: Any, path: str, kind: type[VizslaError], what: str) -> None:
    assert refused(kind, of(site, path)).what == what


@pytest.mark.parametrize("path", ["/drip", "/drip-headers", "/to?/to?/drip"])
def test_a_host_that_drips_gets_no_more_time(site: Any, path: str) -> None:
    began = time.monotonic()
    assert refused(TooSlow, of(site, path), timeout_s=0.6).what == "The link took longer than 0.6 s."
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("path", ["/endless-informing", "/many-headers"])
def test_a_host_whose_answer_has_no_beginning_leaves_others_their_turns(site: Any, path: str) -> None:
    async def never(data: bytes) -> None:
        raise AssertionError("there is no picture")

    async def both() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(links.fetch(of(site, path), never, max_bytes=9, **USUAL))
        began = last = loop.time()
        longest = 0.0
        while not task.done():
            await asyncio.sleep(0)
            longest, last = max(longest, loop.time() - last), loop.time()
        with pytest.raises(Unavailable):
            await task
        return longest, last - began

    asyncio.run(both())  # what is loaded at its first use is loaded then
    longest, whole = asyncio.run(both())
    assert longest < 0.5
    assert whole < 3


def test_a_host_that_says_nothing_gets_no_more_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        refused(TooSlow, f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=0.5)

    def slowly(host: str, port: int) -> list[str]:
        time.sleep(1)
        return ["127.0.0.1"]

    began = time.monotonic()
    refused(TooSlow, "http://pictures.example/", timeout_s=0.3, resolve=slowly)
    assert time.monotonic() - began < 3  # with the end of the loop


SLOWLY = """
import asyncio, time
from vizsla.images import links

def resolve(host, port):
    time.sleep(60)

async def write(data):
    pass

async def main():
    asked = [links.fetch(f"http://{n}.example/", write, max_bytes=9, timeout_s=0.3, resolve=resolve) for n in range(20)]
    print({str(type(one).__name__) for one in await asyncio.gather(*asked, return_exceptions=True)})

asyncio.run(main())
"""


def test_a_process_that_ends_does_not_wait_for_names() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", SLOWLY], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout == "{'TooSlow'}\n"
    assert done.stderr == ""
    assert time.monotonic() - began < 30


def test_what_a_resolver_raises_is_no_address_and_others_are_looked_up() -> None:
    def broken(host: str, port: int) -> list[str]:
        raise socket.gaierror("no such name")

    for _ in range(20):  # more often than there are threads
        assert refused(InvalidInput, "http://pictures.example/", resolve=broken).what == NOWHERE


@pytest.mark.parametrize(
    ("link", "what"),
    [
        ("", "This is no link."),
        ("picture.jpg", "This is no link."),
        ("//pictures.example/a.png", "This is no link."),
        ("http:///a.png", "This is no link."),
        ("http://a b/", "This is no link."),
        ("http://0177.0.0.1/", "This is no link."),
        ("http://exa%6dple.org/", "This is no link."),
        ("http://pictures.example/\r\nHost: other", "This is no link."),
        ("http://" + "a" * 2000, "This is no link."),
        ("file:///etc/passwd", "Only links of http and https are followed."),
        ("ftp://pictures.example/a.png", "Only links of http and https are followed."),
        ("gopher://pictures.example/", "Only links of http and https are followed."),
        ("data:image/png;base64,AAAA", "Only links of http and https are followed."),
        ("http://pictures.example:22/", "No picture is fetched from port 22."),
        ("https://pictures.example:0/", "No picture is fetched from port 0."),
    ],
)
def test_what_is_no_such_link_is_refused(link: str, what: str) -> None:
    assert refused(InvalidInput, link, ports=links.PORTS).what == what


def test_a_secret_in_a_link_is_not_repeated() -> None:
    for link in ("https://ada:secret@pictures.example/a.png", "https://secret@pictures.example/"):
        assert "secret" not in str(refused(InvalidInput, link))


NOT_PUBLIC = """
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.8.8.8 168.63.129.16 169.254.169.254 172.16.0.1
    192.0.0.8 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1
    240.0.0.1 255.255.255.255
    :: ::1 ::8.8.8.8 ::ffff:8.8.8.8 ::ffff:127.0.0.1 ::ffff:0:8.8.8.8 64:ff9b::127.0.0.1 64:ff9b::10.0.0.1
    64:ff9b:1::8.8.8.8 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:10::1 2001:20::1 2001:db8::1
    2002:7f00:1::1 2002:808:808::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1 ff02::1 ff0e::1
""".split()  # noqa: SIM905 - a list of their length is not read


def test_which_addresses_are_public() -> None:
    assert [text for text in NOT_PUBLIC if links.is_public(ipaddress.ip_address(text))] == []
    public = ("8.8.8.8", "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "2a00:1450:4001:800::200e")
    assert all(links.is_public(ipaddress.ip_address(text)) for text in (*public, "64:ff9b::8.8.8.8"))


def test_what_is_this_machine_s_own_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by an address that is public: a firewall before the machine does not see what it asks of itself."""
    texts = ("8.8.8.8", "64:ff9b::8.8.8.8", "2606:4700::1111", "2606:4700:0:0::1:1112", "9.9.9.9", "64:ff9b::9.9.9.9")
    public = [ipaddress.ip_address(address) for address in texts]
    assert all(map(links.is_reachable, public))
    own = ("::ffff:8.8.8.8", "2606:4700::1111%eth0", "2606:4700:0::0:0001:1112", "02:42:ac")
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"eth0": [SimpleNamespace(address=one) for one in own]})
    assert [links.is_reachable(address) for address in public] == [False, False, False, False, True, True]


def test_an_address_with_a_zone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel ignores the zone of a global address: it would lead to this machine's own."""
    cards = {"eth0": [SimpleNamespace(address="2606:4700:dead::1")]}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: cards)
    for zone in ("%1", "%251", "%lo", "%25lo"):
        for host in ("2606:4700:dead::1", "2606:4700::2", "64:ff9b::8.8.8.8"):
            address = f"{host}{zone}"
            assert not links.is_reachable(ipaddress.ip_address(address))
            with pytest.raises(InvalidInput) as found:
                pieces(f"http://[{address}]/", max_bytes=9)
            assert found.value.what == NOWHERE
            # Also where a resolver says so, and where everything may be reached.
            anywhere = {"reachable": lambda address: True, "resolve": lambda host, port, found=address: [found]}
            assert refused(InvalidInput, "http://pictures.example/", **anywhere).what == NOWHERE


@pytest.mark.parametrize(
    "host",
    [
        *(f"[{one}]" if ":" in one else one for one in NOT_PUBLIC if "%" not in one),
        "[fe80::1%25lo]",
        "[2606:4700:dead::1%1]",
        "[2606:4700:dead::1%251]",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "2130706433",
        "017700000001",
        "0x7f000001",
        "0x7f.0.0.1",
        "127.0.0.0x1",
        "127。0。0。1",
        "0",
        "0x",
        "169.254.169.254.",
        "2852039166",
        "no-such-host.invalid",
        "134744072",  # also of a public address: it is written in a way that hides it
    ],
)
def test_every_spelling_of_what_is_not_public_is_refused_in_the_same_words(site: Any, host: str) -> None:
    """As a server resolves and allows it. What listens there, or not, changes nothing."""
    before = len(site.asked)
    for port in (site.server_address[1], 1):
        with pytest.raises(InvalidInput) as found:
            pieces(f"http://{host}:{port}/", max_bytes=9, ports=range(65536))
        assert found.value.what == NOWHERE
        assert found.value.remedy == refused(InvalidInput, "http://10.0.0.1/").remedy
    assert len(site.asked) == before


def test_each_address_of_a_host_has_to_be_public(site: Any) -> None:
    for private in ("10.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254"):
        for found in (["127.0.0.1", private], [private, "127.0.0.1"]):
            answer = refused(InvalidInput, of(site), resolve=lambda host, port, found=found: found)
            assert answer.what == NOWHERE
    for found in ([], ["127.0.0.1"] * 33):
        assert refused(InvalidInput, of(site), resolve=lambda host, port, found=found: found).what == NOWHERE


def test_a_name_that_changes_its_address_is_asked_once_and_where_it_was_looked_up(site: Any) -> None:
    """Rebinding: the name leads here when it is checked, and into the private network from then on."""
    with serving(host="127.0.0.2") as private:
        answers = iter((["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]))
        link = of(site).replace(str(site.server_address[1]), str(private.server_address[1]))
        # Nothing of that port is at 127.0.0.1: had the name been looked up again, there would be an answer.
        refused(Unavailable, link, resolve=lambda host, port: next(answers))
        assert next(answers) == ["127.0.0.2"]
        assert private.asked == []
        # A redirect to the same name is looked up, and looked at, anew.
        answers = iter((["127.0.0.1"], ["127.0.0.2"]))
        again = refused(InvalidInput, of(site, "/to?/picture"), resolve=lambda host, port: next(answers))
        assert again.what == NOWHERE
        assert next(answers, None) is None


def test_the_next_address_is_asked_where_one_does_not_answer(site: Any) -> None:
    found = ["127.0.0.9", "127.0.0.1"]
    local = {"reachable": lambda address: address.is_loopback}
    assert get(of(site), resolve=lambda host, port: found, **local) == PICTURE
    refused(Unavailable, of(site), resolve=lambda host, port: found[:1], **local)


def test_certificates_are_those_of_the_name(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)  # of localhost
    serves = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serves.load_cert_chain(cert, key)
    names: list[str | None] = []
    serves.sni_callback = lambda _, name, __: names.append(name)
    trusted = ssl.create_default_context(cafile=str(cert))
    with serving(serves) as secure, serving() as plain:
        secure.handle_error = lambda *_: None  # who does not trust it, says so
        port = secure.server_address[1]
        assert get(f"https://localhost:{port}/", trusted=trusted) == PICTURE
        assert names == ["localhost"]
        assert get(f"https://localhost.:{port}/to?/picture", trusted=trusted) == PICTURE
        untrusted = "The certificate of the link's host is not trusted."
        assert refused(Unavailable, f"https://pictures.example:{port}/", trusted=trusted).what == untrusted
        assert refused(Unavailable, f"https://localhost:{port}/").what == untrusted
        # Another name at the same address is another host, also after a redirect.
        leads = f"https://localhost:{port}/to?https://pictures.example:{port}/"
        assert refused(Unavailable, leads, trusted=trusted).what == untrusted
        downgraded = refused(InvalidInput, f"https://localhost:{port}/to?{of(plain)}", trusted=trusted)
        assert downgraded.what == "The link leads from https to http."
        assert plain.asked == []
        assert get(of(plain, f"/to?https://localhost:{port}/"), trusted=trusted) == PICTURE
        assert refused(Unavailable, f"https://localhost:{plain.server_address[1]}/").kind == "unavailable"
