"""Programs and commands that work on a server: they ride over its restart, heed Ctrl-C, and prove who asks."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support import TINY, Done, Server, certificate, command, draw_shapes, environment

import vizsla
from vizsla.api import accounts, datasets, jobs, runs
from vizsla.errors import Forbidden, NotSignedIn, Unavailable
from vizsla.events import Event
from vizsla.store.workspace import Workspace

pytestmark = pytest.mark.slow

WAIT_S = 120
LONG = TINY.model_copy(update={"epochs": 1000})


def _cli(url: str, home: Path, *args: object, given: str = "", status: int = 0) -> Done:
    done = subprocess.run(
        command(*args, "--server", url), env=_environment(home), input=given, capture_output=True, text=True
    )
    assert done.returncode == status, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return Done(done.returncode, done.stdout, done.stderr)


def _environment(home: Path) -> dict[str, str]:
    return environment(home / "nothing") | {"XDG_CONFIG_HOME": str(home)}


def _until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_who_waits_rides_over_a_restart_of_the_server(ws: Workspace) -> None:
    servers = [Server(ws.root)]
    port = int(servers[0].url.split(":")[-1].partition("/")[0])
    told: list[Event] = []

    def restart(event: Event) -> None:
        told.append(event)
        if event["event"] == "epoch" and len(servers) == 1:
            assert servers[0].stop(signal.SIGKILL) == -signal.SIGKILL
            servers.append(Server(ws.root, port=port))

    with vizsla.connect(servers[0].url) as server:
        spec = TINY.model_copy(update={"epochs": 200})
        status = runs.start(server, "shapes", spec, name="restarted", on_event=restart)
        assert status == runs.get(ws, "restarted")
        assert status.progress.state == "done"
        assert len(servers) == 2
        # Everything was told, and nothing twice.
        assert [event["epoch"] for event in told if event["event"] == "epoch"] == list(range(1, 201))
        assert servers[1].stop() == 0


def test_what_fails_to_be_shown_stops_what_was_started(ws: Workspace) -> None:
    server = Server(ws.root)

    class Broken(Exception):
        pass

    def broken(event: Event) -> None:
        if event["event"] == "step":
            raise Broken

    with vizsla.connect(server.url) as there, pytest.raises(Broken):
        runs.start(there, "shapes", LONG, name="unseen", on_event=broken)
    _until(lambda: not jobs.get(ws, "unseen").job.live)
    assert jobs.get(ws, "unseen").job.state == "stopped"
    assert server.stop() == 0


def test_ctrl_c_stops_what_runs_on_the_server_and_a_second_one_kills_it(ws: Workspace, tmp_path: Path) -> None:
    server = Server(ws.root)
    settings = ("--net", "lenet", "--tune", "scratch", "--epochs", 1000, "--batch-size", 32)
    for words, presses, states in (
        (("train", "shapes", *settings, "--name", "pressed"), 1, {"stopped"}),
        # Killed, unless it was faster to stop well.
        (("run", "resume", "pressed"), 2, {"lost", "stopped"}),
    ):
        process = subprocess.Popen(
            command(*words, "--json", "--server", server.url),
            env=_environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        before = len(runs.events(ws, "pressed").events) if presses == 2 else 0
        _until(lambda: ws.store.jobs.live() and ws.is_finished("run", ws.store.jobs.live()[0].thing))
        _until(lambda before=before: len(runs.events(ws, "pressed").events) > before + 2)
        process.send_signal(signal.SIGINT)
        if presses == 2:
            _until(lambda: jobs.get(ws, "pressed").job.stop_asked)
            process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=WAIT_S)
        assert process.returncode == 130
        assert jobs.get(ws, "pressed").job.state == "stopped"
        if presses == 1:
            assert json.loads(out)["progress"]["state"] == "stopped"
        assert runs.get(ws, "pressed").progress.state in states
    assert not ws.store.jobs.live()
    assert server.stop() == 0


def test_work_is_ended_at_once(ws: Workspace) -> None:
    job = runs.submit(ws, "shapes", LONG.model_copy(update={"checkpoint_every": 0}), name="ended")
    jobs.list_all(ws)
    _until(lambda: ws.is_finished("run", job.thing))  # a job runs before what it asks for is accepted
    worker = runs.get(ws, "ended").progress.worker
    assert worker is not None
    jobs.stop(ws, "ended", at_once=True)
    _until(lambda: jobs.get(ws, job.id).job.state == "stopped")
    assert not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2]


def test_commands_prove_who_asks_by_a_token_that_is_kept(tmp_path: Path) -> None:
    """On a server with TLS and accounts, in a workspace of its own."""
    with vizsla.open(tmp_path / "workspace") as own:
        accounts.create(own, "ada", "correct horse battery")
        accounts.create(own, "vic", "correct horse battery", role="viewer")
        secret, credential = accounts.create_token(own, "ada", "tests")
        viewing, _ = accounts.create_token(own, "vic", "tests")
        cert, key = certificate(tmp_path)
        server = Server(own.root, "--tls-cert", cert, "--tls-key", key, verify=False)
        try:
            _prove(server.url, tmp_path, cert, (secret, viewing), lambda: accounts.revoke(own, "ada", credential.id))
        finally:
            server.stop()


def _prove(url: str, home: Path, cert: Path, secrets: tuple[str, str], revoke: Callable[[], None]) -> None:
    secret, viewing = secrets
    base = url.removesuffix("/api/v1")
    with vizsla.connect(url, secret) as server, pytest.raises(Unavailable, match="not trusted") as refused:
        runs.list_all(server)
    assert "SSL_CERT_FILE" in refused.value.remedy
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(cert))
        with vizsla.connect(url) as server, pytest.raises(NotSignedIn, match="who asks"):
            runs.list_all(server)
        with vizsla.connect(url, viewing) as server:
            assert runs.list_all(server) == []
            with pytest.raises(Forbidden, match="role of member"):
                datasets.submit(server, "x", vizsla.DatasetSpec(source=home))
        done = subprocess.run(
            command("login", url, "--json"), env=_environment(home), input="wrong\n", capture_output=True, text=True
        )
        assert json.loads(done.stdout)["error"]["kind"] == "not-signed-in"
        kept = home / "vizsla" / "tokens.json"
        assert not kept.exists()
        done = subprocess.run(
            command("login", url), env=_environment(home), input=secret + "\n", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert secret not in done.stdout + done.stderr
        assert kept.stat().st_mode & 0o777 == 0o600
        assert json.loads(kept.read_text())["tokens"] == {base: secret}
        assert _cli(url, home, "run", "list", "--json").json == []
        kept.chmod(0o644)
        assert "Others can read the tokens" in _cli(base, home, "run", "list", status=1).err
        kept.chmod(0o600)
        revoke()
        assert _cli(url, home, "run", "list", "--json", status=1).json["error"]["kind"] == "not-signed-in"
    for status in (0, 1):
        done = subprocess.run(command("logout", url), env=_environment(home), capture_output=True, text=True)
        assert done.returncode == status


def test_the_page_on_clients_works(tmp_path: Path) -> None:
    """Every command and every piece of Python on it, in order, on a server with another port."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "client.md").read_text()
    draw_shapes(tmp_path / "photos" / "dogs", num=10)
    server = Server(tmp_path / "workspace", "--allow", tmp_path / "photos")
    script = ["set -eu", f'vizsla() {{ "{sys.executable}" -m vizsla "$@"; }}']
    for kind, text in re.findall(r"```(bash|python)\n(.*?)```", page, re.DOTALL):
        if "vizsla serve" not in text and "vizsla.example.org" not in text:
            script.append(text if kind == "bash" else f"{sys.executable} - <<'END'\n{text}\nEND")
    commands = "\n".join(script).replace("http://127.0.0.1:5000", server.url)
    assert commands.count("vizsla ") > 5
    try:
        done = subprocess.run(
            ["bash", "-c", commands],
            cwd=tmp_path,
            env=_environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=5 * WAIT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "accuracy" in done.stdout
    finally:
        assert server.stop() == 0
