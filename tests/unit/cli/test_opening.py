"""What is meant where folders and servers are named on the command line and by the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from vizsla.cli import opening, tokens
from vizsla.cli.options import Common
from vizsla.client.server import Server
from vizsla.errors import InvalidInput
from vizsla.store.workspace import Workspace

URL = "http://127.0.0.1:5000"
HERE = Path("/somewhere")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in ("VIZSLA_SERVER", "VIZSLA_WORKSPACE", "VIZSLA_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return monkeypatch


def test_what_is_named_on_the_command_line_goes_before_the_environment(environment: pytest.MonkeyPatch) -> None:
    assert opening.server_of(Common()) is None
    assert opening.folder_of(Common()) == Path("~/vizsla")
    environment.setenv("VIZSLA_WORKSPACE", "/other")
    assert opening.folder_of(Common()) == Path("/other")
    assert opening.folder_of(Common(workspace=HERE)) == HERE
    environment.setenv("VIZSLA_SERVER", URL)
    assert opening.server_of(Common()) == URL
    assert opening.server_of(Common(server="http://x")) == "http://x"
    assert opening.server_of(Common(workspace=HERE)) is None
    with pytest.raises(InvalidInput, match="a folder or on a server"):
        opening.server_of(Common(workspace=HERE, server=URL))


def test_a_folder_or_a_server_is_opened(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Common(workspace=tmp_path / "ws").open() as ws:
        assert isinstance(ws, Workspace)
    with Common(server=URL).open() as ws:
        assert isinstance(ws, Server)
    environment.setenv("VIZSLA_TOKEN", "sesame")
    with pytest.raises(InvalidInput, match="not sent without encryption"):
        Common(server="http://example.org").open()


def test_a_command_that_works_here_only_says_who_named_the_server(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput) as refused:
        Common(server=URL).open_here(why="It is so.")
    assert (refused.value.what, refused.value.where) == ("This command asks no server. It is so.", f"--server: {URL}")
    environment.setenv("VIZSLA_SERVER", URL)
    with pytest.raises(InvalidInput, match="VIZSLA_SERVER"):
        Common().open_here(why="It is so.")


def test_paths_on_a_server_are_whole() -> None:
    opening.require_whole(Common(), Path("photos"))
    opening.require_whole(Common(server=URL), Path("/photos"), None)
    for path in ("photos", "~/photos"):
        with pytest.raises(InvalidInput, match="files of the server"):
            opening.require_whole(Common(server=URL), Path(path))


def test_tokens_are_kept_by_server_for_their_user_only() -> None:
    assert tokens.find(URL) is None
    tokens.keep(URL, "one")
    tokens.keep("https://x", "two")
    assert (tokens.find(URL), tokens.find("https://x")) == ("one", "two")
    assert tokens.path().stat().st_mode & 0o777 == 0o600
    assert tokens.path().parent.stat().st_mode & 0o777 == 0o700
    assert tokens.forget(URL)
    assert not tokens.forget(URL)
    assert tokens.find(URL) is None
    tokens.path().chmod(0o640)
    with pytest.raises(InvalidInput, match="Others can read"):
        tokens.find("https://x")
    tokens.path().chmod(0o600)
    tokens.path().write_text("{")
    with pytest.raises(InvalidInput):
        tokens.find("https://x")


def test_a_clone_in_the_home_folder_is_not_taken_for_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("VIZSLA_WORKSPACE", raising=False)
    assert opening.folder_of(Common()).expanduser() == tmp_path / "vizsla"
    (tmp_path / "vizsla" / "src" / "vizsla").mkdir(parents=True)
    with opening.folder(Common()) as ws:
        assert ws.root == tmp_path / "vizsla-workspace"
