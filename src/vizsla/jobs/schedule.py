"""Which jobs start, on which devices, and why the others wait: a pure function of what there is and what is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

from vizsla.errors import Unavailable

CPU, HOST = "cpu", "host"
"""The processor, for trainings, and the room for work that needs no device of its own"""


@dataclass(frozen=True)
class Need:
    """The devices that a job needs."""

    among: tuple[str, ...]
    """any of these will do"""
    count: int = 1
    amount: float | None = None
    """of each: slots of a CPU, GB of a GPU; None: all of it"""

    def as_dict(self) -> dict[str, Any]:
        """The need as plain JSON."""
        return asdict(self)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`."""
        return cls(tuple(fields["among"]), fields["count"], fields["amount"])


BESIDE = Need((HOST,), 1, 1.0)
"""what work needs that has no device of its own"""
NOTHING = Need((HOST,), 1, 0.0)
"""what goes on for ever without a device of its own needs: it would keep others from their place for as long"""


class Waiting(NamedTuple):
    """A job that waits."""

    id: str
    title: str
    """for people"""
    owner: str
    priority: int
    need: Need


class Holding(NamedTuple):
    """A job that is at work."""

    title: str
    """for people"""
    owner: str
    devices: tuple[str, ...]
    amount: float | None


class Decision(NamedTuple):
    """What to do now."""

    starts: dict[str, tuple[str, ...]]
    """the devices of each job that starts, in the order in which they start"""
    reasons: dict[str, str]
    """why each other one waits"""


def decide(waiting: Iterable[Waiting], holding: Sequence[Holding], capacity: Mapping[str, float]) -> Decision:
    """Give out what is free: by priority, then to the owner with the fewest jobs at work, then to the oldest job.

    A job that cannot start keeps the devices that it could use from those behind it, so that a large job is not
    overtaken for ever by small ones. Those that use other devices go past it.

    Args:
        waiting: oldest first.
        capacity: of each device, in the unit of `Need.amount`.
    """
    free, at_work = dict(capacity), list(holding)
    for one in at_work:
        for device in one.devices:
            free[device] = free.get(device, 0.0) - _amount(one.amount, device, capacity)
    kept: dict[str, Waiting] = {}  # devices for which a job waits that comes first
    starts: dict[str, tuple[str, ...]] = {}
    reasons: dict[str, str] = {}
    left = list(waiting)
    while left:
        job = min(left, key=lambda one: (-one.priority, sum(other.owner == one.owner for other in at_work)))
        left.remove(job)
        fits = [device for device in job.need.among if _fits(job.need.amount, device, free, kept, capacity)]
        if len(fits) < job.need.count:
            reasons[job.id] = _reason(job.need, at_work, kept)
            kept |= {device: job for device in job.need.among if device not in kept}
            continue
        # The fullest that fits, so that whole devices stay for those who need whole ones.
        chosen = sorted(sorted(fits, key=lambda device: free[device])[: job.need.count], key=job.need.among.index)
        for device in chosen:
            free[device] -= _amount(job.need.amount, device, capacity)
        at_work.append(Holding(job.title, job.owner, tuple(chosen), job.need.amount))
        starts[job.id] = tuple(chosen)
    return Decision(starts, reasons)


def _fits(
    amount: float | None,
    device: str,
    free: Mapping[str, float],
    kept: Mapping[str, Waiting],
    capacity: Mapping[str, float],
) -> bool:
    if amount == 0:
        return device in capacity
    return device not in kept and free.get(device, 0.0) >= _amount(amount, device, capacity) > 0


def _amount(amount: float | None, device: str, capacity: Mapping[str, float]) -> float:
    return capacity.get(device, 0.0) if amount is None else amount


def _reason(need: Need, holding: Sequence[Holding], kept: Mapping[str, Waiting]) -> str:
    wanted = _named(need.among) if len(need.among) == need.count else f"{need.count} of {_named(need.among)}"
    holders = [job.title for job in holding if set(job.devices) & set(need.among)]
    if not holders and any(device in kept for device in need.among):
        return f"waits for {wanted}: others come first"
    more = f" and {len(holders) - 3} more" if len(holders) > 3 else ""
    return f"waits for {wanted}, held by {', '.join(holders[:3])}{more}" if holders else f"waits for {wanted}"


def _named(devices: Sequence[str]) -> str:
    words = {HOST: "a place beside the trainings"}
    return ", ".join(words.get(device, device) for device in devices)


def require(need: Need, capacity: Mapping[str, float]) -> None:
    """Raise `Unavailable` when a need can never be met on this machine, however long it waits."""
    missing = [device for device in need.among if device not in capacity]
    gpus = sum(device.startswith("cuda") for device in capacity)
    found = "1 was found" if gpus == 1 else f"{gpus} were found"
    remedy = "Name GPUs that are there, as in --device cuda:0; or use --device cpu, or fewer --processes."
    if missing and len(need.among) - len(missing) < need.count:
        raise Unavailable(f"There is no GPU {missing[0].partition(':')[2]}: {found}.", where="device", remedy=remedy)
    if len(need.among) < need.count:
        raise Unavailable(f"{need.count} GPUs are needed and {found}.", where="processes", remedy=remedy)
    large = [device for device in need.among if capacity[device] >= (need.amount or 0.0)]
    if len(large) < need.count:
        most = max(capacity[device] for device in need.among)
        raise Unavailable(
            f"{need.amount:g} GB of a GPU are needed, and the largest has {most:g} GB.",
            where="gpu_memory",
            remedy="Ask for less with --gpu-memory.",
        )
