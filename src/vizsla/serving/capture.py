"""Pictures that are kept for people to label: those of which a model is unsure, and a sample, for a while.

    FOLDER/MODEL/pictures/CLASS/DIGEST.jpg     as it came, under the class that it was taken for
    FOLDER/MODEL/said/CLASS/DIGEST.jpg.json    when, by which version, and what was said of it

`pictures` has a sub-folder a class, as datasets are made of: who labels moves what lies in the wrong one. What was
moved is not deleted any more.
"""

from __future__ import annotations

import contextlib
import hashlib
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
from vizsla.images.decode import ending
from vizsla.models.predictor import Score
from vizsla.serving.spec import CaptureSpec

PICTURES, SAID = "pictures", "said"
MAX_PENDING_BYTES = 64_000_000
SWEEP_S, LEFT_S, COMPLAIN_S = 3600.0, 3600.0, 600.0
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
        self._complained = -COMPLAIN_S
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)
        self._thread.start()

    def why(self, probability: float) -> Why | None:
        """Why a picture is to be kept whose best class has this probability; None: it is not."""
        if probability < self._spec.below:
            return "unsure"
        return "sample" if random.random() < self._spec.sample else None

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
        """Keep what waits, and end."""
        self._waiting.put(None)
        self._thread.join(10.0)

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
            sweep(self._folder, self._spec, time.time())
        except OSError as error:
            self._complain(f"What is kept for labelling could not be tidied: {error}")

    def _complain(self, what: str) -> None:
        """Say it in the log, but not for every picture."""
        if time.monotonic() - self._complained >= COMPLAIN_S:
            self._complained = time.monotonic()
            log.warning("%s", " ".join(what.split()))


class Kept(NamedTuple):
    """A picture that was kept, where it was put."""

    path: Path
    said: Path
    label: str
    """the folder, named after the class that it was taken for"""
    at: float
    num_bytes: int


def kept(folder: Path) -> Iterator[Kept]:
    """The pictures that lie where they were put."""
    for said in folder.glob(f"*/{SAID}/*/*.json"):
        label = said.parent.name
        path = said.parents[2] / PICTURES / label / said.stem
        try:
            at, num_bytes = said.stat().st_mtime, path.stat().st_size
        except FileNotFoundError:  # moved, or deleted meanwhile
            continue
        yield Kept(path, said, label, at, num_bytes)


def sweep(folder: Path, spec: CaptureSpec, now: float) -> None:
    """Delete what has been kept for too long, and of the rest the oldest where it is too much.

    Args:
        now: seconds since 1970.
    """
    every = sorted(kept(folder), key=lambda one: one.at)
    total, most = sum(one.num_bytes for one in every), spec.max_mb * 1e6
    most = most if total <= most else most * LEFT_SHARE
    for one in every:
        if total <= most and now - one.at <= spec.max_days * DAY_S:
            break
        one.path.unlink(missing_ok=True)
        one.said.unlink(missing_ok=True)
        total -= one.num_bytes
    for path in folder.glob(f"*/{PICTURES}/*/.*.tmp"):  # of a process that was killed
        if now - path.stat().st_mtime > LEFT_S:
            path.unlink(missing_ok=True)


def pictures(folder: Path) -> Iterator[Path]:
    """The pictures that are there, by model and class, wherever people have moved them."""
    for place in sorted(folder.glob(f"*/{PICTURES}/*")):
        if place.is_dir() and not place.is_symlink():
            for path in sorted(place.iterdir()):
                if not path.name.startswith(".") and path.is_file() and not path.is_symlink():
                    yield path


def captured(folder: Path, spec: CaptureSpec) -> Captured:
    """What has been kept so far.

    Args:
        folder: that of the service's pictures, which need not be there.
    """
    counted: dict[tuple[str, str], int] = {}
    num_bytes = 0
    for path in pictures(folder):
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
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
    best = taken.scores[0]
    place = folder / taken.model / PICTURES / folder_of(best.label) / name
    said = folder / taken.model / SAID / folder_of(best.label) / f"{name}.json"
    if said.exists():
        return 0
    place.parent.mkdir(parents=True, exist_ok=True)
    said.parent.mkdir(parents=True, exist_ok=True)
    files.require_space(folder, len(taken.data))
    # First what says that it is there: a picture without it would stay for ever.
    files.write_json(
        said,
        {
            "format": "vizsla.captured/1",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": taken.model,
            "version": taken.version,
            "why": taken.why,
            "scores": [one._asdict() for one in taken.scores[:TOP]],
        },
    )
    with files.atomic(place) as temporary:
        temporary.write_bytes(taken.data)
    return len(taken.data)


def folder_of(label: str) -> str:
    """The name of the folder of a class: its own, if folders may have it; else one like it, told apart by a digest."""
    plain = "".join("_" if one in '/\\:*?"<>|' or not one.isprintable() else one for one in label)
    cut = plain.encode()[:MAX_NAME_BYTES].decode("utf-8", "ignore").lstrip(".").rstrip(". ")
    if label and cut == label:
        return cut
    digest = hashlib.sha256(label.encode()).hexdigest()[:8]
    return f"{cut or 'class'}-{digest}"
