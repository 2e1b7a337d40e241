"""What this machine is, and whether it will do."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from vizsla.jobs import launch
from vizsla.machine import checks, gpus, system
from vizsla.machine.checks import Check, Facts

RATES_WORKER = "vizsla.machine.rates"
NETWORKS_WORKER = "vizsla.networks.worker"
LIBRARIES = ("vizsla", "torch", "torchvision", "timm", "numpy", "onnxruntime")


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
    versions = {name: version(name) for name in LIBRARIES}
    return checks.judge(Facts(system.system(), disk._replace(folder=str(place)), gpus.find(), rates, versions, weights))
