"""How the heavy arithmetic is done: number format, memory layout, compilation, kernels. Measured, not believed.

What is fastest depends on the device, the network and the size of the pictures in ways that no rule foretells. So a
few steps of each candidate are timed before a training, and the answer is kept for this device and network: the same
machine trains the same way again.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from vizsla import files
from vizsla.errors import InvalidInput, Unavailable, VizslaError
from vizsla.machine import system
from vizsla.machine.rates import cpu_formats, shortest
from vizsla.training.optimizers import FUSED, make_optimizer
from vizsla.training.run import Arithmetic, Precision
from vizsla.training.spec import TrainingSpec
from vizsla.work import is_out_of_memory

# Below this many parameters a shorter format gains nothing, and several threads of a CPU wait for each other longer
# than they compute.
SMALL_NETWORK = 1_000_000
# A shorter number format has to be so much faster to be taken: it costs accuracy where it gains nothing.
WORTH_ROUNDING = 1.1
# torch.compile takes about a minute, so it is tried only where there is much to gain.
WORTH_COMPILING_S = 1800.0
# On a CPU a few pictures keep it as busy as many; a GPU is measured on a whole batch.
CPU_PICTURES = 8
TURNS, TURN_S = 3, 0.2
# Where that is not enough, for a large network or on a busy machine, each format is timed in one layout at least.
MOST_S = 30.0
TRYING = "try number formats"

# Options of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
GROW_BYTES = 256 * 2**20

OnProgress = Callable[[str, int, int], object]
"""is told of a stage: its name, how far it is, and its end"""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(arithmetic: Arithmetic, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which forward passes run."""
    dtype = DTYPES.get(arithmetic.precision)
    return torch.autocast(device.type, dtype=dtype) if dtype else contextlib.nullcontext()


def scaler(arithmetic: Arithmetic, device: torch.device) -> torch.amp.GradScaler:
    """Scales the loss, so that small gradients are not lost in fp16; does nothing in other formats."""
    return torch.amp.GradScaler(device.type, enabled=arithmetic.precision == "fp16")


def layout(arithmetic: Arithmetic) -> torch.memory_format:
    """The memory layout of pictures and weights."""
    return torch.channels_last if arithmetic.channels_last else torch.contiguous_format


class Trial(NamedTuple):
    """What is timed: steps of `network` on pictures of `size`, or, of a frozen network, passes."""

    network: nn.Module
    size: tuple[int, int]
    channels: int
    spec: TrainingSpec
    device: torch.device
    batch_size: int
    """pictures a pass on this device"""
    num_passes: int
    """pictures in the whole training, to know what a gain is worth"""


def choose(trial: Trial, cache: Path, on_progress: OnProgress = lambda *_: None) -> Arithmetic:
    """The fastest arithmetic for a network on a device, as asked where something was asked.

    Args:
        trial: what to time.
        cache: JSON file that keeps what was found on this machine.
        on_progress: told how many of how many timings are done.
    """
    if _is_small(trial.network):
        # Seconds at most are to be gained, and timings so short are mostly noise: the same seed would not always
        # give the same weights.
        asked = trial.spec.precision
        precision: Precision = "fp32" if asked == "auto" else asked
        return Arithmetic(precision=precision, compiled=trial.spec.compile == "on", reason="the network is small")
    key = _key(trial)
    kept = _kept(cache).get(key)
    if kept is not None:
        return kept
    found = _measure(trial, on_progress)
    every = {**_kept(cache), key: found}
    with contextlib.suppress(OSError, VizslaError):  # what cannot be kept is measured again
        cache.parent.mkdir(exist_ok=True)
        files.write_json(cache, {name: one.model_dump() for name, one in every.items()})
    return found


