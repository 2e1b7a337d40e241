"""What a run is (`run.json`) and how far it has come (from its events). Light: no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vizsla import events, files, records, work
from vizsla.errors import InvalidInput, NotFound
from vizsla.images.preprocess import Preprocess
from vizsla.networks import own
from vizsla.training.spec import TrainingSpec

MEAN_PICTURE = "mean.npy"
ARITHMETIC = Path("cache") / "arithmetic.json"
"""in the workspace: how this machine computes fastest, as it was measured"""

State = Literal["running", "done", "stopped", "failed", "lost"]


class DatasetRef(BaseModel):
    """The dataset a thing was made from."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    fingerprint: str


class WeightsRef(BaseModel):
    """Where pretrained weights came from, and under which licence."""

    model_config = ConfigDict(frozen=True)

    source: str
    licence: str
    sha256: str


class Input(BaseModel):
    """From a stored picture to what the network sees: a cut from the centre, then standardised."""

    model_config = ConfigDict(frozen=True)

    width: int = Field(description="px")
    height: int = Field(description="px")
    mean: tuple[float, ...] = Field(description="per channel, of pixels in 0..1")
    std: tuple[float, ...] = Field(description="per channel, of pixels in 0..1")
    mean_picture: bool = Field(False, description="whether mean.npy of the run is subtracted instead of the mean")


Precision = Literal["fp32", "bf16", "fp16"]


class Arithmetic(BaseModel):
    """How the heavy arithmetic of a run is done, and why so."""

    model_config = ConfigDict(frozen=True)

    precision: Precision
    channels_last: bool = True
    compiled: bool = False
    fused: bool = Field(False, description="one kernel for all parameters in the optimiser")
    reason: str = ""
    measured: dict[str, float] = Field({}, description="pictures a second of each candidate")


class Run(BaseModel):
    """`run.json`: what was asked, and everything that was decided from it before the first step."""

    model_config = ConfigDict(frozen=True)

    format: Literal["vizsla.run/1"] = "vizsla.run/1"
    id: str
    name: str
    created_at: str
    asked: TrainingSpec
    spec: TrainingSpec = Field(description="what was asked, with every default filled in")
    dataset: DatasetRef
    labels: tuple[str, ...]
    preprocess: Preprocess
    input: Input
    weights: WeightsRef | None = Field(description="null when trained from scratch")
    num_parameters: int
    multiply_accumulates: int | None = Field(None, description="for one picture; null: they could not be counted")
    devices: tuple[str, ...] = Field(description="one for each process")
    arithmetic: Arithmetic
    num_train: int
    num_val: int
    num_test: int
    threads: int = Field(description="CPU threads; sums are rounded in another order with another number")
    steps_per_epoch: int
    network_sha256: str | None = Field(None, description="of network.py, the run's copy of a user's own network")
    vizsla_version: str

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        assert self.spec.epochs is not None, "the spec of a run is resolved"
        return self.steps_per_epoch * self.spec.epochs

    @property
    def network(self) -> str:
        """The network's name for people: of a user's own, the name of its file."""
        return own.title(self.spec.net)

    def net(self, run_folder: Path) -> str:
        """What builds the network: its name in the catalogue, or the path of the run's copy of a user's own.

        Raises:
            InvalidInput: the copy is not the one that the run began with.
        """
        if self.network_sha256 is None:
            return self.spec.net
        own.require_unchanged(run_folder / own.COPY, self.network_sha256)
        return str(run_folder / own.COPY)


