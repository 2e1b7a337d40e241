"""Predictions of many pictures as work in the queue: the same as one by one, killed and gone on with, and paged."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import Cli, Server

from vizsla import files, work
from vizsla.api import datasets, models, predictions, runs
from vizsla.api.workspace import sweep
from vizsla.errors import Conflict, InvalidInput
from vizsla.jobs import queue
from vizsla.models import batch
from vizsla.models.card import Card
from vizsla.store.workspace import Workspace
from vizsla.training.spec import TrainingSpec

pytestmark = pytest.mark.slow

WAIT_S = 60


@pytest.fixture(scope="module")
def card(ws: Workspace) -> Card:
    runs.start(
        ws,
        "shapes",
        TrainingSpec(net="lenet", tune="scratch", epochs=2, batch_size=16, learning_rate=0.003),
        name="first",
    )
    return models.export(ws, "first", name="shapes-1")


@pytest.fixture(scope="module")
def pictures(ws: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn pictures, with some that are none, and names that are hostile."""
    folder = tmp_path_factory.mktemp("many") / "shapes"
    shutil.copytree(datasets.get(ws, "shapes").spec.source, folder)
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "empty.png").touch()
    (folder / ".hidden").touch()
    shutil.copyfile(folder / "disc" / "000.png", folder / "=1+1.png")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(b"x")
    (folder / "up").symlink_to("..")
    return folder


REJECTED = {
    "not a picture": 1,
    "empty file": 1,
    "hidden": 1,
    "the name is not valid UTF-8": 1,
    "a link to a folder above it": 1,
}


def _until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def _all_rows(ws: Workspace, name: str, **filters: Any) -> list[Any]:
    found, first = [], 0
    while True:
        page = predictions.rows(ws, name, first=first, limit=7, **filters)
        found += page.items
        if page.next is None:
            return found
        first = page.next


@pytest.fixture(scope="module")
def by_cli(ws: Workspace, card: Card, pictures: Path) -> Any:
    return Cli(ws.root)("prediction", "create", "shapes-1", pictures, "--name", "many", "--top", 2, "--json").json


def test_the_command_line_sees_what_python_sees(ws: Workspace, by_cli: Any, pictures: Path) -> None:
    assert by_cli["num_pictures"] == 121 + sum(REJECTED.values())
    assert by_cli["rejected"] == REJECTED
    rows = _all_rows(ws, "many")
    assert [row.path for row in rows] == sorted(row.path for row in rows)
    whole = [row for row in rows if row.error is None]
    expected = list(models.predict(ws, "shapes-1", [pictures / row.path for row in whole], top=2))
    for row, one in zip(whole, expected, strict=True):
        assert [score.label for score in row.scores] == [score.label for score in one.scores]
        probabilities = [score.probability for score in one.scores]
        assert [score.probability for score in row.scores] == pytest.approx(probabilities, abs=1e-5)
    assert by_cli["classes"] == {
        label: Counter(one.scores[0].label for one in expected)[label] for label in ("disc", "ring", "square")
    }
    assert Counter(row.error for row in _all_rows(ws, "many", rejected=True)) == REJECTED
    folder = predictions.folder(ws, "many")
    assert sorted(path.name for path in folder.iterdir()) == ["prediction.json", "predictions.parquet", "usage.jsonl"]


def test_the_surest_pictures_of_each_class(ws: Workspace, by_cli: Any) -> None:
    cli = Cli(ws.root)
    rows = [row for row in _all_rows(ws, "many") if row.error is None]
    shown = cli("prediction", "show", "many", "--top", 9, "--json").json["surest"]
    for label in (label for label, num in by_cli["classes"].items() if num):
        of_class = [row for row in rows if row.scores[0].label == label]
        surest = sorted(of_class, key=lambda row: -row.scores[0].probability)
        assert _all_rows(ws, "many", label=label) == surest
        assert [row["path"] for row in shown[label]] == [row.path for row in surest[:9]]
    with pytest.raises(InvalidInput, match="no class 'disk'"):
        predictions.rows(ws, "many", label="disk")
    text = cli("prediction", "show", "many", "--top", 1).out
    assert "121 classified, 5 rejected" in text


