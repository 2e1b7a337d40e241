"""What is made from runs that are not there yet: what it needs, what it waits for, and what it is refused with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import draw_shapes, fake_run

import vizsla
from vizsla import files
from vizsla.api import datasets, evaluations, models, parents, runs
from vizsla.errors import Conflict, InvalidInput, NotFound, Unavailable
from vizsla.jobs import devices, queue
from vizsla.jobs.schedule import BESIDE, Need
from vizsla.jobs.spec import JobSpec
from vizsla.store.rows import Job
from vizsla.store.workspace import Workspace
from vizsla.training import run

CARDS = ("cuda:0", "cuda:1")
SPEC = vizsla.TrainingSpec(net="lenet", tune="scratch", epochs=1)


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace on a machine with two cards, in whose queue is the dataset `coming`; nobody takes a turn."""
    monkeypatch.setenv(devices.DECLARED, "cpu=1,cuda:0=24,cuda:1=24")
    spec = vizsla.DatasetSpec(source=draw_shapes(tmp_path / "pictures", num=2), width=32, height=32)
    with vizsla.open(tmp_path / "workspace") as opened:
        datasets.submit(opened, "coming", spec)
        yield opened


def _needed(ws: Workspace, job: Job) -> list[str]:
    return [other.id for other in ws.store.jobs.needed().get(job.id, [])]


def test_they_wait_for_the_run_which_waits_for_its_dataset(ws: Workspace) -> None:
    run = runs.submit(ws, "coming", SPEC, name="first")
    measured, exported = evaluations.submit(ws, "first"), models.submit(ws, "first", checkpoint="12")
    assert (measured.name, exported.name) == ("first-test-1", "first-1")
    assert _needed(ws, measured) == _needed(ws, exported) == [run.id]
    assert _needed(ws, run) == [ws.store.jobs.find("coming").id]
    assert {row.name for row in ws.store.parents(measured.thing)} == {"first", "coming"}


def test_an_evaluation_asks_for_a_card_like_those_of_its_run(ws: Workspace) -> None:
    def need(name: str, device: str, asked: JobSpec = JobSpec(), given: JobSpec = JobSpec()) -> Need:
        runs.submit(ws, "coming", SPEC.model_copy(update={"device": device}), name=name, job=given)
        assert Need.of(models.submit(ws, name).need) == BESIDE
        return Need.of(evaluations.submit(ws, name, job=asked).need)

    eight = JobSpec(gpu_memory=8.0)
    assert need("any", "auto") == Need(CARDS, 1)
    assert need("second", "cuda:1", given=eight) == Need(("cuda:1",), 1, 8.0)
    assert need("both", "cuda:0,1", given=JobSpec(gpu_memory=20.0), asked=eight) == Need(CARDS, 1, 8.0)
    assert need("none", "cpu", asked=eight) == BESIDE
    with pytest.raises(Unavailable, match="80 GB of a GPU are needed"):
        evaluations.submit(ws, "any", job=JobSpec(gpu_memory=80.0))


