"""How often a password may be tried."""

from __future__ import annotations

import threading

import pytest

from vizsla.errors import NotSignedIn, TooMany
from vizsla.web import attempts


def _fail(tries: attempts.Attempts, address: str, name: str) -> None:
    with pytest.raises(NotSignedIn), tries.one(address, name):
        raise NotSignedIn("no")


def test_five_of_a_name_from_one_place() -> None:
    tries = attempts.Attempts()
    for _ in range(5):
        _fail(tries, "192.0.2.1", "ada")
    with pytest.raises(TooMany) as refused, tries.one("192.0.2.1", "ada"):
        raise AssertionError("this may not be tried")
    assert refused.value.retry_after_s is not None
    assert 0 < refused.value.retry_after_s <= 15 * 60
    for address, name in (("192.0.2.1", "eve"), ("192.0.2.2", "ada")):
        with tries.one(address, name):
            pass


def test_who_gets_in_begins_anew() -> None:
    tries = attempts.Attempts()
    for _ in range(4):
        for _ in range(4):
            _fail(tries, "192.0.2.1", "ada")
        with tries.one("192.0.2.1", "ada"):
            pass


def test_many_names_from_one_network_are_one_place() -> None:
    tries = attempts.Attempts()
    for number in range(100):
        _fail(tries, f"2001:db8::{number:x}", f"name{number}")
    with pytest.raises(TooMany), tries.one("2001:db8::ffff", "another"):
        raise AssertionError("this may not be tried")
    with tries.one("2001:db8:0:1::1", "another"):
        pass


def test_one_name_from_many_places() -> None:
    tries = attempts.Attempts()
    for number in range(50):
        _fail(tries, f"192.0.2.{number}", "ada")
    with pytest.raises(TooMany), tries.one("198.51.100.1", "ada"):
        raise AssertionError("this may not be tried")


def test_time_forgives_and_nothing_is_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    tries = attempts.Attempts(clock=lambda: now)
    for _ in range(5):
        _fail(tries, "192.0.2.1", "ada")
    now = 14 * 60.0
    with pytest.raises(TooMany), tries.one("192.0.2.1", "ada"):
        raise AssertionError("this may not be tried")
    now = 15 * 60.0
    with tries.one("192.0.2.1", "ada"):
        pass
    monkeypatch.setattr(attempts, "KEYS_KEPT", 30)
    for number in range(200):
        _fail(tries, f"198.51.100.{number}", f"name{number}")
    assert len(tries._tries) <= 30


def test_no_more_than_two_are_checked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "PATIENCE_S", 0.05)
    tries = attempts.Attempts()
    inside, done = threading.Barrier(3), threading.Event()

    def check(name: str) -> None:
        with tries.one("192.0.2.1", name):
            inside.wait(10)
            done.wait(10)

    threads = [threading.Thread(target=check, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    inside.wait(10)
    with pytest.raises(TooMany), tries.one("192.0.2.1", "c"):
        raise AssertionError("this may not be tried")
    done.set()
    for thread in threads:
        thread.join()
    with tries.one("192.0.2.1", "c"):
        pass
