"""What workers see of the machine, and who asks too much is told so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vizsla import files
from vizsla.errors import Busy
from vizsla.jobs import launch

SILENT = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(600)
"""
SEEING = """
import os, sys
from pathlib import Path
Path(sys.argv[1], "seen").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for a worker; these modules can be started."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "silent_worker.py").write_text(SILENT)
    (modules / "seeing_worker.py").write_text(SEEING)
    monkeypatch.setenv("PYTHONPATH", f"{modules}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    made = tmp_path / "folder"
    made.mkdir()
    return made


@pytest.mark.parametrize(("given", "seen"), [(["host"], ""), (["cuda:1"], "2,5"), (["cpu"], "2,5")])
def test_what_has_a_place_beside_the_trainings_sees_no_gpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], seen: str
) -> None:
    """A training on the processor sees them: where the driver tells of none, it may find one."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    with files.Lock(folder) as lock:
        assert launch.start("seeing_worker", folder, lock, given).wait(60) == 0
    assert (folder / "seen").read_text() == seen


def test_a_question_that_takes_too_long_gives_its_place_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "PATIENCE_S", 0.01)
    for _ in range(launch.ASKED_AT_ONCE + 1):
        with pytest.raises(Busy, match="longer than"):
            launch.ask("silent_worker", {}, timeout_s=0.2)
    with launch._answering, launch._answering, pytest.raises(Busy, match="Other questions"):
        launch.ask("silent_worker", {}, timeout_s=0.2)
    for _ in range(launch.ASKED_AT_MOST + 1):  # and so does one that did not get one
        with launch._answering, launch._answering, pytest.raises(Busy, match="Other questions"):
            launch.ask("silent_worker", {})
