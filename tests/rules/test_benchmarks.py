"""Every benchmark still starts: what it imports of the product is there."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize(
    "script",
    [path.name for path in sorted(BENCHMARKS.glob("*.py")) if path.name != "common.py"],
)
def test_a_benchmark_tells_its_usage(script: str) -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script, "--help"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--out" in done.stdout
