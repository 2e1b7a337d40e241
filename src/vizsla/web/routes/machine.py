"""`/api/v1/devices` and `/api/v1/machine`: what can train, who is at work on it, and whether it will do."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from vizsla.api import machine
from vizsla.machine.checks import Verdict
from vizsla.web import auth
from vizsla.web.schema import Answer, Body, Ws

router = APIRouter()


class DeviceAnswer(Answer):
    """A device: what is not told is null."""

    name: str
    title: str
    memory_bytes: int | None
    used_bytes: int | None
    use: float | None
    temperature_c: int | None
    power_w: float | None
    processes: tuple[int, ...]


class HolderAnswer(Answer):
    """A run, or an evaluation of one, that is at work on a device."""

    id: str
    name: str
    worker: int


class HeldAnswer(Answer):
    """A device and who is at work on it."""

    device: DeviceAnswer
    runs: list[HolderAnswer]
    others: list[int]


@router.get("/devices", tags=["devices"])
def list_devices(ws: Ws) -> list[HeldAnswer]:
    """The processor and the GPUs, how busy they are, and who is at work on them."""
    return [HeldAnswer.model_validate(held) for held in machine.held(ws)]


class SystemAnswer(Answer):
    """Processor and memory: those of the machine, or what a container gives of them."""

    name: str
    python: str
    cpu: str
    cores: float
    memory_bytes: int
    free_memory_bytes: int
    open_files: int


class DiskAnswer(Answer):
    """The disk of the workspace."""

    filesystem: str
    free_bytes: int


class DriverAnswer(Answer):
    """The NVIDIA driver, and the newest CUDA that it can run."""

    version: str
    cuda: tuple[int, int]


class GpuAnswer(Answer):
    """A GPU as its driver tells; what is not told is null."""

    number: int
    uuid: str
    name: str
    capability: tuple[int, int] | None
    memory_bytes: int | None
    is_split: bool


class GpusAnswer(Answer):
    """The GPUs; where there are none, `reason` is what the driver's library says."""

    driver: DriverAnswer | None
    gpus: tuple[GpuAnswer, ...]
    silent: int
    reason: str


class MachineAnswer(Answer):
    """What the machine of the server is."""

    system: SystemAnswer
    disk: DiskAnswer
    gpus: GpusAnswer
    versions: dict[str, str]


class CheckAnswer(Answer):
    """One thing that was looked at, and what to do about it."""

    topic: str
    name: str
    found: str
    verdict: Verdict
    remedy: str


class Diagnosis(Answer):
    """All that was looked at."""

    checks: list[CheckAnswer]
    problems: int


@router.get("/machine", tags=["machine"])
def get_machine(ws: Ws) -> MachineAnswer:
    """What this machine is. Nothing is measured."""
    return MachineAnswer.model_validate(machine.describe(ws.root))


class DiagnosisAsked(Body):
    """There is nothing to say."""


@router.post("/machine/diagnose", tags=["machine"], dependencies=[Depends(auth.admin)])
def diagnose_machine(ws: Ws, body: DiagnosisAsked | None = None) -> Diagnosis:
    """Measure disk, processor and GPUs, and judge them, as `vizsla doctor` does.

    Takes ten seconds and more, in which all that trains is held up.
    """
    found = machine.diagnose(ws.root)
    problems = sum(check.verdict == "problem" for check in found)
    return Diagnosis(checks=[CheckAnswer.model_validate(check) for check in found], problems=problems)
