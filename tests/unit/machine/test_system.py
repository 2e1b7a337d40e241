from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil
import pytest

from vizsla.machine import system


def test_this_machine_is_told() -> None:
    found = system.system()
    assert 0 < found.cores <= (psutil.cpu_count() or 1)
    assert 0 < found.free_memory_bytes <= found.memory_bytes <= psutil.virtual_memory().total
    assert found.cpu
    assert found.open_files > 0


def test_a_disk_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    found = system.disk(tmp_path)
    assert found.free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert (found.write_mb_s or 0) > 0
    assert (found.read_mb_s or 0) > 0
    assert found.filesystem != "unknown"
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - hidden files too


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_that_was_given_less_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """The limit of a group above counts too, and pages of files that were read can be given up."""
    groups = tmp_path / "groups"
    cpu, memory = (
        (groups / "a", groups / "a") if version == 2 else (groups / "cpu,cpuacct" / "a", groups / "memory" / "a")
    )
    for folder in (cpu / "b", memory / "b"):
        folder.mkdir(parents=True, exist_ok=True)
    own = "0::/a/b\n" if version == 2 else "5:cpu,cpuacct:/a/b\n4:memory:/a/b\n0::/\n"
    (tmp_path / "own").write_text(own)
    if version == 2:
        (cpu / "b" / "cpu.max").write_text("50000 100000\n")
        (memory / "memory.max").write_text("1000000000\n")
        (memory / "b" / "memory.max").write_text("max\n")
        (memory / "memory.current").write_text("900000000\n")
        (memory / "memory.stat").write_text("anon 250000000\ninactive_file 600000000\nactive_file 50000000\n")
    else:
        (cpu / "b" / "cpu.cfs_quota_us").write_text("50000\n")
        (cpu / "b" / "cpu.cfs_period_us").write_text("100000\n")
        (memory / "memory.limit_in_bytes").write_text("1000000000\n")
        (memory / "memory.usage_in_bytes").write_text("900000000\n")
        (memory / "memory.stat").write_text("total_inactive_file 600000000\ntotal_active_file 50000000\n")
    monkeypatch.setattr(system, "GROUPS", groups)
    monkeypatch.setattr(system, "OWN_GROUPS", tmp_path / "own")
    found = system.system()
    assert (found.cores, found.memory_bytes, found.free_memory_bytes) == (0.5, 10**9, 750_000_000)


def test_a_folder_that_cannot_be_written_is_said_to_be_so(unprivileged: Path) -> None:
    (unprivileged / "closed").mkdir()
    (unprivileged / "closed").chmod(0o500)
    found = system.disk(unprivileged / "closed")
    assert found.error == "Permission denied"
    assert (found.write_mb_s, found.read_mb_s) == (None, None)