def _measure(trial: Trial, on_progress: OnProgress) -> Arithmetic:
    spec = trial.spec
    formats = _formats(trial.device) if spec.precision == "auto" else [spec.precision]
    candidates = [
        Arithmetic(precision=precision, channels_last=channels_last)
        for precision in formats
        for channels_last in (True, False)
    ]
    speeds = _speeds(trial, candidates, on_progress)
    best = _fastest([one for one in candidates if _name(one) in speeds], speeds)
    if speeds[_name(best)] == 0.0 and trial.batch_size > 1:  # the training will find out how much fits
        return _measure(trial._replace(batch_size=trial.batch_size // 2), on_progress)
    best = _with_compilation(trial, best, speeds)
    fused = spec.tune != "head" and _fused_is_faster(trial)
    plain = best.model_copy(update={"compiled": False})
    speed = speeds.get(_name(best), speeds[_name(plain)])
    reason = f"fastest of {len(speeds)} that were timed: {speed:,.0f} pictures/s"
    if not {_name(one) for one in candidates} <= speeds.keys():
        reason += f"; there was no time for others within {MOST_S:.0f} s"
    if spec.compile == "on":
        reason += " before it was compiled, as asked"
    if trial.device.type == "cuda":  # what the trials took is free again, and is no part of the training's highest
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(trial.device)
    return best.model_copy(
        update={"fused": fused, "reason": reason, "measured": {name: round(found, 1) for name, found in speeds.items()}}
    )


def _speeds(trial: Trial, candidates: list[Arithmetic], on_progress: OnProgress) -> dict[str, float]:
    """Pictures a second of each candidate, the best of its turns: what else the machine does comes and goes.

    Those for which there was no time are left out, but for the first layout of each format.
    """
    speeds: dict[str, float] = {}
    began = time.monotonic()
    formats = {one.precision for one in candidates}
    # The exact format comes after the others: it gives up early where it is slow.
    exact = candidates[0].precision
    ordered = sorted(candidates, key=lambda one: (not one.channels_last, one.precision == exact))
    for turn in range(TURNS):
        for place, candidate in enumerate(ordered):
            name, fastest = _name(candidate), max(speeds.values(), default=0.0)
            if turn and speeds[name] < fastest / 2:
                continue  # it will not become the fastest
            if len(speeds) >= len(formats) and time.monotonic() - began > MOST_S:
                return speeds
            on_progress(TRYING, turn * len(ordered) + place, TURNS * len(ordered))
            speeds[name] = max(speeds.get(name, 0.0), _speed(trial, candidate, at_least=fastest / 2))
    return speeds


def _fastest(candidates: list[Arithmetic], speeds: dict[str, float]) -> Arithmetic:
    """The fastest; the exact format, which comes first, unless a shorter one is worth its rounding."""
    best = candidates[0]
    for candidate in candidates[1:]:
        handicap = WORTH_ROUNDING if candidate.precision != best.precision else 1.0
        if speeds[_name(candidate)] > handicap * speeds[_name(best)]:
            best = candidate
    return best


def _formats(device: torch.device) -> list[str]:
    """The formats worth a trial, the exact one first."""
    if device.type == "cpu":
        return cpu_formats()
    # Ampere and later have bf16 units; earlier ones only emulate it, but have fp16 from Volta on.
    capability = torch.cuda.get_device_capability(device)
    return ["fp32", "bf16"] if capability >= (8, 0) else ["fp32", "fp16"] if capability >= (7, 0) else ["fp32"]


def _with_compilation(trial: Trial, best: Arithmetic, speeds: dict[str, float]) -> Arithmetic:
    spec = trial.spec
    compiled = best.model_copy(update={"compiled": True})
    if spec.compile == "on":
        return compiled
    if spec.compile == "off" or trial.num_passes < WORTH_COMPILING_S * speeds[_name(best)]:
        return best
    try:
        speed = _speed(trial, compiled, at_least=0.0)
    except Exception:  # a missing compiler, or an operation that it does not know: then as it was
        return best
    speeds[_name(compiled)] = speed
    return compiled if speed > WORTH_ROUNDING * speeds[_name(best)] else best


def _speed(trial: Trial, arithmetic: Arithmetic, *, at_least: float) -> float:
    """Pictures a second; measured no longer than it takes to see that it is below `at_least`. 0: out of memory."""
    device = trial.device
    num = min(trial.batch_size, CPU_PICTURES) if device.type == "cpu" else trial.batch_size
    num = max(num, 2)  # batch normalisation takes no single one
    try:
        step = trial_step(trial, arithmetic, num)
        return num / shortest(step, device, for_s=TURN_S, give_up_s=num / at_least if at_least else math.inf)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return 0.0


def trial_step(trial: Trial, arithmetic: Arithmetic, num: int, *, optimised: bool = False) -> Callable[[], None]:
    """A step on `num` pictures that shows none, with a copy of the trial's network: forward and backward pass.

    Args:
        optimised: also with the step of the optimiser, for its memory.
    """
    device, trains = trial.device, trial.spec.tune != "head"
    network = copy.deepcopy(trial.network).to(device).to(memory_format=layout(arithmetic)).train(trains)
    pictures = torch.zeros(num, trial.channels, *trial.size, device=device).to(memory_format=layout(arithmetic))
    if arithmetic.compiled:
        network.compile()

    optimizer = make_optimizer(trial.spec, network, fused=arithmetic.fused) if optimised else None

    def step() -> None:
        with torch.set_grad_enabled(trains), autocast(arithmetic, device):
            output = network(pictures)
        if trains:
            logits = output if isinstance(output, Tensor) else output[0]
            logits.float().sum().backward()
            if optimizer is not None:
                optimizer.step()
            network.zero_grad()

    return step


def _fused_is_faster(trial: Trial) -> bool:
    if trial.spec.optimizer not in FUSED:
        return False
    try:
        plain, fused = (_optimizer_seconds(trial, fused=fused) for fused in (False, True))
    except RuntimeError:  # this torch has no such kernel for this device
        return False
    return fused < plain


def _optimizer_seconds(trial: Trial, *, fused: bool) -> float:
    network = copy.deepcopy(trial.network).to(trial.device)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return shortest(make_optimizer(trial.spec, network, fused=fused).step, trial.device)


def _name(arithmetic: Arithmetic) -> str:
    order = "channels-last" if arithmetic.channels_last else "channels-first"
    return f"{arithmetic.precision}, {order}" + (", compiled" if arithmetic.compiled else "")


def _key(trial: Trial) -> str:
    spec, device = trial.spec, trial.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    parameters = sum(parameter.numel() for parameter in trial.network.parameters())
    size = f"{trial.channels}x{trial.size[0]}x{trial.size[1]}"
    asked = f"{spec.tune} {spec.optimizer} {spec.precision} compile={spec.compile}"
    # A network of the user's may change under its name; a compilation that pays depends on how long is trained.
    made = hashlib.sha256(repr(trial.network).encode()).hexdigest()[:8]
    length = f"batch {trial.batch_size}, 1e{len(str(trial.num_passes))} passes"
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    return f"{name} x{threads}, torch {torch.__version__}: {spec.net} ({parameters}, {made}) {size}, {length}, {asked}"


def _kept(cache: Path) -> dict[str, Arithmetic]:
    try:
        return TypeAdapter(dict[str, Arithmetic]).validate_python(files.read_json(cache))
    except (InvalidInput, OSError, ValidationError):  # damaged or not to be read: as if there were none
        return {}


def _is_small(network: nn.Module) -> bool:
    return sum(parameter.numel() for parameter in network.parameters()) < SMALL_NETWORK


def choose_threads(device: torch.device, network: nn.Module, processes: int) -> None:
    """Share the cores among the processes, and let a small network train on one thread of a CPU.

    Several would wait for each other longer than they compute; on a machine that is busy otherwise, very long.
    """
    if device.type != "cpu":
        return
    # torch looks at the machine; a container may have been given less of it.
    cores = min(torch.get_num_threads(), max(1, round(system.cores())))
    torch.set_num_threads(1 if _is_small(network) else max(1, cores // processes))


def settle(device: torch.device) -> None:
    """What every process does before it computes on a device: 32-bit floats are whole, and a CPU's memory is kept.

    Without it some GPUs round the inputs of a convolution to 10 bits (TF32).
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if device.type == "cpu":
        keep_freed_memory()


def keep_freed_memory() -> None:
    """Let this process keep the memory that tensors on the CPU give back, for those of the next step.

    Else glibc hands each large block to the kernel and asks for it anew, cleared, page by page: of a step of ResNet-18
    on 32 pictures of 224 px that was a quarter of the time, for a fifth less memory. Other C libraries have no such
    options, and stay as they are.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
        libc.mallopt(M_TOP_PAD, GROW_BYTES)


def devices_again(before: tuple[str, ...], wanted: str | None, processes: int) -> list[torch.device]:
    """The devices that a run goes on on: those of before, or what is wanted now.

    Raises:
        Unavailable: they are not there.
    """
    if wanted is not None:
        return choose_devices(wanted, processes)
    if before[0].startswith("cuda"):
        return choose_devices("cuda:" + ",".join(name.partition(":")[2] for name in before), len(before))
    return [torch.device(name) for name in before]


def choose_devices(wanted: str, processes: int) -> list[torch.device]:
    """The device of each process, for "auto", "cpu", "cuda", "cuda:N" or "cuda:N,M".

    Raises:
        Unavailable: there are not so many GPUs, or not that one.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return [torch.device("cpu")] * processes
    _, _, named = wanted.partition(":")
    first = [int(index) for index in named.split(",")] if named else [0]
    indices = first if len(first) >= processes else list(range(first[0], first[0] + processes))
    count = torch.cuda.device_count()
    if max(indices) >= count or len(set(indices)) < len(indices):
        raise Unavailable(
            f"There is no GPU {max(indices)}: {count} were found."
            if max(indices) >= count
            else f"{wanted} names a GPU twice.",
            where="device",
            remedy="Name GPUs that are there, as in --device cuda:0; or use --device cpu, or fewer --processes.",
        )
    return [torch.device("cuda", index) for index in indices]
