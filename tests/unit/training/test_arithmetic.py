from __future__ import annotations

import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vizsla.errors import Unavailable
from vizsla.networks import catalogue
from vizsla.training import arithmetic
from vizsla.training.arithmetic import Trial, choose, choose_devices
from vizsla.training.run import Arithmetic
from vizsla.training.spec import TrainingSpec

CPU = torch.device("cpu")


def _trial(num_passes: int = 1000, **settings: Any) -> Trial:
    torch.manual_seed(0)
    network = catalogue.build("test_resnet", num_classes=2, in_channels=3, size=(32, 32))
    spec = TrainingSpec(**{"tune": "scratch", **settings}).resolved(has_weights=False)
    return Trial(network, (32, 32), 3, spec, CPU, 4, num_passes)


def test_the_fastest_is_taken_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "SMALL_NETWORK", 0)
    cache = tmp_path / "cache" / "arithmetic.json"
    trial = _trial()
    before = {name: value.clone() for name, value in trial.network.state_dict().items()}
    found = choose(trial, cache)
    assert set(found.measured) >= {"fp32, channels-last", "fp32, channels-first"}
    assert all(speed > 0 for speed in found.measured.values())
    layout = "channels-last" if found.channels_last else "channels-first"
    exact = max(speed for name, speed in found.measured.items() if name.startswith("fp32"))
    chosen = found.measured[f"{found.precision}, {layout}"]
    assert chosen >= exact if found.precision == "fp32" else chosen > arithmetic.WORTH_ROUNDING * exact
    assert choose(trial, cache) == found
    after = trial.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items()), "measuring changes nothing"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_format_that_was_asked_for_is_taken(tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "SMALL_NETWORK", 0)
    found = choose(_trial(precision=precision), tmp_path / "cache" / "a.json")
    assert found.precision == precision
    assert {name.split(",")[0] for name in found.measured} == {precision}


def test_compilation_is_tried_only_where_it_can_pay(tmp_path: Path) -> None:
    assert not choose(_trial(), tmp_path / "cache" / "a.json").compiled
    assert choose(_trial(compile="on"), tmp_path / "cache" / "a.json").compiled


def test_a_head_alone_is_measured_by_passes_and_has_no_fused_optimiser(tmp_path: Path) -> None:
    assert not choose(_trial(tune="head"), tmp_path / "cache" / "a.json").fused


def test_a_small_network_is_not_measured(tmp_path: Path) -> None:
    """Its timings are noise: what is chosen must not differ from one run to the next."""
    for asked, precision, compiled in (({}, "fp32", False), ({"precision": "bf16", "compile": "on"}, "bf16", True)):
        found = choose(_trial(**asked), tmp_path / "cache" / "a.json")
        assert found == Arithmetic(precision=precision, compiled=compiled, reason="the network is small")
    assert not (tmp_path / "cache").exists()


def test_a_machine_that_is_busy_for_long_times_each_format_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layout of each format, whatever that takes; what was found holds for the next run too."""
    monkeypatch.setattr(arithmetic, "SMALL_NETWORK", 0)
    monkeypatch.setattr(arithmetic, "MOST_S", 0.0)
    monkeypatch.setattr(arithmetic, "_formats", lambda device: ["fp32", "bf16"])
    told: list[tuple[str, int, int]] = []
    found = choose(_trial(), tmp_path / "cache" / "a.json", lambda *progress: told.append(progress))
    assert sorted(found.measured) == ["bf16, channels-last", "fp32, channels-last"]
    assert (found.channels_last, found.compiled) == (True, False)
    assert "no time for others" in found.reason
    assert [(done, of) for _, done, of in told] == [(0, 12), (1, 12)]
    monkeypatch.setattr(arithmetic, "_speed", lambda *_, **__: pytest.fail("it was measured again"))
    assert choose(_trial(), tmp_path / "cache" / "a.json") == found


def test_a_machine_that_is_busy_for_a_moment_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates take turns, and the best of each counts."""
    turns: dict[str, int] = {}

    def speed(trial: Trial, candidate: Arithmetic, *, at_least: float) -> float:
        name = f"{candidate.precision} {candidate.channels_last}"
        turns[name] = turns.get(name, 0) + 1
        true = {"fp32 True": 100.0, "fp32 False": 80.0, "bf16 True": 70.0, "bf16 False": 20.0}[name]
        return true * (0.6 if turns[name] == 1 and name.startswith("fp32") else 1.0)

    monkeypatch.setattr(arithmetic, "SMALL_NETWORK", 0)
    monkeypatch.setattr(arithmetic, "_speed", speed)
    monkeypatch.setattr(arithmetic, "_formats", lambda device: ["fp32", "bf16"])
    found = choose(_trial(), tmp_path / "cache" / "a.json")
    assert (found.precision, found.channels_last) == ("fp32", True)
    assert turns["bf16 False"] == 1, "what is far too slow has no second turn"


def test_devices() -> None:
    assert choose_devices("cpu", 2) == [CPU, CPU]
    if torch.cuda.device_count() == 0:
        assert choose_devices("auto", 1) == [CPU]
        for wanted in ("cuda", "cuda:1", "cuda:0,1"):
            with pytest.raises(Unavailable, match="0 were found"):
                choose_devices(wanted, 1)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep freed memory")
def test_a_worker_takes_no_new_pages_for_the_tensors_of_the_next_step() -> None:
    script = """
import resource, torch
from vizsla.training.arithmetic import keep_freed_memory
keep_freed_memory()
for _ in range(3):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    pages_of_a_tensor = 2**24 * 4 // resource.getpagesize()
    assert int(done.stdout) < 2 * pages_of_a_tensor, "of five tensors"
