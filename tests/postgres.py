"""A PostgreSQL server of the tests' own, from the programs that Debian's packages install."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

PASSWORD = "a secret of the tests"
START_S = 60


def programs() -> Path | None:
    """The folder of the newest server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    beside = shutil.which("initdb")
    return found[-1].parent if found else Path(beside).parent if beside else None


class Postgres:
    """A server on a free port of the loopback address, with a password; it refuses to run as root, so it does not."""

    def __init__(self, folder: Path) -> None:
        """Make its files in a new folder."""
        bin = programs()
        assert bin is not None
        self._bin = bin
        self._folder = folder
        self._account = self._other_account()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        if "user" in self._account:
            os.chown(folder, self._account["user"], self._account["group"])
        secret = folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        # A language whose order is not that of bytes would show where the difference matters.
        made = self._run(
            *("initdb", f"--pgdata={folder / 'data'}", "--username=tests", f"--pwfile={secret}", "--no-sync"),
            *(
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale-provider=icu",
                "--icu-locale=en",
                "--locale=C.UTF-8",
            ),
        )
        assert made.returncode == 0, made.stderr
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    @staticmethod
    def _other_account() -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                found = pwd.getpwnam(name)
                return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
        return {}

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._bin / program), *arguments],
            **self._account,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",  # what a killed process has written is not lost; what the tests do not do is cut the power
        }
        command = [str(self._bin / "postgres"), "-D", str(self._folder / "data")]
        command += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, **self._account, cwd="/", stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while self._run("pg_isready", "--host=127.0.0.1", f"--port={self.port}").returncode:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Kill all its processes at once."""
        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        parent.suspend()  # it starts no others meanwhile
        family = [parent, *parent.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        psutil.wait_procs(family[1:], timeout=START_S)

    def stop(self) -> None:
        """Let it end as it should."""
        if self.alive:
            assert self._process is not None
            self._process.terminate()
            try:
                self._process.wait(5)  # it waits for those who are connected
            except subprocess.TimeoutExpired:
                self.kill()

    def url(self, database: str) -> str:
        """The address of a database, with the password."""
        return f"postgresql://tests:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.port}/{database}"

    def create(self, name: str, options: str = "") -> str:
        """Make an empty database; returns its address."""
        self.execute("postgres", f'CREATE DATABASE "{name}" {options}')
        return self.url(name)

    def execute(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        """Carry out one statement; returns its rows."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return list(cursor.fetchall()) if cursor.description else []

    def restore(self, backup: Path, database: str) -> str:
        """Fill a new database from a backup; returns its address."""
        url = self.create(database)
        done = subprocess.run(
            [str(self._bin / "pg_restore"), "--exit-on-error", f"--dbname={url}", str(backup)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return url


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """A server for a while, in a folder that its account can reach."""
    with tempfile.TemporaryDirectory(prefix="vizsla-postgres-") as name:
        Path(name).chmod(0o755)
        server = Postgres(Path(name) / "server")
        server.start()
        try:
            yield server
        finally:
            server.stop()
