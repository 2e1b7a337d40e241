"""`vizsla service package` needs no workspace, and says what it cannot do."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from tests.support import Cli


def test_a_folder_of_a_model_is_enough(cli: Cli, workspace: Path, colours: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a key that is long enough\n")
    done = cli("service", "package", f"Col_ours.1={colours}", "--out", tmp_path / "out", "--keys", keys, "--json")
    assert done.json["folder"] == str(tmp_path / "out")
    assert done.json["image"].startswith("col-ours-1:1rsrmwp2-")
    told = json.loads((tmp_path / "out" / "service.json").read_text())
    assert told["keys"] == [sha256(b"a key that is long enough").hexdigest()]
    assert not workspace.exists()
    assert "a key that" not in "".join(path.read_text() for path in (tmp_path / "out").glob("*") if path.is_file())
    said = cli("service", "package", colours, "--out", tmp_path / "two", "--public", "--name", "x").out
    assert "docker build --tag x:1rsrmwp2-" in said
    assert '"--public"' in (tmp_path / "two" / "Dockerfile").read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "everybody could ask"),
        (["--public", "--name", "Not_this"], "--name"),
        (["--public", "--workers", "0"], "--workers"),
        (["--public", "--drain", "-1"], "--drain"),
        (["--public", "--cores", "0"], "--cores"),
        (["--public", "--share", "0.5"], "one version only"),
    ],
)
def test_what_cannot_be_packaged_is_refused(
    cli: Cli, colours: Path, tmp_path: Path, options: list[str], told: str
) -> None:
    done = cli("service", "package", colours, "--out", tmp_path / "out", *options, status=1)
    assert told in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()