class Origin(BaseModel):
    """What a run or a model of this workspace says of its weights."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    input: Input
    weights: WeightsRef | None


class OriginWeights(NamedTuple):
    """The weights of a run or a model to begin with."""

    path: Path
    origin: Origin
    source: str
    """in words"""


def named_weights(weights: str) -> tuple[Literal["run", "model"], str] | None:
    """The kind and the id or name in a setting such as `run:first`; None: it is "auto" or the path of a file."""
    kind, colon, reference = weights.partition(":")
    if not colon or not reference or kind not in ("run", "model"):
        return None
    return ("run" if kind == "run" else "model"), reference


def origin_weights(weights: str, workspace: Path) -> OriginWeights | None:
    """The weights that `run:ID` (its best checkpoint) or `model:ID` names; None: another setting.

    Raises:
        NotFound: they are gone, or not there yet.
    """
    named = named_weights(weights)
    if named is None:
        return None
    kind, id = named
    folder = workspace / f"{kind}s" / id
    if kind == "run":
        found = find_checkpoint(folder, "best")
        path, facts, step = found.weights, folder / "run.json", f", step {found.step}"
    else:
        path, facts, step = folder / "model.safetensors", folder / "model.json", ""
    try:
        origin = Origin.model_validate(files.read_json(facts))
    except (ValidationError, InvalidInput):
        raise NotFound(f"There is no {kind} {id!r} any more.", where="weights", remedy="Name another one.") from None
    return OriginWeights(path, origin, f"{kind} {origin.name} ({origin.id}){step}")


class Request(BaseModel):
    """`request.json` of a run: what the worker is asked to train."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["vizsla.run-request/1"] = "vizsla.run-request/1"
    id: str
    name: str
    created_at: str
    dataset_folder: Path
    spec: TrainingSpec
    network_file: Path | None = Field(None, description="the run's copy of a user's own network")
    device: str | None = Field(None, description="where to train, or to go on; null: as the settings say, or as before")
    micro_batch: int = Field(0, description="pictures a pass on one device, where more did not fit; 0: a whole batch")

    @property
    def num_processes(self) -> int:
        """Processes that train together: as many as GPUs are named, or those of the settings."""
        return len(self.named_devices) or self.spec.num_processes

    @property
    def named_devices(self) -> tuple[str, ...]:
        """The GPUs that are named to train on, such as ("cuda:1", "cuda:2"); none where they are left to the worker."""
        _, _, numbers = (self.device or "").partition(":")
        return tuple(f"cuda:{number}" for number in numbers.split(",")) if numbers else ()

    @property
    def net(self) -> str:
        """What builds the network: its name in the catalogue, or the path of the run's copy of a user's own."""
        return str(self.network_file) if self.network_file else self.spec.net


class Progress(NamedTuple):
    """How far a run has come, from the end of its events and from whether its worker lives."""

    state: State
    last_epoch: events.Event | None
    """the `epoch` event of the last epoch that ended"""
    best: events.Event | None
    """the last event that names the best validation so far"""
    error: dict[str, str] | None
    worker: int | None
    """process id of the living worker"""
    elapsed_s: float
    """time spent training, without pauses"""


@dataclass(frozen=True)
class RunStatus:
    """A run and how far it has come."""

    run: Run
    progress: Progress
    folder: Path


def open_run(folder: Path) -> Run:
    """Read `run.json`.

    Raises:
        InvalidInput: the run never got as far as having one, or it is damaged.
    """
    if not (folder / "run.json").exists():
        raise InvalidInput(
            "The run was never started.", where=str(folder), remedy="Start it again with `vizsla train`."
        )
    return records.read(folder / "run.json", Run, remedy="Train again.")


def progress(folder: Path) -> Progress:
    """What has happened so far. A run whose worker is gone without a last word is `lost`, never `running`."""
    # The worker is looked for before its events are read: one that ends in between has then written its last word.
    worker = files.lock_holder(folder)
    last_epoch = best = error = None
    state: State = "running" if worker is not None else "lost"
    elapsed_s = 0.0

    def told(line: bytes) -> bool:
        # Between the last step and the end of the epoch before it lie thousands of others, which say nothing more.
        return elapsed_s > 0 and events.is_step(line)

    for number, event in enumerate(events.surviving_backwards(folder / work.EVENTS, skip=told)):
        if number == 0 and event["event"] in events.FINAL:
            state, error = event["event"], event.get("error")
        elapsed_s = elapsed_s or event.get("elapsed_s", 0.0)
        if event["event"] == "epoch":
            last_epoch = last_epoch or event
        if best is None and event.get("best_step") is not None:
            best = event
        if last_epoch:
            break
    return Progress(state, last_epoch, best, error, worker, elapsed_s)


def epochs(folder: Path) -> list[events.Event]:
    """The `epoch` events of a run, in order, without those that were undone."""
    found = events.surviving_backwards(folder / work.EVENTS, skip=events.is_step)
    return [line for line in found if line["event"] == "epoch"][::-1]


