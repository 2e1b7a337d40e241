"""What is done with runs that are there: followed, extended, cloned, renamed."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.support import Cli, command, environment

import vizsla
from vizsla import events, files
from vizsla.api import models, runs
from vizsla.errors import Conflict, InvalidInput, NotFound
from vizsla.store.workspace import Workspace
from vizsla.training.run import find_checkpoint

pytestmark = pytest.mark.slow

# A learning rate that does not depend on how long the training is.
SPEC = vizsla.TrainingSpec(
    net="lenet", epochs=4, batch_size=8, learning_rate=0.002, schedule="fixed", warmup_percent=0, jitter=0.2, seed=3
)


@pytest.fixture(scope="module", autouse=True)
def base(ws: Workspace) -> None:
    """A run that is done."""
    runs.start(ws, "shapes", SPEC, name="base")


def test_a_run_is_extended_as_if_it_had_been_planned_so(ws: Workspace) -> None:
    short = runs.start(ws, "shapes", SPEC.model_copy(update={"epochs": 1}), name="short")
    extended, planned = runs.extend(ws, short.run.id, 3), runs.get(ws, "base")
    assert extended.progress.state == "done"
    assert (extended.run.spec.epochs, extended.run.asked.epochs) == (4, 1)
    assert extended.run.total_steps == planned.run.total_steps
    mine, theirs = (find_checkpoint(status.folder, "last") for status in (extended, planned))
    assert mine.step == theirs.step
    for name in ("weights.safetensors", "optimizer.safetensors"):
        assert files.sha256(mine.folder / name) == files.sha256(theirs.folder / name)
    keys = ("epoch", "step", "train_loss", "val_loss", "best_epoch")
    curves = [[[epoch[key] for key in keys] for epoch in runs.epochs(ws, name)] for name in ("short", "base")]
    assert curves[0] == curves[1]
    lines, _ = events.read(extended.folder / "events.jsonl")
    told = [line for line in lines if line["event"] in ("extended", "resumed")]
    assert [(line["event"], line.get("after"), line.get("epochs")) for line in told] == [
        ("extended", None, 4),
        ("resumed", "done", None),
    ]


def test_a_run_at_work_is_neither_extended_nor_renamed(ws: Workspace) -> None:
    folder = runs.get(ws, "base").folder
    before = (folder / "run.json").read_bytes()
    with files.Lock(folder):
        with pytest.raises(Conflict, match="at work here"):
            runs.extend(ws, "base", 1)
        with pytest.raises(Conflict, match="at work here"):
            runs.rename(ws, "base", "other")
    with pytest.raises(InvalidInput, match="by one epoch or more"):
        runs.extend(ws, "base", 0)
    assert (folder / "run.json").read_bytes() == before
    with pytest.raises(Conflict, match="is done") as caught:
        runs.resume(ws, "base")
    assert "vizsla run extend base" in caught.value.remedy


def test_a_clone_changes_what_is_given_and_nothing_else(ws: Workspace) -> None:
    cli = Cli(ws.root)
    options = ("--epochs", 1, "--batch-size", 32, "--jitter=none", "--seed=0", "--name", "copy", "--json")
    told = cli("run", "clone", "base", *options).json
    changed = {"epochs": 1, "batch_size": 32, "jitter": None, "seed": 0}
    assert told["run"]["asked"] == SPEC.model_copy(update=changed).model_dump(mode="json")
    assert told["run"]["dataset"]["name"] == "shapes"
    refused = cli("run", "clone", "base", "--batch-size", 0, status=1)
    assert "--batch-size" in refused.err


def test_a_run_is_renamed_in_its_folder_and_in_the_database(ws: Workspace) -> None:
    cli = Cli(ws.root)
    id = runs.get(ws, "base").run.id
    other = ws.store.add("run", "taken").id
    assert "The run base is now called named." in cli("run", "rename", "base", "named").out
    assert (ws.store.find("named", "run").id, runs.get(ws, id).run.name) == (id, "named")
    with pytest.raises(Conflict, match="taken"):
        runs.rename(ws, "named", "taken")
    with pytest.raises(InvalidInput, match="cannot be a name"):
        runs.rename(ws, "named", "-x")
    assert runs.get(ws, "named").run.id == id
    runs.rename(ws, "named", "base")
    ws.store.remove(other)


def test_a_training_begins_with_the_weights_of_a_run_or_a_model_by_its_name(ws: Workspace) -> None:
    base = runs.get(ws, "base")
    model = models.export(ws, "base", name="kept")
    # At a learning rate so small, what comes out is what went in.
    still = SPEC.model_copy(update={"epochs": 1, "learning_rate": 1e-12, "jitter": 0.0})
    best = runs.epochs(ws, "base")[-1]["best_accuracy"]["value"]
    step = find_checkpoint(base.folder, "best").step
    for weights, source in (
        ("run:base", f"run base ({base.run.id}), step {step}"),
        (f"model:{model.id}", f"model kept ({model.id})"),
    ):
        begun = runs.start(ws, "shapes", still.model_copy(update={"weights": weights}))
        assert begun.run.weights
        assert (begun.run.weights.source, begun.run.weights.licence) == (source, "trained from scratch: yours")
        assert begun.run.spec.tune == "full"
        assert (begun.run.input.mean, begun.run.input.std) == (base.run.input.mean, base.run.input.std)
        assert runs.epochs(ws, begun.run.id)[0]["val_accuracy"]["value"] == pytest.approx(best, abs=0.05)
        with pytest.raises(Conflict, match=f"in use by .*run {re.escape(begun.run.name)}"):
            models.delete(ws, "kept") if weights.startswith("model") else runs.delete(ws, "base")
    # A new name changes nothing, and the weights of weights have one licence.
    runs.rename(ws, "base", "renamed")
    second = runs.clone(ws, begun.run.id, still.model_copy(update={"weights": f"run:{begun.run.id}"}))
    assert second.run.asked.weights == f"run:{begun.run.id}"
    assert second.run.weights
    assert second.run.weights.licence == "trained from scratch: yours"
    runs.rename(ws, "renamed", "base")
    for weights in ("run:nothing", "model:base"):
        with pytest.raises(NotFound):
            runs.submit(ws, "shapes", SPEC.model_copy(update={"weights": weights}))


def test_a_run_that_has_ended_is_followed_to_its_end_at_once(ws: Workspace) -> None:
    cli = Cli(ws.root)
    shown = cli("run", "follow", "base").out
    lines = shown.splitlines()
    assert [line[:4] for line in lines[:5]] == ["1/4 ", "2/4 ", "3/4 ", "4/4 ", "base"]
    assert lines[4] == "base: done"
    assert lines[-1] == "  vizsla evaluate base --split val"
    told = cli("run", "follow", "base", "--json").json
    assert told["progress"]["state"] == "done"
    assert [epoch["epoch"] for epoch in told["epochs"]] == [1, 2, 3, 4]
    assert "no run" in cli("run", "follow", "nothing", status=1).err


def _train(ws: Workspace, name: str) -> subprocess.Popen[bytes]:
    """Train for long, in a process of its own."""
    settings = SPEC.model_dump(exclude_defaults=True) | {"epochs": 1000, "checkpoint_every_s": 0.5}
    options = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
    process = subprocess.Popen(
        command("train", "shapes", "--name", name, *options),
        env=environment(ws.root),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not any(row.name == name for row in ws.store.all("run")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def _until(terminal: int, pattern: str) -> str:
    """What a terminal shows until it shows `pattern`, or all of it."""
    shown = ""
    deadline = time.monotonic() + 60
    while not re.search(pattern, shown):
        assert time.monotonic() < deadline, shown[-3000:]
        try:
            shown += os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # nobody has the other side open any more
            break
    return shown


def test_a_running_run_is_followed_from_its_start_to_its_stop(ws: Workspace) -> None:
    training = _train(ws, "watched")
    ours, theirs = pty.openpty()
    env = environment(ws.root) | {"TERM": "xterm-256color", "LINES": "40"}
    watching = subprocess.Popen(command("run", "follow", "watched"), env=env, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = _until(ours, "pictures/s")
    assert re.search("[\u2801-\u28ff]", shown), "curves are drawn"
    leaving = subprocess.Popen(
        command("run", "follow", "watched"), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert leaving.stdout is not None
    leaving.stdout.readline()
    leaving.send_signal(signal.SIGINT)
    _, err = leaving.communicate(timeout=60)
    assert leaving.returncode == 130
    assert b"The run was left alone." in err
    assert runs.get(ws, "watched").progress.state == "running"
    runs.stop(ws, "watched")
    assert "stopped" in _until(ours, "stopped")
    assert watching.wait(60) == 130
    assert training.wait(60) == 130
    os.close(ours)


def test_devices_tell_who_is_at_work(ws: Workspace) -> None:
    cli = Cli(ws.root)
    assert cli("devices", "--json").json[0]["runs"] == []
    training = _train(ws, "at-work")
    deadline = time.monotonic() + 60
    while not (held := cli("devices", "--json").json[0])["runs"] or ws.store.jobs.find("at-work").state != "running":
        assert time.monotonic() < deadline
    assert held["name"] == "cpu"
    assert [(run["name"], run["worker"]) for run in held["runs"]] == [
        ("at-work", runs.get(ws, "at-work").progress.worker)
    ]
    assert "at-work" in cli("devices").out
    runs.stop(ws, "at-work")
    assert training.wait(60) == 130
    assert cli("devices", "--json").json[0]["runs"] == []


def test_following_tells_everything_once(ws: Workspace) -> None:
    seen: list[events.Event] = []
    status = runs.follow(ws, "base", seen.append)
    lines, _ = events.read(Path(status.folder) / "events.jsonl")
    assert seen == events.surviving(lines)
    assert seen[-1]["event"] == "done"


def test_a_damaged_run_does_not_hide_the_others(ws: Workspace) -> None:
    status = runs.start(ws, "shapes", SPEC.model_copy(update={"epochs": 1}), name="damaged")
    (status.folder / "run.json").write_text("{")
    cli = Cli(ws.root)
    listed = cli("run", "list")
    assert "base" in listed.out
    assert "Warning: The run 'damaged'" in listed.err
    runs.delete(ws, "damaged")
