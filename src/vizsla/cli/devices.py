"""`vizsla devices`: what can train here, how busy it is, and who is at work on it."""

from __future__ import annotations

from vizsla.api import machine
from vizsla.cli.options import Common
from vizsla.cli.output import out, print_json, safe, table
from vizsla.machine.devices import Held
from vizsla.words import num_bytes

COLUMNS = ("name", "device", "memory used", "busy", "state", "at work")


def devices(*, common: Common = Common()) -> None:
    """List the devices of this machine: memory, load, and the runs that are at work on them."""
    with common.open() as ws:
        found = machine.held(ws)
    if common.json:
        print_json([_as_json(held) for held in found])
    else:
        out.print(table(COLUMNS, [_row(held) for held in found], right=("memory used", "busy")))


def _as_json(held: Held) -> dict[str, object]:
    return {
        **held.device._asdict(),
        "runs": [holder._asdict() for holder in held.runs],
        "other_processes": held.others,
    }


def _row(held: Held) -> tuple[object, ...]:
    device = held.device
    used, total = device.used_bytes, device.memory_bytes
    memory = "–" if used is None or total is None else f"{num_bytes(used)} of {num_bytes(total)}"
    state = [f"{device.temperature_c} °C"] if device.temperature_c is not None else []
    state += [f"{device.power_w:.0f} W"] if device.power_w is not None else []
    others = f"{len(held.others)} other process{'es' if len(held.others) > 1 else ''}"
    at_work = [safe(holder.name) for holder in held.runs] + ([others] if held.others else [])
    return (
        device.name,
        safe(device.title),
        memory,
        "–" if device.use is None else f"{100 * device.use:.0f} %",
        ", ".join(state) or "–",
        ", ".join(at_work) or "–",
    )