def test_cards_that_are_gone_are_not_waited_for(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPEC.model_copy(update={"device": "cuda:1"})
    runs.submit(ws, "coming", spec, name="first", job=JobSpec(gpu_memory=20.0))
    run = ws.store.find("first", "run")
    monkeypatch.setenv(devices.DECLARED, "cuda:0=8")
    assert parents.need_of_passes(ws, run) == Need(("cuda:0",), 1)
    monkeypatch.setenv(devices.DECLARED, "cpu")
    assert parents.need_of_passes(ws, run) == BESIDE


def _training(ws: Workspace, *steps: int) -> Job:
    """The run `first`, which holds a card and has checkpoints of these steps, the last of them the best."""
    job = runs.submit(ws, "coming", SPEC, name="first")
    folder, dataset = ws.folder("run", job.thing), ws.store.find("coming", "dataset").id
    begun = fake_run()
    ref = begun.dataset.model_copy(update={"id": dataset})
    files.write_json(folder / "run.json", begun.model_copy(update={"dataset": ref}).model_dump(mode="json"))
    for step in steps:
        (folder / "checkpoints" / f"{step:09d}").mkdir(parents=True)
        facts = {"step": step, "best": [{"step": steps[-1]}]}
        files.write_json(folder / "checkpoints" / f"{step:09d}" / "checkpoint.json", facts)
    held = ws.store.jobs.change(job, "running", held=("cuda:0",))
    assert held is not None
    return held


def test_a_step_of_a_run_that_goes_on_does_not_wait_for_its_card(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(devices.DECLARED, "cuda:0=24")
    _training(ws, 10, 20)
    now, later = (evaluations.submit(ws, "first", checkpoint=which) for which in ("10", "best"))
    assert (Need.of(now.need), _needed(ws, now)) == (BESIDE, [])
    assert (Need.of(later.need), len(_needed(ws, later))) == (Need(("cuda:0",), 1), 1)


def test_it_takes_a_card_that_is_free_and_that_nobody_waits_for(ws: Workspace) -> None:
    _training(ws, 10)
    assert Need.of(evaluations.submit(ws, "first", checkpoint="10").need) == Need(("cuda:1",), 1)
    waiting = runs.submit(ws, "coming", SPEC.model_copy(update={"device": "cuda:1"}), name="second")
    assert Need.of(evaluations.submit(ws, "first", checkpoint="10").need) == BESIDE
    queue.stop(ws, waiting)
    with pytest.raises(Unavailable, match="80 GB of a GPU are needed"):
        evaluations.submit(ws, "first", checkpoint="10", job=JobSpec(gpu_memory=80.0))


def test_of_a_card_that_is_shared_the_rest_is_free(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.DECLARED, "cuda:0=24")
    job = runs.submit(ws, "coming", SPEC, name="first", job=JobSpec(gpu_memory=10.0))
    ws.store.jobs.change(job, "running", held=("cuda:0",))
    for amount, need in ((14.0, Need(("cuda:0",), 1, 14.0)), (15.0, BESIDE)):
        assert parents.need_now(ws, Need(("cuda:0",), 1, amount)) == need


def test_a_step_that_is_gone_is_said_to_be(ws: Workspace) -> None:
    folder = ws.folder("run", _training(ws, 20, 30).thing)
    with pytest.raises(
        NotFound, match=r"no checkpoint '10' \(any more\): .*keeps the best[^\0]*: 20, 30\..*--keep-every"
    ):
        run.find_checkpoint(folder, "10")
    with pytest.raises(NotFound, match=r"no checkpoint '40'\."):
        run.find_checkpoint(folder, "40")


def test_what_can_never_be_is_refused_at_once(ws: Workspace) -> None:
    runs.submit(ws, "coming", SPEC, name="first")
    before = ws.store.jobs.newest(1)
    for submit in (evaluations.submit, models.submit):
        with pytest.raises(NotFound, match=r"No run has a checkpoint 'worst'.*\n.*best, last, or a step"):
            submit(ws, "first", checkpoint="worst")
    with pytest.raises(InvalidInput, match=r"There is no split 'tset'[^\0]*Did you mean 'test'"):
        evaluations.submit(ws, "first", split="tset")
    assert ws.store.jobs.newest(1) == before
    with pytest.raises(NotFound):
        ws.store.find("first-1", "model")


def test_when_the_dataset_is_not_made_nothing_is_left(ws: Workspace) -> None:
    """Also of the dataset, to which nothing but the run leads from the model."""
    runs.submit(ws, "coming", SPEC, name="first")
    children = [models.submit(ws, "first"), evaluations.submit(ws, "first")]
    queue.stop(ws, ws.store.jobs.find("coming"))
    for _ in range(3):
        queue.turn(ws)
    for child in children:
        ended = ws.store.jobs.get(child.id)
        assert (ended.state, ended.failure) == ("failed", "parent")
        assert ended.cause == (
            "The run 'first', which it needs, was not made: "
            "The dataset 'coming', which it needs, was not made: stopped before it began"
        )
    with pytest.raises(Conflict, match="which it needs"):
        models.finish(ws, children[0])
    for kind in ("dataset", "run", "model", "evaluation"):
        assert ws.store.all(kind) == []  # type: ignore[arg-type]
        assert list((ws.root / f"{kind}s").iterdir()) == []
