"""Nothing of what is done with Vizsla is told to anybody elsewhere: also not by its libraries."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("module", ["vizsla", "vizsla.models.predictor", "vizsla.serving.worker"])
def test_onnx_runtime_keeps_quiet(tmp_path: Path, module: str) -> None:
    """It would make an identifier and a store of events in the home of the account, and send from there."""
    quiet = ("ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI", "XDG_CACHE_HOME")
    env = {name: value for name, value in os.environ.items() if name not in quiet} | {"HOME": str(tmp_path)}
    code = f"import {module}, onnxruntime, os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert list(tmp_path.iterdir()) == []
