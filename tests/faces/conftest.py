"""A workspace with a thing of every kind, and a server that has it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import pytest
from tests.faces.faces import Faces
from tests.support import Server, draw_shapes

import vizsla
from vizsla.api import accounts, datasets, evaluations, jobs, models, predictions, runs, tags, uploads
from vizsla.events import Event
from vizsla.jobs import launch
from vizsla.training.run import RunStatus

PASSWORD, OTHER_PASSWORD = "correct horse battery", "another horse battery"
TINY = vizsla.TrainingSpec(net="lenet", tune="scratch", epochs=1, batch_size=16)
LONG = TINY.model_copy(update={"epochs": 5000})


@pytest.fixture(scope="package")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faces]:
    """All that there is to look at: `shapes`, and the run `trained` with its model and two evaluations."""
    folder = tmp_path_factory.mktemp("faces")
    spec = vizsla.DatasetSpec(
        source=draw_shapes(folder / "pictures", num=10), width=32, height=32, val_percent=20, test_percent=20
    )
    with vizsla.open(folder / "workspace") as ws:
        datasets.create(ws, "shapes", spec)
        started = Server(ws.root, "--allow", folder)
        try:
            with vizsla.connect(started.url) as server:
                runs.start(server, "shapes", TINY, name="trained")
                evaluations.create(server, "trained", name="measured")
                models.export(server, "trained", name="exported")
                evaluations.create(server, "exported", name="measured too")
                predictions.create(server, "exported", spec.source, name="seen")
                for kind, name in (("run", "trained"), ("dataset", "shapes"), ("evaluation", "measured")):
                    tags.write(server, kind, name, ["v2", "baseline"])
                begun = uploads.create(ws, "begun", kind="folder").upload.id
                uploads.put_picture(ws, begun, "disc/a.png", b"no picture")
                yield Faces(ws, server)
                for job in reversed(jobs.live(ws)):  # what waits for a run before the run
                    jobs.stop(ws, job.id, at_once=True)
        finally:
            assert started.stop() == 0
            for keeper in launch._left:  # they found that there is one
                keeper.wait()


@pytest.fixture(scope="package")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faces]:
    """A workspace with accounts, whose server has the admin `ada` signed in, and writes down no secret."""
    folder = tmp_path_factory.mktemp("people")
    with vizsla.open(folder / "workspace") as ws:
        accounts.create(ws, "ada", PASSWORD)
        accounts.create(ws, "vic", PASSWORD, role="viewer")
        started = Server(ws.root, "--log-format", "json")
        try:
            with vizsla.connect(started.url, account="ada", password=PASSWORD) as server:
                yield Faces(ws, server, ("ada", PASSWORD))
            told = [str(action) for action in accounts.actions(ws, limit=1000)]
        finally:
            assert started.stop() == 0
        assert any("DELETE /session" in one for one in told), "who has signed in signs out"
        for secret in (PASSWORD, OTHER_PASSWORD, "vizsla_", "argon2"):
            assert secret not in started.said.replace("vizsla_session", "")
            assert not any(secret in one for one in told)


class Steered(NamedTuple):
    """How a run was steered: its states, and what was told of it each time."""

    states: list[str]
    told: list[list[str]]


@pytest.fixture(scope="package")
def steered(faces: Faces) -> Steered:
    """The run `halted`: begun, gone on with and made longer by verbs that wait on the server, and stopped each time."""
    found = Steered([], [])
    verbs: list[Callable[..., RunStatus]] = [
        partial(runs.clone, faces.server, "trained", LONG, name="halted"),
        partial(runs.resume, faces.server, "halted"),
        partial(runs.extend, faces.server, "halted", 10),
    ]
    for verb in verbs:
        told: list[str] = []

        def stop(event: Event, told: list[str] = told) -> None:
            told.append(event["event"])
            if told.count("step") == 1 and event["event"] == "step":
                jobs.stop(faces.server, "halted")

        found.states.append(verb(on_event=stop).progress.state)
        found.told.append(list(dict.fromkeys(told)))
    return found


@pytest.fixture(scope="package")
def busy(faces: Faces, steered: Steered) -> Faces:
    """The same while the run `long` has the processor, and the run `waiting` waits for it."""
    ws = faces.ws
    job = runs.submit(ws, "shapes", LONG, name="long")

    def freeze(event: Event) -> None:
        if event["event"] == "step":
            worker = runs.get(ws, "long").progress.worker
            assert worker is not None
            os.killpg(worker, signal.SIGSTOP)  # it keeps what it has, and takes no time from the tests
            raise Frozen

    with pytest.raises(Frozen):
        runs.follow(faces.server, job.thing, freeze)
    runs.submit(ws, "shapes", LONG, name="waiting")
    return faces


class Frozen(Exception):
    """Ends the watching of a run that has begun."""
