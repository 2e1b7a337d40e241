"""The tutorial is run: every command and every piece of Python on its pages, in order."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _done(page: Path, folder: Path) -> str:
    """What all commands and all Python of a page print, run in a folder."""
    blocks = re.findall(r"```(console|python)\n(.*?)```", page.read_text(), re.DOTALL)
    script = ["set -eu", f'vizsla() {{ "{sys.executable}" -m vizsla "$@"; }}']
    for kind, text in blocks:
        if kind == "console":
            assert all(line.startswith("$ ") for line in text.splitlines())
            script += [line.removeprefix("$ ") for line in text.splitlines()]
        else:
            script += [f"{sys.executable} - <<'END'", text, "END"]
    assert len(script) > 10
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_every_command_of_the_tutorial_works(tmp_path: Path) -> None:
    said = _done(ROOT / "docs" / "tutorial.md", tmp_path)
    assert "5,000 found = 5,000 used + 0 rejected" in said
    accuracy = re.search(r"accuracy\s+([\d.]+) % \([\d.]+ to [\d.]+\) on 1,000 test pictures", said)
    assert accuracy, said[:3000]
    assert float(accuracy[1]) > 97, "what the README promises of the quickstart"
    shown = said.split("What was made")[0]
    pictures = re.findall(r"digits/(\d)/\S+\.png\s+[\d.]+ %\s+\S*\s+(\d)\s", shown)
    assert len(pictures) == 3, said[:3000]
    assert all(true == said for true, said in pictures)


@pytest.mark.slow
def test_every_command_of_its_second_chapter_works(tmp_path: Path, shared_data: Callable[[str], Path]) -> None:
    dogs = shared_data("dogs10")
    for breed in ("beagle", "Samoyed", "dingo"):
        (tmp_path / "Images" / breed).mkdir(parents=True)
        for photo in sorted((dogs / "train" / breed).iterdir())[:40]:
            (tmp_path / "Images" / breed / photo.name).symlink_to(photo)
    (tmp_path / "photo.jpg").write_bytes(next(iter(sorted((dogs / "val" / "Samoyed").iterdir()))).read_bytes())
    said = _done(ROOT / "examples" / "dogs" / "README.md", tmp_path)
    assert "The service dogs answers with dogs at http://127.0.0.1:" in said
    answer = json.loads(next(line for line in said.splitlines() if line.startswith('{"model"')))
    assert answer["predictions"][0]["scores"][0]["label"] == "Samoyed"
    assert "The service dogs is stopp" in said
