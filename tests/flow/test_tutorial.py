"""The tutorial is run: every command and every piece of Python on the page, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"


@pytest.mark.slow
def test_every_command_of_the_tutorial_works(tmp_path: Path) -> None:
    blocks = re.findall(r"```(console|python)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    script = ["set -eu", f'vizsla() {{ "{sys.executable}" -m vizsla "$@"; }}']
    for kind, text in blocks:
        if kind == "console":
            assert all(line.startswith("$ ") for line in text.splitlines())
            script += [line.removeprefix("$ ") for line in text.splitlines()]
        else:
            script += [f"{sys.executable} - <<'END'", text, "END"]
    assert len(script) > 12
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "5,000 found = 5,000 used + 0 rejected" in done.stdout
    accuracy = re.search(r"accuracy\s+([\d.]+) % \([\d.]+ to [\d.]+\) on 1,000 test pictures", done.stdout)
    assert accuracy, done.stdout[:3000]
    assert float(accuracy[1]) > 97, "what the README promises of the quickstart"
    shown = done.stdout.split("What was made")[0]
    pictures = re.findall(r"digits/(\d)/\S+\.png\s+[\d.]+ %\s+\S*\s+(\d)\s", shown)
    assert len(pictures) == 3, done.stdout[:3000]
    assert all(true == said for true, said in pictures)
