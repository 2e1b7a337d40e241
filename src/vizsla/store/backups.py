"""Copies of a database, made before its schema is upgraded."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL

from vizsla import files
from vizsla.errors import Unavailable
from vizsla.store import engines

# Where Debian's packages put the programs of each version.
VERSIONED = "/usr/lib/postgresql"


def of_sqlite(source: Path, target: Path) -> None:
    """Copy a SQLite file, as it is at one moment."""
    target.touch(mode=0o660)  # nobody else on the machine reads the hashes of passwords
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def of_postgresql(url: URL, version: int, target: Path) -> None:
    """Write a PostgreSQL database to a file that pg_restore reads.

    Args:
        version: of the server, the first number of it.

    Raises:
        Unavailable: there is no pg_dump of this version or a newer one, or it failed.
    """
    program = _pg_dump(version)
    if program is None:
        raise Unavailable(
            f"The database is to be upgraded, and there is no pg_dump of version {version} or newer to copy it before.",
            remedy=f"Install it (apt install postgresql-client-{version}), or open the workspace once on a machine "
            "that has it.",
        )
    # The password goes by the environment: arguments are seen by everybody on the machine.
    address = engines.without_password(url).render_as_string()
    secret = {} if url.password is None else {"PGPASSWORD": str(url.password)}
    with files.atomic(target) as temporary:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        done = subprocess.run(
            [program, "--format=custom", "--no-password", f"--file={temporary}", f"--dbname={address}"],
            env=os.environ | secret,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise Unavailable(
                f"pg_dump could not copy the database: {(done.stderr.strip().splitlines() or ['no message'])[-1]}",
                where=str(target),
                remedy="It is as it was before. What pg_dump says has to be mended first.",
            )


def _pg_dump(version: int) -> str | None:
    found = [shutil.which("pg_dump"), *sorted(map(str, Path(VERSIONED).glob("*/bin/pg_dump")))]
    return next((program for program in found if program and _version(program) >= version), None)


def _version(program: str) -> int:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return 0
    number = re.search(r"\s(\d+)", said)
    return int(number[1]) if number else 0
