"""Tests of the queue's rows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vizsla.errors import Conflict, NotFound
from vizsla.store.jobs import Jobs
from vizsla.store.pages import Cut, Place
from vizsla.store.queries import Server, Store
from vizsla.store.rows import Job
from vizsla.store.tables import job as job_table


@pytest.fixture
def jobs(store: Store) -> Jobs:
    return store.jobs


def _add(jobs: Jobs, thing: str, **fields: object) -> Job:
    asked = {"owner": "ada", "need": {"among": ["cpu"], "count": 1, "amount": 1.0}} | fields
    return jobs.add("run", thing, f"name of {thing}", **asked)  # type: ignore[arg-type]


def test_a_job_is_read_as_it_was_written(jobs: Jobs) -> None:
    made = _add(jobs, "a", priority=3, retries=2)
    assert jobs.get(made.id) == made
    assert (made.state, made.attempt, made.held, made.live) == ("queued", 0, (), True)
    assert [change.state for change in jobs.history(made.id)] == ["queued"]


def test_every_change_is_kept_with_its_cause(jobs: Jobs) -> None:
    job = _add(jobs, "a")
    for state, cause in (("starting", ""), ("running", "on cpu"), ("done", "")):
        changed = jobs.change(job, state, cause, attempt=1, held=("cpu",))  # type: ignore[arg-type]
        assert changed is not None
        job = changed
    assert jobs.get(job.id) == job
    assert [(c.state, c.attempt, c.cause) for c in jobs.history(job.id)] == [
        ("queued", 0, ""),
        ("starting", 1, ""),
        ("running", 1, "on cpu"),
        ("done", 1, ""),
    ]
    assert jobs.live() == []


def test_who_comes_too_late_changes_nothing(jobs: Jobs) -> None:
    seen = _add(jobs, "a")
    assert jobs.change(seen, "starting", attempt=1) is not None
    assert jobs.change(seen, "starting", attempt=1) is None
    assert jobs.change(seen, "failed", "late") is None
    assert [change.state for change in jobs.history(seen.id)] == ["queued", "starting"]


def test_a_wish_to_stop_is_not_lost_by_a_change_at_the_same_time(jobs: Jobs) -> None:
    seen = _add(jobs, "a")
    jobs.ask_stop(seen.id)
    jobs.change(seen, "starting", attempt=1)
    assert jobs.get(seen.id).stop_asked


def test_one_thing_has_one_job_at_a_time(jobs: Jobs) -> None:
    first = _add(jobs, "a")
    with pytest.raises(Conflict, match="is queued already"):
        _add(jobs, "a")
    jobs.change(first, "stopped")
    second = _add(jobs, "a")
    assert jobs.live_of("a") == second
    assert jobs.find("a") == second
    assert jobs.find("name of a") == second


def test_why_a_job_waits_is_no_change(jobs: Jobs) -> None:
    job = _add(jobs, "a")
    jobs.explain(job, "waits for cpu")
    assert jobs.get(job.id).cause == "waits for cpu"
    assert len(jobs.history(job.id)) == 1


def test_jobs_are_found_by_the_beginning_of_their_id(jobs: Jobs) -> None:
    job = _add(jobs, "a")
    assert jobs.find(job.id) == job
    assert jobs.find(job.id[:-1]) == job
    for wrong in ("", "nothing", "%", "_"):
        with pytest.raises(NotFound):
            jobs.find(wrong)


def test_what_waits_for_what(jobs: Jobs) -> None:
    dataset, other = _add(jobs, "a"), _add(jobs, "b")
    run = _add(jobs, "c", needed=[dataset.id, other.id])
    assert jobs.needed() == {run.id: [dataset, other]}
    jobs.change(run, "failed")
    assert jobs.needed() == {}


def test_the_newest_come_first(jobs: Jobs) -> None:
    made = [_add(jobs, name) for name in "abc"]
    assert {job.id for job in jobs.newest(2)} <= {job.id for job in made}
    assert len(jobs.newest(2)) == 2
    assert len(jobs.newest(10)) == 3


def test_pages_go_through_all_jobs_by_time_and_id(jobs: Jobs, store: Store) -> None:
    ids = ["1a", "1B", "1-", "1_", "1b", "1A", "10", "1~"]  # their order differs between bytes and languages
    for id in ids:
        made = _add(jobs, id)
        with store.engine.execution_options(writes=True).begin() as connection:
            where = job_table.update().where(job_table.c.id == made.id)
            # The change points to the job by its id, so it goes first.
            connection.exec_driver_sql("DELETE FROM job_change")
            connection.execute(where.values(id=id, created_at="2026-01-01T00:00:00.000Z"))
    seen: list[str] = []
    after: Place | None = None
    while found := jobs.page(Cut(3, "created_at", descending=False, after=after)):
        seen += [job.id for job in found]
        after = Place(found[-1].created_at, found[-1].id)
    assert seen == sorted(ids)


def _at_once(action: Callable[[Store], object], stores: list[Store]) -> None:
    """Do something on all stores at the same moment, each in its thread."""
    together = threading.Barrier(len(stores))

    def act(store: Store) -> None:
        together.wait()
        action(store)

    threads = [threading.Thread(target=act, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def others(where: Path | Server) -> Iterator[list[Store]]:
    opened = [Store(where) for _ in range(6)]
    yield opened
    for store in opened:
        store.close()


def test_of_many_who_add_work_on_one_thing_one_does(jobs: Jobs, others: list[Store]) -> None:
    for number in range(8):
        refused: list[Store] = []

        def add(store: Store, thing: str = f"t{number}", refused: list[Store] = refused) -> None:
            try:
                _add(store.jobs, thing)
            except Conflict:
                refused.append(store)

        _at_once(add, others)
        assert len(refused) == len(others) - 1
        assert len(jobs.live()) == number + 1


def test_of_many_who_change_a_job_one_does(jobs: Jobs, others: list[Store]) -> None:
    for number in range(8):
        seen = _add(jobs, f"t{number}")
        won: list[Job] = []

        def change(store: Store, seen: Job = seen, won: list[Job] = won) -> None:
            changed = store.jobs.change(seen, "starting", f"by {id(store)}", attempt=seen.attempt + 1)
            if changed is not None:
                won.append(changed)

        _at_once(change, others)
        assert [jobs.get(seen.id)] == won
        assert [change.cause for change in jobs.history(seen.id)] == ["", won[0].cause]


def test_a_text_with_a_nul_is_kept_and_looked_for(jobs: Jobs, store: Store) -> None:
    made = _add(jobs, "a")
    jobs.explain(made, "bytes such as \0")
    assert jobs.get(made.id).cause.startswith("bytes such as ")
    jobs.change(made, "failed", error={"kind": "error", "what": "of\0this"})
    assert (jobs.get(made.id).error or {})["what"] == "of\0this"
    with pytest.raises(NotFound):
        jobs.find("\0")
    with pytest.raises(NotFound):
        store.exact("\0", "run")
