"""The NVIDIA GPUs of this machine, as their driver tells. Light: no torch. No GPU is a fact, not an error."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

import pynvml

T = TypeVar("T")
Failure = Literal["", "no library", "version mismatch", "not loaded", "no permission", "other"]


# What two cards have in common on their way to each other.
WAYS = {
    pynvml.NVML_TOPOLOGY_INTERNAL: "one board",
    pynvml.NVML_TOPOLOGY_SINGLE: "one PCIe switch",
    pynvml.NVML_TOPOLOGY_MULTIPLE: "several PCIe switches",
    pynvml.NVML_TOPOLOGY_HOSTBRIDGE: "one host bridge",
    pynvml.NVML_TOPOLOGY_NODE: "one processor",
    pynvml.NVML_TOPOLOGY_SYSTEM: "the way between processors",
}
OBSTACLES = {
    pynvml.NVML_P2P_STATUS_CHIPSET_NOT_SUPPORTED: "the chipset cannot do it: other slots, or another board, may",
    pynvml.NVML_P2P_STATUS_GPU_NOT_SUPPORTED: "the cards cannot do it, as many that are made for games",
    pynvml.NVML_P2P_STATUS_IOH_TOPOLOGY_NOT_SUPPORTED: "they hang on different processors: put them into slots of one",
    pynvml.NVML_P2P_STATUS_DISABLED_BY_REGKEY: "the driver's settings switch it off: see /etc/modprobe.d",
    pynvml.NVML_P2P_STATUS_NOT_SUPPORTED: "the driver does not do it on this machine",
}


class Gpu(NamedTuple):
    """One GPU. What a card or its driver does not tell is None."""

    number: int
    """as the driver counts; CUDA_VISIBLE_DEVICES may hide some from torch and count the others anew"""
    uuid: str
    name: str
    capability: tuple[int, int] | None = None
    """compute capability: (9, 0) for an H100"""
    memory_bytes: int | None = None
    used_bytes: int | None = None
    use: float | None = None
    """0 to 1: share of the last moments in which it computed"""
    temperature_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    memory_errors: int | None = None
    """errors of its memory since the driver was loaded that could not be corrected"""
    is_split: bool = False
    """whether it is split into instances (MIG)"""
    processes: tuple[int, ...] = ()
    """ids of the processes that compute on it"""


class Driver(NamedTuple):
    """The NVIDIA driver: its version, and the newest CUDA that it can run, such as (12, 4)."""

    version: str
    cuda: tuple[int, int]


class Found(NamedTuple):
    """What there is. Where the driver's library fails there are no GPUs, and `reason` is what it said."""

    driver: Driver | None
    gpus: tuple[Gpu, ...] = ()
    silent: int = 0
    """cards that are there and do not answer"""
    failure: Failure = ""
    reason: str = ""


class Link(NamedTuple):
    """How two GPUs reach each other, by their numbers as the driver counts."""

    first: int
    second: int
    way: str
    """such as NVLink or one PCIe switch; "" where it is not told"""
    obstacle: str
    """why one cannot read the other's memory; "" where it can, or it is not told"""


def links(nvml: Any = pynvml) -> tuple[Link, ...]:
    """How each two GPUs reach each other; nothing without a driver, or with one card."""
    try:
        with _loaded(nvml):
            handles: dict[int, Any] = {}
            for number in range(nvml.nvmlDeviceGetCount()):
                with contextlib.suppress(nvml.NVMLError):  # it does not answer
                    handles[number] = nvml.nvmlDeviceGetHandleByIndex(number)
            return tuple(
                Link(a, b, _way(nvml, handles[a], handles[b]), _obstacle(nvml, handles[a], handles[b]))
                for a, b in itertools.combinations(handles, 2)
            )
    except nvml.NVMLError:
        return ()


def _way(nvml: Any, first: Any, second: Any) -> str:
    if _status(nvml, first, second, pynvml.NVML_P2P_CAPS_INDEX_NVLINK) == pynvml.NVML_P2P_STATUS_OK:
        return "NVLink"
    try:
        return WAYS.get(nvml.nvmlDeviceGetTopologyCommonAncestor(first, second), "")
    except (nvml.NVMLError, AttributeError):
        return ""


def _obstacle(nvml: Any, first: Any, second: Any) -> str:
    status = _status(nvml, first, second, pynvml.NVML_P2P_CAPS_INDEX_READ)
    if status in (None, pynvml.NVML_P2P_STATUS_OK):
        return ""
    return OBSTACLES.get(status, "the driver does not say why")


def _status(nvml: Any, first: Any, second: Any, what: int) -> int | None:
    try:
        return int(nvml.nvmlDeviceGetP2PStatus(first, second, what))
    except (nvml.NVMLError, AttributeError):
        return None


def find(nvml: Any = pynvml) -> Found:
    """Look for GPUs.

    Args:
        nvml: the driver's library, by which a test can put another machine under this.
    """
    try:
        with _loaded(nvml):
            cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
            driver = Driver(_text(nvml.nvmlSystemGetDriverVersion()), (cuda // 1000, cuda % 1000 // 10))
            gpus = [_gpu(nvml, number) for number in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        return Found(None, failure=_failure(error), reason=str(error))
    there = tuple(gpu for gpu in gpus if gpu is not None)
    return Found(driver, there, silent=len(gpus) - len(there))


@contextlib.contextmanager
def _loaded(nvml: Any) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def _failure(error: Any) -> Failure:
    kinds: dict[int, Failure] = {
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no library",
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "version mismatch",
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "not loaded",
        pynvml.NVML_ERROR_NO_PERMISSION: "no permission",
    }
    return kinds.get(error.value, "other")


def _gpu(nvml: Any, number: int) -> Gpu | None:
    """One GPU; None when it does not answer, as one that fell off the bus does."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        uuid, name = _text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle))
    except nvml.NVMLError:
        return None

    def told(ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        # Not every card knows everything, and not every version of the library has every function.
        except (nvml.NVMLError, AttributeError):
            return None

    memory = told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    power = told(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    limit = told(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    return Gpu(
        number,
        uuid,
        name,
        capability=told(lambda: tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))),
        memory_bytes=memory.total if memory else None,
        used_bytes=memory.used if memory else None,
        use=told(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
        temperature_c=told(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        power_w=None if power is None else power / 1000,
        power_limit_w=None if limit is None else limit / 1000,
        memory_errors=told(
            lambda: nvml.nvmlDeviceGetTotalEccErrors(
                handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
            )
        ),
        is_split=told(lambda: nvml.nvmlDeviceGetMigMode(handle)[0]) == 1,
        processes=told(lambda: tuple(one.pid for one in nvml.nvmlDeviceGetComputeRunningProcesses(handle))) or (),
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
