"""What a piece of work uses of the machine: a line of `usage.jsonl` a second, and fewer the longer it takes."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vizsla import events
from vizsla.machine import gpus
from vizsla.machine.devices import visible
from vizsla.machine.gpus import Found

FILE = "usage.jsonl"
EVERY_S = 1.0
# When there are so many, every second one goes, and from then on they come half as often.
MAX_SAMPLES = 720


class GpuSample(BaseModel):
    """One GPU at one moment; what is not told is null."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="such as cuda:0")
    use: float | None = Field(description="0 to 1: share of the last moments in which it computed, for whomever")
    memory_bytes: int | None = Field(description="in use, by whomever")
    temperature_c: int | None
    power_w: float | None


class Sample(BaseModel):
    """What the processes of a piece of work used since the sample before, and how the machine stood."""

    model_config = ConfigDict(frozen=True)

    at: str
    every_s: float = Field(description="seconds between samples, at that time")
    cores: float = Field(description="of the processor, in use by the work")
    memory_bytes: int = Field(description="resident, of all its processes")
    read_bytes_s: float | None = Field(description="from the disk, a second; null where the system does not tell")
    written_bytes_s: float | None
    free_disk_bytes: int
    machine_use: float = Field(description="0 to 1: of all cores, in use by whomever")
    machine_memory_bytes: int = Field(description="in use by whomever")
    gpus: tuple[GpuSample, ...] = ()


class _Totals(BaseModel):
    """What processes used since each of them began."""

    cpu_s: float = 0.0
    read_bytes: int | None = 0
    written_bytes: int | None = 0
    memory_bytes: int = 0


class Sampler:
    """Measures this process with all those that it has started, and the GPUs that it was given."""

    def __init__(
        self, folder: Path, devices: Sequence[str], find: Callable[[], Found], environment: Mapping[str, str]
    ) -> None:
        self._folder = folder
        self._gpus = [int(name.partition(":")[2]) for name in devices if name.startswith("cuda:")]
        self._find = find
        self._environment = environment
        self._process = psutil.Process()
        self._before = self._each()
        self._at = time.monotonic()
        psutil.cpu_percent()  # the first reading only starts the clock

    def read(self, every_s: float) -> Sample:
        """What was used since the last reading, or since the beginning."""
        now, each = time.monotonic(), self._each()
        used = _sum([_since(totals, self._before.get(pid, _Totals())) for pid, totals in each.items()])
        elapsed_s = max(now - self._at, 1e-3)
        self._before, self._at = each, now
        memory = psutil.virtual_memory()
        return Sample(
            at=events.now(),
            every_s=every_s,
            cores=round(used.cpu_s / elapsed_s, 2),
            memory_bytes=used.memory_bytes,
            read_bytes_s=None if used.read_bytes is None else round(used.read_bytes / elapsed_s),
            written_bytes_s=None if used.written_bytes is None else round(used.written_bytes / elapsed_s),
            free_disk_bytes=psutil.disk_usage(str(self._folder)).free,
            machine_use=round(psutil.cpu_percent() / 100, 3),
            machine_memory_bytes=memory.total - memory.available,
            gpus=tuple(self._cards()),
        )

    def _each(self) -> dict[int, _Totals]:
        found = {}
        for process in (self._process, *self._process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has ended
                found[process.pid] = _totals(process)
        return found

    def _cards(self) -> Iterator[GpuSample]:
        if not self._gpus:
            return
        there = visible(self._find().gpus, self._environment)
        for number in self._gpus:
            if number < len(there):
                gpu = there[number]
                yield GpuSample(
                    name=f"cuda:{number}",
                    use=gpu.use,
                    memory_bytes=gpu.used_bytes,
                    temperature_c=gpu.temperature_c,
                    power_w=gpu.power_w,
                )


def _totals(process: psutil.Process) -> _Totals:
    with process.oneshot():
        times = process.cpu_times()
        totals = _Totals(cpu_s=times.user + times.system, memory_bytes=process.memory_info().rss)
        try:
            io = process.io_counters()
        except (psutil.AccessDenied, AttributeError, OSError):
            return totals.model_copy(update={"read_bytes": None, "written_bytes": None})
    return totals.model_copy(update={"read_bytes": io.read_bytes, "written_bytes": io.write_bytes})


def _since(now: _Totals, before: _Totals) -> _Totals:
    def less(one: int | None, other: int | None) -> int | None:
        return None if one is None or other is None else max(0, one - other)

    return _Totals(
        cpu_s=max(0.0, now.cpu_s - before.cpu_s),
        read_bytes=less(now.read_bytes, before.read_bytes),
        written_bytes=less(now.written_bytes, before.written_bytes),
        memory_bytes=now.memory_bytes,
    )


def _sum(parts: Sequence[_Totals]) -> _Totals:
    def total(values: list[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None

    return _Totals(
        cpu_s=sum(part.cpu_s for part in parts),
        read_bytes=total([part.read_bytes for part in parts]),
        written_bytes=total([part.written_bytes for part in parts]),
        memory_bytes=sum(part.memory_bytes for part in parts),
    )


@contextlib.contextmanager
def watching(folder: Path, devices: Sequence[str], *, find: Callable[[], Found] = gpus.find) -> Iterator[None]:
    """Sample this process and its children into `usage.jsonl` of a folder, by a thread, until the work within ends.

    A sample that cannot be taken or written, as on a full disk, is left out; the work goes on.

    Args:
        devices: names of those that the work was given, such as cuda:0.
    """
    ended = threading.Event()
    sampler = Sampler(folder, devices, find, os.environ)
    thread = threading.Thread(target=_sample, args=(folder / FILE, sampler, ended), name="usage", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=EVERY_S)  # the driver's library may hang with its card


def _sample(path: Path, sampler: Sampler, ended: threading.Event) -> None:
    kept = read(path)
    every_s = kept[-1].every_s if kept else EVERY_S
    while True:
        is_last = ended.wait(every_s)
        with contextlib.suppress(OSError, psutil.Error):
            kept.append(sampler.read(every_s))
            if len(kept) >= MAX_SAMPLES:
                kept, every_s = kept[1::2], 2 * every_s
                _write(path, kept)
            else:
                with path.open("a", encoding="utf-8") as file:
                    file.write(kept[-1].model_dump_json() + "\n")
        if is_last:
            return


def _write(path: Path, samples: Sequence[Sample]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(sample.model_dump_json() + "\n" for sample in samples), encoding="utf-8")
    temporary.replace(path)  # not worth a wait for the disk


def read(path: Path) -> list[Sample]:
    """The samples of a `usage.jsonl`, oldest first; a line that was cut short is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValidationError, json.JSONDecodeError):
            found.append(Sample.model_validate_json(line))
    return found
