# ruff: noqa: N802 - the names are the library's
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from vizsla.machine import gpus


class Nvml:
    """The driver's library on a machine with three cards. One tells everything, one only its name, and one is dead."""

    NVMLError = pynvml.NVMLError
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    NVML_VOLATILE_ECC = pynvml.NVML_VOLATILE_ECC

    def __init__(self) -> None:
        self.is_loaded = False

    def nvmlInit(self) -> None:
        self.is_loaded = True

    def nvmlShutdown(self) -> None:
        self.is_loaded = False

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"550.90"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 12040

    def nvmlDeviceGetCount(self) -> int:
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 2:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"H100" if handle == 0 else b"GTX 1080"

    def __getattr__(self, name: str) -> Any:
        told = {
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 * 10**9, used=2 * 10**9),
            "nvmlDeviceGetCudaComputeCapability": (9, 0),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=37),
            "nvmlDeviceGetPowerUsage": 251_300,
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetMigMode": (1, 1),
            "nvmlDeviceGetTemperature": 54,
            "nvmlDeviceGetTotalEccErrors": 0,
            "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=77, usedGpuMemory=None)],
        }

        expected = {
            "nvmlDeviceGetTemperature": (pynvml.NVML_TEMPERATURE_GPU,),
            "nvmlDeviceGetTotalEccErrors": (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC),
        }

        def ask(handle: int, *which: int) -> Any:
            assert which == expected.get(name, ())
            if handle == 1:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return told[name]

        return ask


def test_cards_tell_what_they_know() -> None:
    nvml = Nvml()
    found = gpus.find(nvml)
    assert found.driver == gpus.Driver("550.90", (12, 4))
    first, second = found.gpus
    assert (first.name, first.capability, first.memory_bytes, first.used_bytes) == ("H100", (9, 0), 80e9, 2e9)
    assert (first.use, first.temperature_c, first.power_w, first.power_limit_w) == (0.37, 54, 251.3, 700)
    assert (first.memory_errors, first.is_split, first.processes) == (0, True, (77,))
    assert second == gpus.Gpu(1, "GPU-1", "GTX 1080")
    assert found.silent == 1
    assert not nvml.is_loaded


class Joined(Nvml):
    """The same machine with four cards, of which the last is dead: the first two share an NVLink, the third is far."""

    def nvmlDeviceGetCount(self) -> int:
        return 4

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 3:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    def nvmlDeviceGetP2PStatus(self, first: int, second: int, what: int) -> int:
        if {first, second} == {0, 1}:
            return int(pynvml.NVML_P2P_STATUS_OK)
        if what == pynvml.NVML_P2P_CAPS_INDEX_READ:
            return int(pynvml.NVML_P2P_STATUS_IOH_TOPOLOGY_NOT_SUPPORTED)
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetTopologyCommonAncestor(self, first: int, second: int) -> int:
        if first == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return int(pynvml.NVML_TOPOLOGY_SYSTEM)


def test_how_cards_reach_each_other() -> None:
    nvml = Joined()
    near, far, silent = gpus.links(nvml)
    assert near == gpus.Link(0, 1, "NVLink", "")
    assert (far.first, far.second, far.way) == (0, 2, "the way between processors")
    assert "different processors" in far.obstacle
    assert silent == gpus.Link(1, 2, "", far.obstacle)
    assert not nvml.is_loaded
    assert gpus.links(NoNvml(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)) == ()


class NoNvml:
    """The driver's library where it fails."""

    NVMLError = pynvml.NVMLError

    def __init__(self, error: int) -> None:
        self._error = error

    def nvmlInit(self) -> None:
        raise pynvml.NVMLError(self._error)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "no library"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "version mismatch"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "not loaded"),
        (pynvml.NVML_ERROR_UNKNOWN, "other"),
    ],
)
def test_no_driver_is_a_fact_with_a_reason(error: int, failure: str) -> None:
    found = gpus.find(NoNvml(error))
    assert (found.driver, found.gpus, found.failure) == (None, (), failure)
    assert found.reason


def test_this_machine_can_be_asked() -> None:
    found = gpus.find()
    assert (found.driver is None) == bool(found.reason)
