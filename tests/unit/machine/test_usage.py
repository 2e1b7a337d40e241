"""What work uses of the machine, sampled: of all its processes, of its GPUs alone, and in a file that stays small."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pynvml
import pytest
from tests.unit.machine.test_gpus import NoNvml, Nvml

from vizsla.machine import gpus, usage

BUSY = "import sys; kept = bytearray(80_000_000); print('up', flush=True)\nwhile True: sum(range(10_000))"


def _sampler(folder: Path, *devices: str, environment: dict[str, str] | None = None) -> usage.Sampler:
    return usage.Sampler(folder, devices, lambda: gpus.find(Nvml()), environment or {})


def test_all_processes_of_the_work_are_counted(tmp_path: Path) -> None:
    sampler = _sampler(tmp_path)
    before = sampler.read(1.0)
    child = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        used = 0.0
        while used < 0.1:  # until the system's clock has seen it at work
            sample = sampler.read(1.0)
            used += sample.cores
        assert sample.memory_bytes > before.memory_bytes + 80e6
        assert sample.machine_memory_bytes > 0
        assert sample.free_disk_bytes > 0
    finally:
        child.kill()
        child.communicate()
    assert sampler.read(1.0).memory_bytes < sample.memory_bytes


def test_only_the_gpus_that_were_given_are_sampled(tmp_path: Path) -> None:
    assert _sampler(tmp_path, "cpu").read(1.0).gpus == ()
    (card,) = _sampler(tmp_path, "cuda:0").read(1.0).gpus
    assert card == usage.GpuSample(name="cuda:0", use=0.37, memory_bytes=2 * 10**9, temperature_c=54, power_w=251.3)
    # The card that tells nothing of itself but its name; and one that is hidden, as a worker counts them.
    (silent,) = _sampler(tmp_path, "cuda:1").read(1.0).gpus
    assert (silent.use, silent.memory_bytes, silent.temperature_c, silent.power_w) == (None, None, None, None)
    hidden = _sampler(tmp_path, "cuda:0", environment={"CUDA_VISIBLE_DEVICES": "1"}).read(1.0).gpus
    assert [one.use for one in hidden] == [None]


def test_declared_gpus_without_a_driver_are_no_error(tmp_path: Path) -> None:
    sampler = usage.Sampler(tmp_path, ["cuda:0"], lambda: gpus.find(NoNvml(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)), {})
    assert sampler.read(1.0).gpus == ()


def test_short_work_has_a_sample_and_the_next_goes_on(tmp_path: Path) -> None:
    for count in (1, 2):
        with usage.watching(tmp_path, ["cpu"]):
            pass
        assert len(usage.read(tmp_path / usage.FILE)) == count


def test_the_file_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "EVERY_S", 0.001)
    monkeypatch.setattr(usage, "MAX_SAMPLES", 8)
    sampler, ended = _sampler(tmp_path), threading.Event()
    thread = threading.Thread(target=usage._sample, args=(tmp_path / usage.FILE, sampler, ended))
    thread.start()
    samples: list[usage.Sample] = []
    while not samples or samples[-1].every_s < 0.016:
        samples = usage.read(tmp_path / usage.FILE)
        assert len(samples) < 8
    ended.set()
    thread.join()
    moments = [sample.at for sample in usage.read(tmp_path / usage.FILE)]
    assert moments == sorted(moments)


def test_a_folder_that_is_gone_does_not_stop_the_work(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    with usage.watching(folder, []):
        folder.rmdir()


def test_lines_that_were_cut_short_are_left_out(tmp_path: Path) -> None:
    whole = _sampler(tmp_path).read(1.0).model_dump_json()
    (tmp_path / usage.FILE).write_text(f"{whole}\n{whole[:50]}\n{{}}\n{whole}\n{whole[:20]}")
    assert len(usage.read(tmp_path / usage.FILE)) == 2
    assert usage.read(tmp_path / "none") == []