def rewind(folder: Path) -> int:
    """Say in the events that the run goes on from its last checkpoint; returns where in them that is said.

    To be called under the run's lock, before its worker is started again.
    """
    path = folder / work.EVENTS
    step = find_checkpoint(folder, "last").step
    before = next((event for event in events.backwards(path) if event["event"] != "extended"), None)
    after = before["event"] if before and before["event"] in events.FINAL else "lost"
    with events.EventLog(path) as log:
        offset = path.stat().st_size
        log.write("resumed", step=step, after=after)
    return offset


def extend(folder: Path, epochs: int) -> Run:
    """Plan `epochs` more for a run that is not at work; to be called under its lock, before `rewind`."""
    run = open_run(folder)
    try:
        spec = TrainingSpec(**(run.spec.model_dump() | {"epochs": (run.spec.epochs or 0) + epochs}))
    except ValidationError as error:
        raise InvalidInput(
            f"The run cannot be extended by {epochs:,} epochs: {error.errors()[0]['msg']}.",
            where="epochs",
            remedy="Ask for fewer.",
        ) from None
    run = run.model_copy(update={"spec": spec})
    # The event first: should this process be killed between the two, the run is lost, and can go on to its old end.
    with events.EventLog(folder / work.EVENTS) as log:
        log.write("extended", epochs=spec.epochs, total_steps=run.total_steps)
    files.write_json(folder / "run.json", run.model_dump(mode="json"))
    return run


class Checkpoint(NamedTuple):
    """A checkpoint on the disk."""

    folder: Path
    step: int
    best_step: int | None
    """the step of the best checkpoint when this one was written"""

    @property
    def weights(self) -> Path:
        """What is the model of this step: safetensors."""
        return self.folder / "weights.safetensors"

    def num_bytes(self) -> int:
        """What it takes on the disk; nothing when it was removed at this moment."""
        try:
            return sum(path.stat().st_size for path in self.folder.iterdir())
        except FileNotFoundError:
            return 0


def checkpoints(run_folder: Path) -> list[Checkpoint]:
    """All whole checkpoints of a run, oldest first."""
    found = []
    for path in sorted((run_folder / "checkpoints").glob("[0-9]*")):
        try:
            facts = json.loads((path / "checkpoint.json").read_text(encoding="utf-8"))
            best = facts["best"]
            found.append(Checkpoint(path, facts["step"], best[0]["step"] if best else None))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            continue
    return found


def require_checkpoint_name(which: str) -> None:
    """Raise `NotFound` unless this may name a checkpoint: "best", "last" or a step."""
    if which not in ("best", "last") and _step(which) < 0:
        raise NotFound(f"No run has a checkpoint {which[:40]!r}.", remedy="Use best, last, or a step.")


def _step(which: str) -> int:
    """The step that is named; -1: none."""
    return int(which) if which.isascii() and which.isdigit() and len(which) < 16 else -1


def find_checkpoint(run_folder: Path, which: str) -> Checkpoint:
    """The checkpoint `which`: "best", "last" or a step. Without validation pictures the best is the last.

    Raises:
        NotFound: there is none, or not that one.
    """
    found = checkpoints(run_folder)
    if not found:
        raise NotFound(
            "The run has no checkpoint yet.", where=str(run_folder), remedy="Wait for its first epoch, or resume it."
        )
    step = found[-1].step
    if which == "best" and found[-1].best_step is not None:
        step = found[-1].best_step
    elif which not in ("best", "last"):
        step = _step(which)
    for checkpoint in found:
        if checkpoint.step == step:
            return checkpoint
    raise gone(which, found)


def gone(which: str, found: Sequence[Checkpoint]) -> NotFound:
    """What is said of a step of which there is no checkpoint, or none any more."""
    steps = ", ".join(str(checkpoint.step) for checkpoint in found)
    what, remedy = f"The run has no checkpoint {which!r}.", f"Use best, last, or one of these steps: {steps}."
    if found and 0 <= _step(which) < found[-1].step:
        what = f"The run has no checkpoint {which!r} (any more): of earlier steps it keeps the best."
        remedy = f"{remedy} The next run keeps more with --keep-every."
    return NotFound(what, remedy=remedy)


def status(folder: Path) -> RunStatus:
    """The run of a folder, and how far it has come."""
    return RunStatus(open_run(folder), progress(folder), folder)