def test_rows_are_exported_as_csv(ws: Workspace, by_cli: Any, tmp_path: Path) -> None:
    cli = Cli(ws.root)
    cli("prediction", "export", "many", tmp_path / "many.csv")
    with (tmp_path / "many.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    rows = _all_rows(ws, "many")
    assert len(found) == len(rows)
    assert "./=1+1.png" in {one["path"] for one in found}, "no program for tables takes it for a formula"
    for one, row in zip(found, rows, strict=True):
        assert one["error"] == (row.error or "")
        assert one["predicted"] == (row.scores[0].label if row.scores else "")
    assert cli("prediction", "export", "many").out.splitlines()[0] == "path,label,predicted,probability,error"


def test_a_list_with_classes_says_how_often_the_model_is_right(ws: Workspace, card: Card, pictures: Path) -> None:
    labels = list(card.labels)
    paths = sorted(pictures.glob("*/*.png"))
    named = [(path, labels.index(path.parent.name)) for path in paths if path.parent.name in labels][::10]
    lines = [f"{path} {number}" for path, number in named[:6]]
    lines += [f"{path.relative_to(pictures)}\t{labels[number]}" for path, number in named[6:]]
    # What cannot be a class does no harm.
    lines += ["", "disc/001.png -1", "disc/002.png 99", "disc/003.png", "none.png 1", "https://example.org/x.png"]
    lines += ["x" * 5000]
    source = pictures.parent / "list.txt"
    source.write_text("\r\n".join(lines))
    found = predictions.create(ws, "shapes-1", source, base=pictures, name="listed")
    assert found.num_pictures == len(named) + 6
    assert found.rejected == {"no such file": 1, "an address, not a file": 1, "a path that is too long": 1}
    expected = models.predict(ws, "shapes-1", [path for path, _ in named], top=1)
    right = sum(one.scores[0].label == labels[number] for one, (_, number) in zip(expected, named, strict=True))
    assert found.accuracy is not None
    assert found.accuracy["num_pictures"] == len(named)
    assert found.accuracy["value"] == right / len(named)
    rows = _all_rows(ws, "listed")
    assert [row.label for row in rows] == [*(labels[number] for _, number in named), *[None] * 3, labels[1], None, None]


def test_what_cannot_be_predicted_is_refused_at_once(ws: Workspace, card: Card, tmp_path: Path) -> None:
    before = len(ws.store.jobs.newest(1000))
    with pytest.raises(InvalidInput, match="no such folder or list"):
        predictions.submit(ws, "shapes-1", tmp_path / "none")
    with pytest.raises(InvalidInput, match="101 classes"):
        predictions.submit(ws, "shapes-1", tmp_path, top=101)
    assert len(ws.store.jobs.newest(1000)) == before
    (tmp_path / "empty.txt").touch()
    (tmp_path / "binary").write_bytes(b"\0")
    (tmp_path / "no pictures").mkdir()
    for name, reason in (("empty.txt", "no pictures"), ("binary", "no text list"), ("no pictures", "no pictures")):
        with pytest.raises(InvalidInput, match=reason):
            predictions.create(ws, "shapes-1", tmp_path / name)
    assert len(list((ws.root / "predictions").iterdir())) == len(ws.store.all("prediction"))


def test_one_that_is_killed_goes_on_where_it_was(
    ws: Workspace, card: Card, pictures: Path, tmp_path: Path, by_cli: Any
) -> None:
    source = tmp_path / "long.txt"
    paths = sorted(pictures.glob("*/*.png"))[:120]
    num = 8 * batch.PART + 100
    source.write_text("\n".join(str(paths[number % 120]) for number in range(num)))
    job = predictions.submit(ws, "shapes-1", source, name="killed")
    folder = ws.folder("prediction", job.thing)
    parts = folder / work.PARTS
    done: dict[str, int] = {}
    for wanted in (1, 4):
        _until(lambda at=wanted: queue.turn(ws) or len(list(parts.glob("*.parquet"))) >= at)
        before, done = done, {path.name: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
        assert before.items() <= done.items(), "what was done is not done again"
        worker = files.lock_holder(folder)
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        source.write_text("changed meanwhile")
        _until(lambda gone=worker: files.lock_holder(folder) != gone)
    told: list[dict[str, Any]] = []
    found = predictions.finish(ws, ws.store.jobs.get(job.id), told.append)
    assert ws.store.jobs.get(job.id).attempt == 3
    assert any("goes on from where it was" in line.get("text", "") for line in told)
    assert found.num_pictures == num
    assert not parts.exists()
    rows = predictions.rows(ws, "killed", limit=num).items
    first = {row.path: row.scores[0].label for row in rows[:120]}
    assert [row.path for row in rows] == [str(paths[number % 120]) for number in range(num)]
    assert all(first[row.path] == row.scores[0].label for row in rows)


def test_the_facts_win_and_models_in_use_stay(ws: Workspace, by_cli: Any, card: Card) -> None:
    with pytest.raises(Conflict, match="in use by prediction many"):
        models.delete(ws, "shapes-1")
    ws.store.remove(by_cli["id"])
    sweep(ws)  # the folder is whole, so it gets its row again, with what it was made of
    assert predictions.get(ws, "many").model.id == card.id
    with pytest.raises(Conflict, match="in use by"):
        models.delete(ws, "shapes-1")


@pytest.fixture(scope="module")
def server(ws: Workspace, card: Card, pictures: Path) -> Iterator[Server]:
    started = Server(ws.root, "--allow", pictures.parent)
    yield started
    assert started.stop() == 0


def test_the_same_by_rest(server: Server, ws: Workspace, by_cli: Any, pictures: Path) -> None:
    client = server.client
    body = {"model": "shapes-1", "source": str(pictures), "top": 2, "name": "posted"}
    answer = client.post("/predictions", json=body)
    assert answer.status_code == 202, answer.text
    place = answer.headers["Location"].removeprefix("/api/v1")
    _until(lambda: client.get(place).json()["state"] == "done")
    made = client.get("/predictions/posted").json()
    same = ("classes", "rejected", "num_pictures", "model", "source", "top")
    assert {name: made[name] for name in same} == {name: by_cli[name] for name in same}
    assert made == Cli(ws.root)("prediction", "show", "posted", "--json").json
    seen: list[Any] = []
    after: str | None = "0"
    while after is not None:
        page = client.get("/predictions/posted/rows", params={"limit": 50, "after": after}).json()
        seen += page["items"]
        after = page["next"]
    assert seen == [row.model_dump() for row in _all_rows(ws, "many")]
    label = max(made["classes"], key=made["classes"].get)
    (best,) = client.get("/predictions/posted/rows", params={"class": label, "limit": 1}).json()["items"]
    assert best == _all_rows(ws, "many", label=label)[0].model_dump()
    rejected = client.get("/predictions/posted/rows", params={"rejected": True}).json()["items"]
    assert len(rejected) == sum(REJECTED.values())
    assert client.get("/predictions/posted/rows", params={"class": "none"}).status_code == 422
    assert client.get("/predictions/posted/rows", params={"after": "x"}).status_code == 422
    assert [item["name"] for item in client.get("/predictions", params={"limit": 1}).json()["items"]] == ["posted"]
    assert client.delete("/models/shapes-1").status_code == 409
    assert client.delete("/predictions/posted").json()["kind"] == "prediction"
    assert client.get("/predictions/posted").status_code == 404


def test_the_server_reads_only_where_it_may(server: Server, ws: Workspace, pictures: Path, tmp_path: Path) -> None:
    client = server.client
    for source in ("/etc", str(tmp_path), "relative", f"{pictures}/../../.."):
        refused = client.post("/predictions", json={"model": "shapes-1", "source": source})
        assert (refused.status_code, refused.json()["where"]) == (422, "source")
    outside = shutil.copy(pictures / "disc" / "000.png", tmp_path)
    source = pictures.parent / "outside.txt"
    source.write_text(f"{outside}\n../../../etc/passwd\nshapes/disc/000.png\n")
    answer = client.post("/predictions", json={"model": "shapes-1", "source": str(source), "name": "outside"})
    _until(lambda: client.get(answer.headers["Location"].removeprefix("/api/v1")).json()["state"] == "done")
    assert client.get("/predictions/outside").json()["rejected"] == {"not in a folder that may be read": 2}
    refused = client.post("/predictions", json={"model": "shapes-1", "source": str(source), "base": "/etc"})
    assert (refused.status_code, refused.json()["where"]) == (422, "base")
