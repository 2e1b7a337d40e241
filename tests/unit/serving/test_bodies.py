"""What is larger than a request may be is refused before anything is made of it; what was cut off is refused too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import orjson
import pytest
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from vizsla.errors import Busy, InvalidInput, TooLarge, VizslaError
from vizsla.serving import bodies
from vizsla.serving.bodies import FormParser, Held, Picture
from vizsla.serving.spec import Limits

FORM = (
    b'--x\r\nContent-Disposition: form-data; name="pictures"; filename="a.png"\r\n\r\none\r\n'
    b'--x\r\nContent-Disposition: form-data; name="pictures"; filename="\xc3\xa4.png"\r\n\r\ntwo\r\n--x--\r\n'
)


def asked(pieces: Sequence[bytes], kind: str) -> Request:
    """A request with a body that comes in pieces."""
    raw = [(b"content-type", kind.encode())]
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    coming = iter([*messages, {"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        return next(coming)

    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)


def read(pieces: Sequence[bytes], kind: str, limits: Limits | None = None) -> list[Picture] | bytes:
    with Held(10**9).share() as share:
        return asyncio.run(bodies.sent(asked(pieces, kind), limits or Limits(), share))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"pictures":[' + b",".join([b"1"] * 1_000_000) + b"]}", TooLarge),
        (b'{"pictures":[' + b",".join([b'{"base64":""}'] * 1_000_000) + b"]}", TooLarge),
        (b'{"pictures":[' + b",".join([b"1"] * 50_000) + b"]}", TooLarge),
        (b'{"pictures":[' + b",".join([b'{"a":[]}'] * 64) + b"]}", InvalidInput),
        (orjson.dumps({"pictures": [{str(n): 0 for n in range(90_000)}]}), InvalidInput),
        (orjson.dumps({str(n): 0 for n in range(90_000)}), InvalidInput),
        (orjson.dumps({"pictures": [{"base64": [0] * 90_000}]}), InvalidInput),
        (b"[" * 500 + b"]" * 500, InvalidInput),
        (b"5", InvalidInput),
    ],
)
def test_json_with_far_too_much_in_it_is_refused_at_once(body: bytes, error: type[VizslaError]) -> None:
    began = time.process_time()
    with pytest.raises(error) as caught:
        bodies.from_json(body, Limits())
    assert time.process_time() - began < 0.5
    assert len(str(caught.value)) < 1000


def test_json_may_be_less_than_other_bodies() -> None:
    limits = Limits(max_json_mb=0.001)
    assert read([b"x" * 2000], "image/png", limits) == [Picture("body", b"x" * 2000)]
    with pytest.raises(TooLarge, match=r"request of JSON brings 0\.001 MB"):
        read([b" " * 2000], "application/json", limits)


def test_a_form_is_read_whole_in_any_pieces() -> None:
    wanted = [Picture("a.png", b"one"), Picture("ä.png", b"two")]
    for size in (1, 7, 64, 10_000):
        pieces = [FORM[place : place + size] for place in range(0, len(FORM), size)]
        assert read(pieces, "multipart/form-data; boundary=x") == wanted


@pytest.mark.parametrize("cut", [len(FORM) - 4, len(FORM) - 8, FORM.index(b"two") + 1, FORM.index(b"two") - 20])
def test_a_form_that_was_cut_off_is_refused(cut: int) -> None:
    with pytest.raises(InvalidInput, match="last boundary"):
        read([FORM[:cut]], "multipart/form-data; boundary=x")


@pytest.mark.parametrize("charset", ["unicode_escape", "undefined", "utf-16", "idna", "base64", "none-such", "rot13"])
def test_the_charset_of_a_request_is_nothing_to_names(charset: str) -> None:
    found = read([FORM], f"multipart/form-data; boundary=x; charset={charset}")
    assert isinstance(found, list)
    assert [one.name for one in found] == ["a.png", "ä.png"]


def test_names_that_are_no_text_are_no_defect() -> None:
    found = read([FORM.replace(b"\xc3\xa4", b"\xff\\u12")], "multipart/form-data; boundary=x")
    assert isinstance(found, list)
    assert found[1].name.startswith("\N{REPLACEMENT CHARACTER}")


def test_forms_of_the_console_are_read_by_the_same() -> None:
    async def main(data: bytes) -> list[str | None]:
        async def stream() -> AsyncGenerator[bytes]:
            yield data

        parser = FormParser(Headers({"Content-Type": "multipart/form-data; boundary=x; charset=undefined"}), stream())
        form = await parser.parse()
        names = [one.filename for _, one in form.multi_items() if isinstance(one, UploadFile)]
        await form.close()
        return names

    assert asyncio.run(main(FORM)) == ["a.png", "ä.png"]
    with pytest.raises(MultiPartException):
        asyncio.run(main(FORM[:-6]))


def test_what_is_held_is_bounded_and_given_back() -> None:
    held = Held(1000)
    with held.share() as one, held.share() as other:
        one.take(600)
        with pytest.raises(Busy):
            other.take(500)
        one.give_back(200)
        other.take(500)
        one.keep(100)
        other.take(400)
        one.give_back(1000)
        other.take(100)
    with held.share() as share:
        share.take(1000)


def test_copies_count_until_a_request_is_taken_apart() -> None:
    held, limits = Held(4000), Limits()
    for kind, size, stays in (("image/png", 1900, 1900), ("application/json", 900, 3600)):
        with held.share() as share:
            asyncio.run(bodies.sent(asked([b" " * size], kind), limits, share))
            assert share.num_bytes == stays
        with held.share() as share, pytest.raises(Busy):
            asyncio.run(bodies.sent(asked([b" " * 2100], kind), limits, share))
    with held.share() as share:
        asyncio.run(bodies.sent(asked([FORM], "multipart/form-data; boundary=x"), limits, share))
        assert share.num_bytes == len(b"onetwo")


def test_limits_leave_room_for_one_request() -> None:
    with pytest.raises(ValueError, match="max_held_mb must be at least 632"):
        Limits(max_request_mb=300)
    assert Limits(max_request_mb=0.01, max_held_mb=0.04).max_json_bytes == 10_000
