"""What this machine has: processor, memory, limits, and the disk under a folder, with its speed. Light: no torch."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

CHUNK_BYTES = 4 * 2**20
WRITTEN_BYTES = 256 * 2**20
OWN_GROUPS, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


class System(NamedTuple):
    """Processor and memory: those of the machine, or what a container or a batch system gives of them."""

    name: str
    """operating system, as in "Linux 6.1, x86_64" """
    python: str
    cpu: str
    cores: float
    memory_bytes: int
    free_memory_bytes: int
    open_files: int
    """how many files this process may have open"""


class Disk(NamedTuple):
    """The disk under a folder. Rates are None where they were not measured; `error` says why nothing can be written."""

    folder: str
    filesystem: str
    free_bytes: int
    write_mb_s: float | None = None
    read_mb_s: float | None = None
    error: str = ""


def system() -> System:
    """Look at the machine."""
    memory = psutil.virtual_memory()
    limits = list(_memory_limits())
    return System(
        name=f"{platform.system()} {platform.release()}, {platform.machine()}",
        python=platform.python_version(),
        cpu=_cpu(),
        cores=cores(),
        memory_bytes=min([memory.total, *(limit for limit, _ in limits)]),
        free_memory_bytes=max(0, min([memory.available, *(free for _, free in limits)])),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def cores() -> float:
    """Cores that this process may use, such as 1.5 in a container that was given so much of the machine."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([float(mine), *_quotas()])


def place(folder: Path) -> Disk:
    """The disk under a folder; its rates are not measured."""
    return Disk(str(folder), _filesystem(folder), psutil.disk_usage(str(folder)).free)


def disk(folder: Path) -> Disk:
    """Write a file of 256 MB into a folder, read it again past the memory of the system, and remove it."""
    found = place(folder)
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            if found.free_bytes < 4 * WRITTEN_BYTES:
                return found
            chunk = os.urandom(CHUNK_BYTES)  # a disk that compresses has nothing to gain
            began = time.perf_counter()
            for _ in range(WRITTEN_BYTES // CHUNK_BYTES):
                file.write(chunk)
            os.fsync(file.fileno())
            write_s = time.perf_counter() - began
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            began = time.perf_counter()
            while file.read(CHUNK_BYTES):
                pass
            rates = (round(WRITTEN_BYTES / 1e6 / seconds, 1) for seconds in (write_s, time.perf_counter() - began))
    except OSError as error:
        return found._replace(error=error.strerror or str(error))
    return found._replace(write_mb_s=next(rates), read_mb_s=next(rates))


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _groups(controller: str) -> Iterator[Path]:
    """The control groups of version 1 and 2 that this process is in, from its own up to the root."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, names, place = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        for base in (GROUPS / names, GROUPS / controller) if names else (GROUPS, GROUPS / "unified"):
            own = base / place.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(base))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # "max"
        return None


def _memory_limits() -> Iterator[tuple[int, int]]:
    """Pairs of a group's limit and what is free below it. Pages of files that can be given up count as free."""
    for folder in _groups("memory"):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes") or 0
        if limit is None:
            continue
        cached = 0
        with contextlib.suppress(OSError, ValueError):
            lines = (line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
            counts = {name: int(value) for name, value in lines}
            cached = sum(counts.get(f"total_{name}", counts.get(name, 0)) for name in ("inactive_file", "active_file"))
        yield limit, limit - max(0, used - cached)


def _quotas() -> Iterator[float]:
    """How many cores a group's share of time amounts to."""
    for folder in _groups("cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
            yield round(int(quota) / int(period), 1)
        old, each = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if old and each and old > 0:
            yield round(old / each, 1)


def _filesystem(folder: Path) -> str:
    """The kind of file system, such as ext4 or nfs4."""
    resolved = folder.resolve()
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    found = next((mounts[parent] for parent in (resolved, *resolved.parents) if parent in mounts), "")
    return found or "unknown"
