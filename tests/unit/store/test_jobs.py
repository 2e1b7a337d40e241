"""Tests of the queue's rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vizsla.errors import Conflict, NotFound
from vizsla.store.jobs import Job, Jobs
from vizsla.store.queries import Store


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    store = Store(tmp_path / "vizsla.db")
    yield store.jobs
    store.close()


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
