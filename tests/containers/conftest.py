"""An engine that builds and runs containers: the one that is there, or else a throw-away one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

LAB = Path(__file__).resolve().parents[3] / "shared" / "tools" / "container-lab.sh"
LAB_S = 400
HARDENED = (
    "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
)  # fmt: skip


@dataclass(frozen=True)
class Engine:
    """Docker's commands, and the linters where there are any."""

    docker: str
    compose: tuple[str, ...]
    env: dict[str, str]
    hadolint: str | None = None
    kubernetes_validate: str | None = None
    base: str = "python:3.12-slim"
    started: list[str] = field(default_factory=list)

    def __call__(self, *args: object, check: bool = True, **options: Any) -> str:
        """What `docker ARGS` says."""
        return self.run((self.docker, *args), check=check, **options)

    def run(self, command: tuple[object, ...], *, check: bool = True, **options: Any) -> str:
        """What a command says that asks this engine."""
        env = self.env | options.pop("env", {})
        done = subprocess.run(
            [str(word) for word in command], env=env, capture_output=True, text=True, check=False, **options
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def inspect(self, thing: str, what: str) -> Any:
        """A part of what the engine knows of a container, an image or a service."""
        return json.loads(self("inspect", "--format", f"{{{{json {what}}}}}", thing))


class Container:
    """A container of a service, as hardened as its documents say."""

    def __init__(self, engine: Engine, image: str, *options: str, command: tuple[str, ...] = ()) -> None:
        self.engine = engine
        self.began = time.monotonic()
        asked = ("run", "--detach", *HARDENED, "--publish", "127.0.0.1::8000", *options, image, *command)
        self.id = engine(*asked)
        engine.started.append(self.id)
        address = engine("port", self.id, "8000").splitlines()[0]
        self.host, self.port = address.rsplit(":", 1)[0], int(address.rsplit(":", 1)[1])
        self.url = f"http://{address}"

    def ready(self, patience_s: float = 60) -> float:
        """Wait until it is ready; returns the seconds since it was asked for."""
        wait_until(lambda: is_ready(self.url), patience_s, lambda: self.engine("logs", self.id))
        return time.monotonic() - self.began

    def python(self, code: str) -> str:
        """What Python says in it."""
        return self.engine("exec", self.id, "python3", "-c", code)

    def exit_code(self) -> int:
        """How it ended, once it has."""
        return int(self.engine("wait", self.id, timeout=90))


def is_ready(url: str) -> bool:
    """Whether a service says that it takes requests."""
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/v2/health/ready", timeout=2).status_code == 200
    return False


def wait_until(is_so: Callable[[], bool], patience_s: float, told: Callable[[], object] = lambda: "") -> None:
    """Wait until something is so; `told` says what else could be known."""
    deadline = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine that this machine has, or a throw-away one that ends with the tests."""
    docker = os.environ.get("DOCKER") or shutil.which("docker")
    if docker and subprocess.run([docker, "info"], capture_output=True, check=False, timeout=60).returncode == 0:
        found = _of(docker, dict(os.environ))
        yield found
        _clear(found)
        return
    if not LAB.is_file() or os.geteuid() != 0 or not Path("/etc/debian_version").is_file():
        pytest.skip("needs a Docker engine")
    folder = tmp_path_factory.mktemp("lab")
    told = folder / "environment"
    # It ends when its standard input does: also when the tests are killed.
    asked = [LAB, "bash", "-c", 'env -0 >"$0.part" && mv "$0.part" "$0"; exec cat', told]
    with (folder / "log").open("w") as log:
        lab = subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until(lambda: told.exists() or lab.poll() is not None, LAB_S)
            if not told.exists():
                pytest.skip(f"the throw-away engine did not start: {(folder / 'log').read_text()[-300:]}")
            env = dict(line.split("=", 1) for line in told.read_text().split("\0") if line)
            found = _of(env["DOCKER"], env)
            yield found
            _clear(found)
        finally:
            assert lab.stdin is not None
            lab.stdin.close()
            lab.wait(120)


def _of(docker: str, env: dict[str, str]) -> Engine:
    """An engine with the tools that an environment names, or that are on the path."""
    return Engine(
        docker,
        (env["COMPOSE"],) if "COMPOSE" in env else (docker, "compose"),
        env | {"DOCKER_BUILDKIT": "1"},
        env.get("HADOLINT") or shutil.which("hadolint"),
        env.get("KUBERNETES_VALIDATE") or shutil.which("kubernetes-validate"),
        env.get("BASE", "python:3.12-slim"),
    )


def _clear(engine: Engine) -> None:
    for container in engine.started:
        engine("rm", "--force", "--volumes", container, check=False)


@pytest.fixture
def contain(engine: Engine) -> Iterator[Callable[..., Container]]:
    """Starts containers of services; none is left after the test."""
    before = len(engine.started)

    def begin(image: str, *options: str, **more: Any) -> Container:
        return Container(engine, image, *options, **more)

    yield begin
    for container in engine.started[before:]:
        engine("rm", "--force", "--volumes", container, check=False)
    del engine.started[before:]
