"""Bad input gets a clear error, a status that is not zero, and leaves nothing half-made."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support import Cli, command, draw_shapes, environment

import vizsla
from vizsla import files
from vizsla.store.rows import Kind

KINDS: tuple[Kind, ...] = ("dataset", "run", "model", "evaluation")


def _nothing_is_left(workspace: Path) -> None:
    with vizsla.open(workspace) as ws:
        for kind in KINDS:
            assert ws.store.all(kind) == []
            assert list((workspace / f"{kind}s").iterdir()) == []


def _pictures(folder: Path, num: int = 6, **labels: int) -> Path:
    draw_shapes(folder, labels=("disc", "ring"), num=num)
    for label, wanted in labels.items():
        draw_shapes(folder, labels=(label,), num=wanted)
    return folder


def test_a_missing_folder(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    done = cli("dataset", "create", "d", tmp_path / "none", status=1)
    assert str(tmp_path / "none") in done.err.replace("\n", "")
    _nothing_is_left(workspace)


def test_one_class_only(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    draw_shapes(tmp_path / "p", labels=("disc",), num=4)
    done = cli("dataset", "create", "d", tmp_path / "p", status=1)
    assert "two" in done.err or "one class" in done.err
    _nothing_is_left(workspace)


def test_a_class_with_one_picture(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    pictures = _pictures(tmp_path / "p", square=1)
    done = cli("dataset", "create", "d", pictures, status=1)
    assert "square" in done.err
    assert "--small-classes drop" in done.err
    _nothing_is_left(workspace)
    dropped = cli("dataset", "create", "d", pictures, "--small-classes", "drop", "--json").json
    assert dropped["labels"] == ["disc", "ring"]
    assert dropped["found"] == dropped["used"] + dropped["rejected"] == 13


def test_all_pictures_corrupt(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "p" / label).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "p" / label / f"{i}.jpg").write_bytes(b"\xff\xd8\xff\xe0 nonsense")
    done = cli("dataset", "create", "d", tmp_path / "p", status=1)
    assert "a/0.jpg" in done.err
    _nothing_is_left(workspace)


def test_a_truncated_picture_among_good_ones(cli: Cli, tmp_path: Path) -> None:
    pictures = _pictures(tmp_path / "p")
    whole = (pictures / "disc" / "000.png").read_bytes()
    (pictures / "disc" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "ring" / ".ipynb_checkpoints").mkdir()
    (pictures / "ring" / ".ipynb_checkpoints" / "x.png").write_bytes(whole)
    (pictures / "README.txt").write_text("read me")
    done = cli("dataset", "create", "d", pictures)
    assert "15 found = 12 used + 3 rejected" in done.out
    assert "truncated" in done.out


def test_an_unknown_network(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    cli("dataset", "create", "d", _pictures(tmp_path / "p"), "--size", 32)
    done = cli("train", "d", "--net", "resnet81", status=1)
    assert "resnet18" in done.err
    assert cli("run", "list", "--json").json == []
    assert list((workspace / "runs").iterdir()) == []


@pytest.mark.slow
def test_weights_that_are_not_to_be_had(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    cli("dataset", "create", "d", _pictures(tmp_path / "p"), "--size", 32)
    done = cli("train", "d", "--net", "resnet18", "--tune", "full", status=1)
    for way in ("hub", "--weights", "--tune scratch"):
        assert way in done.err
    assert list((workspace / "runs").iterdir()) == []


@pytest.mark.slow
def test_a_picture_size_that_the_network_cannot_take(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    cli("dataset", "create", "d", _pictures(tmp_path / "p"), "--size", 12)
    assert "12" in cli("train", "d", "--net", "lenet", status=1).err
    assert "does not fit" in cli("train", "d", "--net", "lenet", "--crop", 28, status=1).err
    assert list((workspace / "runs").iterdir()) == []


@pytest.mark.slow
def test_a_split_that_is_empty(cli: Cli, tmp_path: Path) -> None:
    cli("dataset", "create", "d", _pictures(tmp_path / "p"), "--size", 28)
    cli("train", "d", "--net", "lenet", "--epochs", 1, "--name", "r")
    assert "--test-percent" in cli("evaluate", "r", "--split", "test", status=1).err
    assert cli("evaluation", "list", "--json").json == []


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_stops_with_advice(cli: Cli, tmp_path: Path) -> None:
    options = ("--optimizer", "sgd", "--learning-rate", "1e15", "--net", "googlenet", "--epochs", 3, "--batch-size", 2)
    cli("dataset", "create", "large", _pictures(tmp_path / "q", num=12), "--size", 64)
    done = cli("train", "large", *options, "--name", "r", status=1)
    assert "lower learning rate" in done.err
    shown = cli("run", "show", "r", "--json").json
    assert shown["progress"]["state"] == "failed"
    assert "not a finite number" in shown["progress"]["error"]["what"]


@pytest.mark.slow
def test_copies_in_folders_of_the_users_own_are_said(cli: Cli, tmp_path: Path) -> None:
    draw_shapes(tmp_path / "p" / "train", num=12)
    shutil.copytree(tmp_path / "p" / "train", tmp_path / "p" / "test")
    assert "in more than one split" in cli("dataset", "create", "d", tmp_path / "p", "--size", 28).out
    cli("train", "d", "--net", "lenet", "--epochs", 1, "--name", "r")
    (warning,) = (w for w in cli("evaluate", "r", "--json").json["warnings"] if "another split" in w)
    assert warning.startswith("36 pictures of the test split")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("train", "none"), "There is no dataset"),
        (("train",), "DATASET"),
        (("evaluate", "none"), "There is no run or model"),
        (("predict", "none", "x.png"), "There is no model"),
        (("run", "resume", "none"), "There is no run"),
        (("train", "d", "--epochs", "0"), "--epochs: Input should be greater than or equal to 1"),
        (("train", "d", "--learning-rate", "inf"), "--learning-rate: Input should be a finite number"),
        (("dataset", "create", "d", ".", "--size", "big"), "big"),
        (("dataset", "create", "d", ".", "--resize", "stretch"), "squash"),
        (("dataset", "create", "../d", "."), "slash"),
        (("datset", "list"), "dataset"),
    ],
)
def test_a_slip_of_the_finger(cli: Cli, tmp_path: Path, args: tuple[str, ...], words: str) -> None:
    process = subprocess.run(
        command(*args), env=environment(tmp_path / "w"), capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert process.returncode in (1, 2)
    assert words in process.stderr
    assert "Traceback" not in process.stderr
    as_json = subprocess.run(
        command(*args, "--json"),
        env=environment(tmp_path / "w"),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert '"error"' in as_json.stdout
    assert as_json.returncode == process.returncode


def test_a_workspace_among_other_things_is_refused(cli: Cli, workspace: Path) -> None:
    workspace.mkdir()
    (workspace / "thesis.odt").write_text("years of work")
    assert "thesis.odt" in cli("dataset", "list", status=1).err
    assert [p.name for p in workspace.iterdir()] == ["thesis.odt"]


def test_a_second_process_making_the_same_dataset(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    pictures = draw_shapes(tmp_path / "p", num=400)
    first = subprocess.Popen(
        command("dataset", "create", "d", pictures),
        env=environment(workspace),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    worker = _until_building(workspace, first)
    os.killpg(worker, signal.SIGSTOP)  # holds it in the middle, however fast the machine is
    try:
        done = cli("dataset", "create", "d", pictures, status=1)
        assert "The dataset 'd' is in the making" in done.err
        assert cli("dataset", "list", "--json").json == [], "what is not finished is not shown"
    finally:
        os.killpg(worker, signal.SIGCONT)
    assert first.wait(60) == 0
    assert cli("dataset", "show", "d", "--json").json["used"] == 1200


def test_a_killed_build_is_begun_again_by_whoever_looks_after_the_queue(
    cli: Cli, workspace: Path, tmp_path: Path
) -> None:
    pictures = draw_shapes(tmp_path / "p", num=400)
    first = subprocess.Popen(
        command("dataset", "create", "d", pictures),
        env=environment(workspace),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    worker = _until_building(workspace, first)
    first.kill()
    first.wait()
    os.killpg(worker, signal.SIGKILL)
    cli("dataset", "create", "other", pictures, "--max-per-class", 4)  # waits, and takes turns meanwhile
    deadline = time.monotonic() + 60
    while (job := cli("jobs", "show", "d", "--json").json)["state"] != "done":
        assert time.monotonic() < deadline
    assert [change["state"] for change in job["history"]].count("starting") == 2
    assert cli("dataset", "show", "d", "--json").json["used"] == 1200
    assert len(list((workspace / "datasets").iterdir())) == 2


def test_a_killed_build_without_retries_gives_its_name_back(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    pictures = draw_shapes(tmp_path / "p", num=400)
    first = subprocess.Popen(
        command("dataset", "create", "d", pictures, "--retries", 0),
        env=environment(workspace),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    os.killpg(_until_building(workspace, first), signal.SIGKILL)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 1
    assert b"killed by SIGKILL" in err
    assert cli("dataset", "create", "d", pictures, "--json").json["used"] == 1200
    assert len(list((workspace / "datasets").iterdir())) == 1


def _until_building(workspace: Path, process: subprocess.Popen[bytes]) -> int:
    """Wait until pixels are written; returns the process that writes them."""
    deadline = time.monotonic() + 60
    while not list(workspace.glob("datasets/*/pixels/*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    (folder,) = workspace.glob("datasets/*")
    return files.lock_holder(folder) or 0


def test_a_full_disk_while_building(small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    disk = small_disk(6)
    pictures = draw_shapes(tmp_path / "p", num=100)
    env = environment(disk / "w")
    args = command("dataset", "create", "d", pictures, "--size", 128)  # 300 x 49 kB
    done = subprocess.run(args, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "MB are needed" in done.stderr
    assert list((disk / "w" / "datasets").iterdir()) == []


def _keep_full(ballast: Path, process: subprocess.Popen[str]) -> None:
    """Take the last room that there is until `process` ends, also what it frees by deleting something."""
    deadline = time.monotonic() + 120
    goes_on = True
    with ballast.open("wb", buffering=0) as file:
        while goes_on:
            assert time.monotonic() < deadline
            goes_on = process.poll() is None  # looked at before, so that also what its end frees is taken
            with contextlib.suppress(OSError):
                while file.write(b"x" * 4096):
                    pass
            time.sleep(0.01)


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_checkpoint(small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    disk = small_disk(6)
    pictures = draw_shapes(tmp_path / "p", num=20)
    env = environment(disk / "w")

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(*args), env=env, capture_output=True, text=True, check=False)

    assert run("dataset", "create", "d", pictures, "--size", 32).returncode == 0
    train = ["train", "d", "--net", "lenet", "--epochs", 400, "--batch-size", 4, "--name", "r"]
    process = subprocess.Popen(command(*train), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(disk.glob("w/runs/*/checkpoints/0*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    _keep_full(disk / "ballast", process)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "disk is full" in err
    assert "The disk is full" in run("run", "show", "r", "--json").stdout
    (disk / "ballast").unlink()
    assert json.loads(run("run", "show", "r", "--json").stdout)["progress"]["state"] in ("lost", "failed")
    resume = subprocess.Popen(command("run", "resume", "r"), env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    (log,) = disk.glob("w/runs/*/events.jsonl")
    while '"resumed"' not in (text := log.read_text()) or '"epoch"' not in text.split('"resumed"')[1]:
        assert time.monotonic() < deadline
        assert resume.poll() is None
        time.sleep(0.05)
    resume.send_signal(signal.SIGINT)
    resume.communicate(timeout=120)
    assert resume.returncode == 130


def test_a_folder_is_no_picture(cli: Cli, tmp_path: Path) -> None:
    refused = cli("predict", "dogs 1", tmp_path, status=1).err
    assert f"vizsla prediction create 'dogs 1' {tmp_path}" in " ".join(refused.split())
