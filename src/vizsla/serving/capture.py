"""Pictures that are kept for people to label: those of which a model is unsure, and a sample, for a while.

    FOLDER/MODEL/pictures/CLASS/DIGEST.jpg     as it came, under the class that it was taken for
    FOLDER/MODEL/said/DIGEST.jpg.json          when, by which version, where it was put, and what was said of it

`pictures` has a sub-folder a class, as datasets are made of: who labels moves what lies in the wrong one. What was
moved is not deleted any more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, Field

from vizsla import files
from vizsla.errors import VizslaError
from vizsla.images.decode import ending
from vizsla.models.predictor import Score
from vizsla.serving.spec import CaptureSpec

PICTURES, SAID = "pictures", "said"
MAX_PENDING_BYTES = 64_000_000
SWEEP_S, LEFT_S, COMPLAIN_S, CLOSE_S = 3600.0, 3600.0, 600.0, 10.0
# What a record takes, and of files what a part of a block is rounded to.
BLOCK_BYTES = 4096
# So much may come between two looks at the size of everything; and so much is left of it when it was too large.
SWEPT_SHARE, LEFT_SHARE = 0.05, 0.9
MAX_NAME_BYTES = 200
DIGITS = 24
DAY_S = 86400.0
TOP = 5

Why = Literal["unsure", "sample"]
Became = Literal["kept", "known", "dropped", "failed"]

log = logging.getLogger("vizsla.service")


class CapturedClass(BaseModel):
    """The kept pictures of one class."""

    model: str = Field(description="as which it is served")
    label: str = Field(description="the folder in which they lie: the class they were taken for, or were moved to")
    num_pictures: int


class Captured(BaseModel):
    """The pictures that a service has kept for people to label."""

    rules: CaptureSpec
    folder: str = Field(description="on the machine of the service; for each model it has `MODEL/pictures/CLASS/FILE`")
    num_pictures: int
    num_bytes: int
    classes: list[CapturedClass]


class Taken(NamedTuple):
    """A picture, and what a model said of it."""

    model: str
    version: str
    data: bytes
    why: Why
    scores: Sequence[Score]
    """the best first"""


class Capture:
    """Keeps pictures in a thread of its own, so that no answer waits for a disk."""

    def __init__(self, spec: CaptureSpec, folder: Path, became: Callable[[str, str, Became], None]) -> None:
        """Begin, with a look at what is too old by now.

        Args:
            folder: made when there is something to keep.
            became: told by model and version what became of a picture that was to be kept, from any thread.
        """
        self._spec, self._folder, self._became = spec, folder, became
        self._waiting: queue.SimpleQueue[Taken | None] = queue.SimpleQueue()
        self._pending, self._lock = 0, threading.Lock()
        self._ends = float("inf")
        self._placed: dict[Path, str] = {}
        self._complained = -COMPLAIN_S
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)
        self._thread.start()

    def why(self, probability: float) -> Why | None:
        """Why a picture is to be kept whose best class has this probability; None: it is not."""
        if random.random() < self._spec.sample:  # of all, the sure and the unsure: or it would be no sample
            return "sample"
        return "unsure" if probability < self._spec.below else None

    def keep(self, taken: Taken) -> None:
        """Have a picture kept, unless too many wait for the disk already."""
        with self._lock:
            dropped = self._pending + len(taken.data) > MAX_PENDING_BYTES
            self._pending += 0 if dropped else len(taken.data)
        if dropped:
            self._became(taken.model, taken.version, "dropped")
        else:
            self._waiting.put(taken)

    def close(self) -> None:
        """Keep what waits, as far as it can be kept soon, and end."""
        self._ends = time.monotonic() + CLOSE_S
        self._waiting.put(None)
        self._thread.join(CLOSE_S + 1)

    def _work(self) -> None:
        since, limit = 0, self._spec.max_mb * 1e6 * SWEPT_SHARE
        self._sweep()
        swept = time.monotonic()
        while True:
            try:
                taken = self._waiting.get(timeout=max(swept + SWEEP_S - time.monotonic(), 0.01))
                if taken is None:
                    return
                since += self._kept(taken)
            except queue.Empty:
                pass
            if since > limit or time.monotonic() >= swept + SWEEP_S:
                self._sweep()
                since, swept = 0, time.monotonic()

    def _kept(self, taken: Taken) -> int:
        """Bytes that were written."""
        became: Became = "failed"
        if time.monotonic() > self._ends:
            self._became(taken.model, taken.version, "dropped")
            return 0
        try:
            num_bytes = _write(self._folder, taken)
            became = "kept" if num_bytes else "known"
            return num_bytes
        except Exception as error:  # whatever it is: the next one may do
            self._complain(f"A picture could not be kept for labelling: {error}")
            return 0
        finally:
            with self._lock:
                self._pending -= len(taken.data)
            self._became(taken.model, taken.version, became)

    def _sweep(self) -> None:
        try:
            sweep(self._folder, self._spec, time.time(), self._placed)
        except Exception as error:  # the next one may do
            self._complain(f"What is kept for labelling could not be tidied: {error}")

    def _complain(self, what: str) -> None:
        """Say it in the log, but not for every picture."""
        if time.monotonic() - self._complained >= COMPLAIN_S:
            self._complained = time.monotonic()
            log.warning("%s", " ".join(what.split()))


class Kept(NamedTuple):
    """What was kept, and where it was put."""

    path: Path
    said: Path
    at: float
    num_bytes: int
    """on the disk; 0: it is not there any more"""


def kept(folder: Path, placed: dict[Path, str] | None = None) -> Iterator[Kept]:
    """Every record of a picture; those that were moved are not there any more.

    Args:
        placed: in which folders they were put, as far as is known already.
    """
    placed = {} if placed is None else placed
    for said in folder.glob(f"*/{SAID}/*.json"):
        try:
            if said not in placed:
                placed[said] = Path(files.read_json(said)["folder"]).name
            path = said.parents[1] / PICTURES / placed[said] / said.stem
            yield Kept(path, said, said.stat().st_mtime, _num_bytes(path))
        except (OSError, ValueError, KeyError, TypeError, VizslaError):  # deleted meanwhile, or changed by people
            continue


def _num_bytes(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512 + BLOCK_BYTES
    except OSError:
        return 0


def sweep(folder: Path, spec: CaptureSpec, now: float, placed: dict[Path, str] | None = None) -> None:
    """Delete what has been kept for too long, and of the rest the oldest where it is too much.

    Args:
        now: seconds since 1970.
        placed: see `kept`.
    """
    placed = {} if placed is None else placed
    every = sorted(kept(folder, placed), key=lambda one: one.at)
    for gone in placed.keys() - {one.said for one in every}:
        del placed[gone]
    total, most = sum(one.num_bytes for one in every), spec.max_mb * 1e6
    most = most if total <= most else most * LEFT_SHARE
    for one in every:
        old = now - one.at > spec.max_days * DAY_S
        if not old and (total <= most or not one.num_bytes):
            continue
        with contextlib.suppress(OSError):  # the next one may be deleted
            one.path.unlink(missing_ok=True)
            one.said.unlink(missing_ok=True)
            total -= one.num_bytes
    for path in folder.glob(f"*/{PICTURES}/*/.*.tmp"):  # of a process that was killed
        with contextlib.suppress(OSError):
            if now - path.stat().st_mtime > LEFT_S:
                path.unlink()


def pictures(folder: Path) -> Iterator[Path]:
    """The pictures that are there, by model and class, wherever people have moved them."""
    for place in sorted(folder.glob(f"*/{PICTURES}/*")):
        with contextlib.suppress(OSError):  # deleted meanwhile, or not for this account
            for path in sorted(place.iterdir()) if not place.is_symlink() else ():
                name = f"{place.name}/{path.name}"
                # Names that are no UTF-8 can be in no answer, and in no zip.
                if name.isprintable() and path.name[0] != "." and path.is_file() and not path.is_symlink():
                    yield path


def captured(folder: Path, spec: CaptureSpec) -> Captured:
    """What has been kept so far.

    Args:
        folder: that of the service's pictures, which need not be there.
    """
    counted: dict[tuple[str, str], int] = {}
    num_bytes = 0
    for path in pictures(folder):
        with contextlib.suppress(OSError):  # deleted meanwhile
            num_bytes += path.stat().st_size
            key = path.parents[2].name, path.parent.name
            counted[key] = counted.get(key, 0) + 1
    classes = [CapturedClass(model=model, label=label, num_pictures=num) for (model, label), num in counted.items()]
    return Captured(
        rules=spec,
        folder=str(folder),
        num_pictures=sum(counted.values()),
        num_bytes=num_bytes,
        classes=classes,
    )


def _write(folder: Path, taken: Taken) -> int:
    """Keep a picture with what was said of it; returns its bytes, 0 where it is there already.

    Raises:
        DiskFull: so much has to stay free.
    """
    name = f"{hashlib.sha256(taken.data).hexdigest()[:DIGITS]}.{ending(taken.data)}"
    label = folder_of(taken.scores[0].label)
    place = folder / taken.model / PICTURES / label / name
    said = folder / taken.model / SAID / f"{name}.json"
    if said.exists() or place.exists():
        return 0
    place.parent.mkdir(parents=True, exist_ok=True)
    said.parent.mkdir(parents=True, exist_ok=True)
    files.require_space(folder, len(taken.data))
    # First what says that it is there: a picture without it would stay for ever. Who writes it keeps the picture.
    told = {
        "format": "vizsla.captured/1",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": taken.model,
        "version": taken.version,
        "why": taken.why,
        "folder": label,
        "scores": [one._asdict() for one in taken.scores[:TOP]],
    }
    try:
        with said.open("x", encoding="utf-8") as file:
            json.dump(told, file, ensure_ascii=False)
    except FileExistsError:
        return 0
    try:
        with files.atomic(place) as temporary:
            temporary.write_bytes(taken.data)
    except BaseException:
        said.unlink(missing_ok=True)
        raise
    return len(taken.data) + BLOCK_BYTES


def folder_of(label: str) -> str:
    """The name of the folder of a class: its own, if folders may have it; else one like it, told apart by a digest."""
    plain = "".join("_" if one in '/\\:*?"<>|' or not one.isprintable() else one for one in label)
    cut = plain.encode()[:MAX_NAME_BYTES].decode("utf-8", "ignore").lstrip(".").rstrip(". ")
    if label and cut == label:
        return cut
    digest = hashlib.sha256(label.encode()).hexdigest()[:8]
    return f"{cut or 'class'}-{digest}"
