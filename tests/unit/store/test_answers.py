"""Keys of requests: one at a time, kept for a day, and free again where nothing was made."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from vizsla.store import answers
from vizsla.store.answers import Answered
from vizsla.store.queries import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "vizsla.db")
    yield made
    made.close()


def test_the_first_answer_is_kept_for_its_account_and_key(store: Store) -> None:
    assert store.answers.begin("ada", "k", "asked") is None
    assert store.answers.begin("ada", "k", "other") == Answered("asked", None, {}, "")
    store.answers.end("ada", "k", 202, {"location": "/x"}, "{}")
    assert store.answers.begin("ada", "k", "asked") == Answered("asked", 202, {"location": "/x"}, "{}")
    store.answers.give_up("ada", "k")
    assert store.answers.begin("ada", "k", "asked") is not None, "what was answered stays"
    assert store.answers.begin("bob", "k", "asked") is None
    assert store.answers.begin("ada", "l", "asked") is None


def test_of_many_at_once_one_is_first(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: store.answers.begin("ada", "k", str(number)), range(32)))
    assert found.count(None) == 1
    first = found.index(None)
    assert {one.request for one in found if one is not None} == {str(first)}


def test_what_was_not_answered_is_given_up(store: Store) -> None:
    store.answers.begin("ada", "k", "asked")
    store.answers.give_up("ada", "k")
    assert store.answers.begin("ada", "k", "other") is None
    store.answers.begin("ada", "done", "asked")
    store.answers.end("ada", "done", 202, {}, "")
    store.answers.give_up_all()
    assert store.answers.begin("ada", "k", "third") is None
    assert store.answers.begin("ada", "done", "asked") is not None


def test_answers_are_forgotten_after_their_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.answers.begin("ada", "k", "asked")
    store.answers.end("ada", "k", 202, {}, "")
    monkeypatch.setattr(answers, "KEPT", timedelta(seconds=-1))
    assert store.answers.begin("ada", "k", "other") is None
