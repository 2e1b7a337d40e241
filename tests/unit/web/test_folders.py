"""Names of folders for who types one: those below the allowed folders, and nothing of any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import vizsla
from vizsla import files
from vizsla.web.app import create_app


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Callable[[object], list[str]]]:
    pictures = tmp_path / "pictures"
    for name in ("dogs/beagle", "Dolls", "cats", ".hidden", "ärger <b>"):
        (pictures / name).mkdir(parents=True)
    (pictures / "do.txt").touch()
    (tmp_path / "secret" / "plans").mkdir(parents=True)
    (pictures / "away").symlink_to(tmp_path / "secret")
    (pictures / "near").symlink_to(pictures / "dogs")
    with vizsla.open(tmp_path / "workspace") as ws, files.Lock(ws.root / "queue") as lock:
        client = TestClient(create_app(ws, lock, allowed=[pictures]), base_url="http://127.0.0.1")

        def asked(path: object) -> list[str]:
            answer = client.get("/api/v1/folders", params={"path": str(path)}).raise_for_status().json()
            assert answer["roots"] == [str(pictures)]
            return answer["folders"]

        yield asked


def test_folders_as_they_are_typed(ask: Callable[[object], list[str]], tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    assert ask("") == ask(str(root)[:5]) == ask(root) == [str(root)]
    everything = ["Dolls", "cats", "dogs", "near", "ärger <b>"]
    assert ask(f"{root}/") == [f"{root}/{name}" for name in everything]
    assert ask(f"{root}/do") == [f"{root}/Dolls", f"{root}/dogs"], "whatever the case; no files"
    assert ask(f"{root}/dogs/") == [f"{root}/dogs/beagle"]
    assert ask(f"{root}/near/") == [f"{root}/near/beagle"]


def test_nothing_is_told_of_what_lies_elsewhere(ask: Callable[[object], list[str]], tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    for path in (
        f"{tmp_path}/secret/", f"{tmp_path}/s", f"{root}/away/", f"{root}/../secret/", f"{root}/dogs/../../",
        "/etc/", "etc/", "//", "../", f"{root}/nowhere/", f"{root}/do.txt/", "\0/", f"{root}/\0",
    ):  # fmt: skip
        assert ask(path) == [], path
