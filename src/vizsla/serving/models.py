"""The models that a service holds: loaded, replaced without a gap, chosen among versions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from vizsla.errors import NotFound, did_you_mean
from vizsla.machine import system
from vizsla.models.card import open_model
from vizsla.models.predictor import Predictor
from vizsla.serving.batcher import Batcher, Watch
from vizsla.serving.spec import Limits, ModelSpec, ServiceSpec

# Of a network that is so quick on a CPU two passes are computed at once: while one waits for the last of its threads,
# which it does after every layer, another one has use for the cores. And more of its pictures than so many do not fit
# into the caches. Larger networks fill cores and caches by themselves.
QUICK_S, PASSES, PICTURES_A_CORE, NUM_TIMED = 0.01, 2, 2, 4


class Served:
    """A version of a model, ready to compute."""

    def __init__(self, name: str, version: str, predictor: Predictor, limits: Limits, watch: Watch) -> None:
        self.name, self.version, self.predictor, self.card = name, version, predictor, predictor.card
        cores = max(1, round(system.cores()))
        self.batcher = Batcher(
            predictor.probabilities,
            max_batch=min(limits.max_batch, PICTURES_A_CORE * cores) if not predictor.spin else limits.max_batch,
            max_wait_s=limits.max_wait_ms / 1000,
            max_queue=limits.max_queue,
            passes=min(PASSES, cores) if not predictor.spin else 1,
            watch=watch,
        )
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Around a request: until its end the model stays."""
        self._in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def retire(self) -> None:
        """Answer what is under way, then let go of the model."""
        await self._idle.wait()
        await self.batcher.close()


class Models:
    """The models of a service by name, each with its versions."""

    def __init__(self, root: Path, watch: Callable[[str, str], Watch]) -> None:
        """Hold none yet.

        Args:
            root: what relative folders lie in.
            watch: is asked for who watches a model's version.
        """
        self._root, self._watch = root, watch
        self._specs: dict[str, ModelSpec] = {}
        self._served: dict[tuple[str, str], Served] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._loading = asyncio.Lock()

    async def load(self, spec: ServiceSpec) -> None:
        """Come to serve what a spec says. Requests under way end with the version that they began with.

        Raises:
            InvalidInput: a model is not whole; then everything stays as it was.
            Unavailable: the device is not to be had.
        """
        async with self._loading:
            wanted = {(model.name, one.version): one for model in spec.models for one in model.versions}
            new: dict[tuple[str, str], Predictor] = {}
            for key, one in wanted.items():  # all of them, before anything is changed
                folder, known = self._root / one.folder, self._served.get(key)
                if known is None or known.card.id != open_model(folder).id:
                    new[key] = await asyncio.to_thread(ready, folder, spec)
            served = {
                key: Served(*key, new[key], spec.limits, self._watch(*key)) if key in new else self._served[key]
                for key in wanted
            }
            gone = [before for before in self._served.values() if before not in served.values()]
            self._served, self._specs = served, {model.name: model for model in spec.models}
            for before in gone:
                task = asyncio.create_task(before.retire())
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)

    def all(self) -> list[Served]:
        """Every version of every model, in the order of the spec."""
        return list(self._served.values())

    def names(self) -> list[str]:
        """The names of the models."""
        return list(self._specs)

    def versions(self, name: str) -> list[Served]:
        """The versions of a model.

        Raises:
            NotFound: there is no such model.
        """
        self.require(name)
        return [one for (model, _), one in self._served.items() if model == name]

    def choose(self, name: str | None = None, version: str | None = None) -> Served:
        """Who answers a request: the version that it names, or one by chance with the shares of the versions.

        Raises:
            NotFound: there is no such model, or version of it.
        """
        name = name or next(iter(self._specs))
        spec = self.require(name)
        if version is None:
            shares = [one.share for one in spec.versions]
            version = random.choices(spec.versions, shares)[0].version
        found = self._served.get((name, version))
        if found is None:
            known = ", ".join(one.version for one in spec.versions)
            raise NotFound(f"The model {name!r} has no version {version[:60]!r}.", remedy=f"There are: {known}.")
        return found

    def require(self, name: str) -> ModelSpec:
        """What was asked for of a model.

        Raises:
            NotFound: there is no such model.
        """
        if name not in self._specs:
            hint = did_you_mean(name[:60], self._specs) or f"There are: {', '.join(list(self._specs)[:20])}."
            raise NotFound(f"There is no model {name[:60]!r} here.", remedy=hint)
        return self._specs[name]

    async def close(self) -> None:
        """Answer what is under way, and end."""
        await asyncio.gather(*(one.retire() for one in self._served.values()), *self._retiring)


def ready(folder: Path, spec: ServiceSpec) -> Predictor:
    """A predictor that has computed already: its first pass takes longer than others."""
    threads = spec.threads or _num_threads()
    predictor = Predictor(folder, threads=threads, device=spec.device)
    if _pass_s(predictor) < QUICK_S and spec.device == "cpu" and not spec.threads:
        predictor = Predictor(folder, threads=threads, spin=False)
        _pass_s(predictor)
    return predictor


def _pass_s(predictor: Predictor) -> float:
    """How long one picture takes: the shortest of some passes, since others may be at work too."""
    how = predictor.card.preprocess
    blank = np.zeros((1, how.height, how.width, how.channels), np.uint8)
    took = []
    for _ in range(NUM_TIMED + 1):  # the first one takes longer
        began = time.perf_counter()
        predictor.probabilities(blank)
        took.append(time.perf_counter() - began)
        if took[-1] > NUM_TIMED * QUICK_S:  # that large networks are not quick is seen at once
            break
    return min(took)


def _num_threads() -> int:
    """One a core, which is 0; but of what a container's quota leaves, which ONNX Runtime does not see."""
    usable = system.cores()
    return 0 if usable >= len(os.sched_getaffinity(0)) else max(1, int(usable))
