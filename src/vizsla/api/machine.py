"""What this machine is, and whether it will do."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from vizsla import files
from vizsla.api.served import served
from vizsla.jobs import launch
from vizsla.jobs.schedule import HOST
from vizsla.machine import checks, gpus, system
from vizsla.machine.checks import Check, Facts
from vizsla.machine.devices import Held, Holder, devices
from vizsla.store.workspace import Workspace

RATES_WORKER = "vizsla.machine.rates"
NETWORKS_WORKER = "vizsla.networks.worker"
LIBRARIES = ("vizsla", "torch", "torchvision", "timm", "numpy", "onnxruntime")


class Machine(NamedTuple):
    """What this machine is, without measuring anything."""

    system: system.System
    disk: system.Disk
    gpus: gpus.Found
    versions: dict[str, str]


def describe(folder: Path) -> Machine:
    """What this machine is, at once. `diagnose` measures, and judges.

    Args:
        folder: of the workspace, on whose disk things are kept.
    """
    return Machine(system.system(), system.place(folder), gpus.find(), _versions())


def _versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


def diagnose(folder: Path, on_stage: Callable[[str], None] = lambda stage: None) -> list[Check]:
    """Look at everything that training depends on, and measure it; takes about ten seconds, and more for each GPU.

    Args:
        folder: of the workspace, which need not be there yet; nothing of it is opened.
        on_stage: told in a few words what is looked at.

    Raises:
        WorkerDied: torch does not start.
    """
    place = folder.expanduser().absolute()
    on_stage("measuring the disk")
    disk = system.disk(next(path for path in (place, *place.parents) if path.is_dir()))
    on_stage("looking for pretrained weights")
    weights: list[str] = launch.ask(NETWORKS_WORKER, {"at_hand": None})
    on_stage("measuring products and copies")
    rates = launch.ask(RATES_WORKER, {})
    about = Facts(
        system.system(), disk._replace(folder=str(place)), gpus.find(), rates, _versions(), weights, gpus.links()
    )
    return checks.judge(about)


@served
def held(ws: Workspace) -> list[Held]:
    """Every device, and who is at work on it."""
    at_work: dict[str, list[Holder]] = {}
    for job in ws.store.jobs.live():
        worker = files.lock_holder(ws.folder(job.kind, job.thing))
        for name in job.held:
            if worker is not None and name != HOST:
                at_work.setdefault(name, []).append(Holder(job.thing, job.name, worker))
    ours = {holder.worker for holders in at_work.values() for holder in holders}
    found = []
    for device in devices(gpus.find()):
        others = [pid for pid in device.processes if _group(pid) not in ours]
        found.append(Held(device, at_work.get(device.name, []), others))
    return found


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:  # in another container, or gone
        return None
