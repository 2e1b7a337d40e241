import errno
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support import kill_process

from vizsla import files
from vizsla.errors import Conflict, DiskFull, InvalidInput


def test_write_json_is_read_back(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"name": "Müller", "n": [1, 2.5, None]})
    assert files.read_json(tmp_path / "a.json") == {"name": "Müller", "n": [1, 2.5, None]}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, float("nan"))
    assert files.read_json(path) == 1
    with pytest.raises(RuntimeError):
        _write_half(path)
    assert files.read_json(path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def _write_half(path: Path) -> None:
    with files.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError


def test_no_space_left_becomes_disk_full(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="The disk is full"), files.disk_errors(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DiskFull), files.disk_errors(tmp_path / "a"):
        Path("/dev/full").write_bytes(b"x")


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), files.disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_require_space_says_how_much(tmp_path: Path) -> None:
    files.require_space(tmp_path, 1)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(DiskFull, match="MB are needed"):
        files.require_space(tmp_path, free)


def test_read_json_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="missing"):
        files.read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"bad\.json"):
        files.read_json(tmp_path / "bad.json")


def _hold(folder: Path) -> None:
    with files.Lock(folder):
        time.sleep(60)


def _until(condition: object) -> None:
    deadline = time.monotonic() + 20
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_lock_is_held_by_one_process_and_dropped_by_kill(tmp_path: Path) -> None:
    assert files.lock_holder(tmp_path) is None
    process = multiprocessing.get_context("spawn").Process(target=_hold, args=(tmp_path,))
    process.start()
    _until(lambda: files.lock_holder(tmp_path))
    assert files.lock_holder(tmp_path) == process.pid
    with pytest.raises(Conflict, match=str(process.pid)):
        files.Lock(tmp_path).acquire()
    kill_process(process.pid)
    process.join()
    assert files.lock_holder(tmp_path) is None
    with files.Lock(tmp_path):
        assert files.lock_holder(tmp_path) == os.getpid()
    assert files.lock_holder(tmp_path) is None


def test_a_lock_is_handed_to_a_child_without_a_gap(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from vizsla import files\n"
        "with files.Lock(Path(sys.argv[1]), int(sys.argv[2])): print('held', flush=True); time.sleep(60)"
    )
    lock = files.Lock(tmp_path)
    lock.acquire()
    command = [sys.executable, "-c", code, str(tmp_path), str(lock.fileno())]
    with subprocess.Popen(command, pass_fds=[lock.fileno()], stdout=subprocess.PIPE) as child:
        lock.release()
        assert files.lock_holder(tmp_path) is not None  # held by the child's descriptor before it says so
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert files.lock_holder(tmp_path) == child.pid
        child.kill()
    assert files.lock_holder(tmp_path) is None
