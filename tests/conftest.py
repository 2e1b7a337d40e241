"""Fixtures: real pictures, drawn pictures, a workspace and the command line."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.postgres import Postgres, programs, running
from tests.support import FAILED, Cli, Once, Service, draw_shapes

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

NOBODY = 65534

# A shell that runs the tests in the background lets them, and what they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """The folder of one of the sets of real pictures that lie beside the project."""

    def find(name: str) -> Path:
        folder = SHARED / name
        if not folder.is_dir():
            pytest.skip(f"needs the pictures of {name} beside the project")
        return folder

    return find


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Notes which tests failed, for fixtures that then show more."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Copies of a folder that takes long to make: one process of the tests makes it, and who asks gets a copy.

    Paths in it lead to the one that was made first, as that of the pictures of a dataset does: nobody writes there.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def copy(make: Callable[[Path], None]) -> Path:
        name = f"once-{make.__module__}-{make.__name__}"
        made, done = root / name, root / f"{name}-done"
        with (root / f"{name}-lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(made, ignore_errors=True)  # half made, by a process that failed
                made.mkdir()
                make(made)
                done.touch()
        return shutil.copytree(made, tmp_path_factory.mktemp(make.__name__), dirs_exist_ok=True)

    return copy


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """An empty folder and, for the length of the test, an account that may not read everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        account = os.geteuid()
        if account == 0:
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(account)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a real file system of so many MB; it is gone after the test, whatever still runs there."""
    disk = tmp_path / "disk"

    def mount(megabytes: int) -> Path:
        disk.mkdir()
        asked = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(disk)]
        if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(asked, check=False).returncode:
            pytest.skip("needs the right to mount a small file system")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder for a workspace that is not there yet."""
    return tmp_path / "workspace"


@pytest.fixture
def cli(workspace: Path) -> Cli:
    """The command line, on that workspace."""
    return Cli(workspace)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 120 drawn pictures in three classes."""
    return draw_shapes(tmp_path_factory.mktemp("pictures") / "shapes")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server."""
    if programs() is None:
        pytest.skip("needs PostgreSQL: apt install postgresql")
    with running() as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The address of an empty database on it."""
    return postgres.create(f"d{secrets.token_hex(4)}")


@pytest.fixture
def start() -> Iterator[Callable[..., Service]]:
    """Starts services; none is left after the test."""
    started: list[Service] = []

    def begin(*options: Any, **variables: str) -> Service:
        started.append(Service(*options, **variables))
        return started[-1]

    yield begin
    for service in started:
        service.client.close()
        if service.process.poll() is None:
            service.process.kill()
        if service.process.stderr and not service.process.stderr.closed:
            service.process.communicate()
