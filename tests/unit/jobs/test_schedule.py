"""Tests of who gets which device, and what the others are told."""

from __future__ import annotations

import pytest

from vizsla.errors import InvalidInput, Unavailable
from vizsla.jobs import devices
from vizsla.jobs.devices import as_option, capacity, need_like, need_of
from vizsla.jobs.schedule import BESIDE, Holding, Need, Waiting, decide, require

CARDS = ("cuda:0", "cuda:1", "cuda:2", "cuda:3")
THERE = {"host": 2.0, "cpu": 1.0} | dict.fromkeys(CARDS, 24.0)
CPU = Need(("cpu",), 1, 1.0)


def _any(count: int, amount: float | None = None) -> Need:
    return Need(CARDS, count, amount)


def _waiting(id: str, need: Need, *, owner: str = "ada", priority: int = 0) -> Waiting:
    return Waiting(id, f"run {id}", owner, priority, need)


def test_the_next_free_ones_are_given_out() -> None:
    holding = [Holding("run a", "ada", ("cuda:1",), None)]
    found = decide([_waiting("b", _any(2)), _waiting("c", _any(1))], holding, THERE)
    assert found.starts == {"b": ("cuda:0", "cuda:2"), "c": ("cuda:3",)}
    assert found.reasons == {}


def test_those_that_are_named_are_waited_for() -> None:
    holding = [Holding("run a", "ada", ("cuda:1",), None)]
    found = decide([_waiting("b", Need(("cuda:1",)))], holding, THERE)
    assert found.starts == {}
    assert found.reasons == {"b": "waits for cuda:1, held by run a"}


def test_a_large_job_is_not_overtaken_for_ever_by_small_ones() -> None:
    holding = [Holding("run a", "ada", ("cuda:1",), None)]
    found = decide([_waiting("all", _any(4)), _waiting("small", _any(1)), _waiting("cpu", CPU)], holding, THERE)
    assert found.starts == {"cpu": ("cpu",)}, "what uses other devices goes past it"
    assert found.reasons["all"] == "waits for cuda:0, cuda:1, cuda:2, cuda:3, held by run a"
    assert found.reasons["small"] == "waits for 1 of cuda:0, cuda:1, cuda:2, cuda:3, held by run a"


def test_priority_comes_first_then_the_owner_with_the_fewest_at_work_then_age() -> None:
    one = {"cuda:0": 24.0}
    card = Need(("cuda:0",))
    urgent = [_waiting("old", card), _waiting("urgent", card, priority=1)]
    assert list(decide(urgent, [], one).starts) == ["urgent"]
    three = dict.fromkeys(CARDS[:3], 24.0)
    busy = [_waiting("ada's", Need(CARDS[:3])), _waiting("bob's", Need(CARDS[:3]), owner="bob")]
    holding = [Holding("run x", "ada", ("cuda:0",), None), Holding("run y", "ada", ("cuda:1",), None)]
    assert list(decide(busy, holding, three).starts) == ["bob's"]
    assert list(decide([_waiting("first", card), _waiting("second", card)], [], one).starts) == ["first"]


def test_an_owner_with_many_jobs_leaves_room_for_others() -> None:
    waiting = [_waiting(f"ada-{i}", _any(1)) for i in range(6)] + [_waiting("bob", _any(1), owner="bob")]
    found = decide(waiting, [], THERE)
    assert "bob" in found.starts
    assert found.reasons["ada-5"].endswith("held by run ada-0, run bob, run ada-1 and 1 more")


def test_small_jobs_share_a_card_by_declared_memory_and_leave_whole_ones_free() -> None:
    holding = [Holding("run a", "ada", ("cuda:1",), 10.0)]
    found = decide([_waiting("b", _any(1, 10.0)), _waiting("c", _any(1, 10.0)), _waiting("d", _any(3))], holding, THERE)
    assert found.starts["b"] == ("cuda:1",)
    assert found.starts["c"] != ("cuda:1",), "two of 10 GB fill a card of 24 GB"
    assert "d" in found.reasons


def test_a_card_that_went_away_takes_nothing() -> None:
    found = decide([_waiting("b", _any(4))], [], {"cuda:0": 24.0})
    assert found.starts == {}
    assert decide([_waiting("b", Need(("cuda:9",)))], [], THERE).starts == {}


def test_what_can_never_be_met_is_refused() -> None:
    require(_any(4), THERE)
    require(CPU, THERE)
    with pytest.raises(Unavailable, match=r"There is no GPU 7: 4 were found\."):
        require(Need(("cuda:7",)), THERE)
    with pytest.raises(Unavailable, match=r"5 GPUs are needed and 4 were found\."):
        require(_any(5), THERE)
    with pytest.raises(Unavailable, match=r"30 GB of a GPU are needed, and the largest has 24 GB\."):
        require(_any(1, 30.0), THERE)
    with pytest.raises(Unavailable, match=r"There is no GPU 0: 0 were found\."):
        require(need_of("cuda", 1, {"cpu": 1.0}), {"cpu": 1.0})


@pytest.mark.parametrize(
    ("device", "processes", "need"),
    [
        ("auto", 1, _any(1)),
        ("auto", 2, _any(2)),
        ("cuda", 3, _any(3)),
        ("cpu", 2, CPU),
        ("cuda:2", 1, Need(("cuda:2",), 1)),
        ("cuda:2", 2, Need(("cuda:2", "cuda:3"), 2)),
        ("cuda:3,1", 2, Need(("cuda:3", "cuda:1"), 2)),
    ],
)
def test_what_a_training_needs(device: str, processes: int, need: Need) -> None:
    assert need_of(device, processes, THERE) == need


def test_without_cards_a_training_needs_the_processor() -> None:
    assert need_of("auto", 2, {"cpu": 1.0, "host": 2.0}) == CPU
    with pytest.raises(InvalidInput, match="names a GPU twice"):
        need_of("cuda:1,1", 2, THERE)


@pytest.mark.parametrize(
    ("trained", "need"),
    [
        (("cpu",), BESIDE),
        ((), BESIDE),
        (("cuda:2",), Need(("cuda:2",), 1, 8.0)),
        (("cuda:3", "cuda:1"), Need(("cuda:1", "cuda:3"), 1, 8.0)),
        (("cpu", "cuda:9"), _any(1, 8.0)),
    ],
)
def test_what_computes_with_what_was_trained_needs_one_device_like_its(trained: tuple[str, ...], need: Need) -> None:
    assert need_like(trained, THERE, gpu_memory=8.0) == need
    assert need_like(trained, {"cpu": 1.0, "host": 2.0}) == BESIDE


def test_devices_are_told_to_workers_as_people_name_them() -> None:
    assert as_option(("cuda:3", "cuda:1")) == "cuda:3,1"
    assert as_option(("host",)) == as_option(("cpu",)) == "cpu"


def test_devices_can_be_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.DECLARED, "cpu=2, cuda:0=80,cuda:1")
    assert capacity() == {"host": 2.0, "cpu": 2.0, "cuda:0": 80.0, "cuda:1": 1.0}
    for wrong in ("", "cpu=", "gpu=1", "cuda:x=3", "cpu=-1", "cpu=inf", "cuda:0=nan"):
        monkeypatch.setenv(devices.DECLARED, wrong)
        if wrong == "cpu=":
            assert capacity()["cpu"] == 1.0
        else:
            with pytest.raises(InvalidInput, match="does not say what devices there are"):
                capacity()
