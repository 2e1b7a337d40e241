"""The NVIDIA GPUs of this machine, as their driver tells. Light: no torch. No GPU is a fact, not an error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

import pynvml

T = TypeVar("T")
Failure = Literal["", "no library", "version mismatch", "not loaded", "no permission", "other"]


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
