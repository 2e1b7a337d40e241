"""`vizsla run preview`: what a training would be, before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from vizsla.api import trials
from vizsla.cli.opening import own_path
from vizsla.cli.options import Common, given, make, with_options
from vizsla.cli.output import facts, next_step, out, print_json, safe
from vizsla.training.spec import GROUPS, TrainingSpec
from vizsla.words import num_bytes


@with_options(TrainingSpec, groups=GROUPS)
def preview(
    dataset: str,
    /,
    *,
    options: dict[str, Any],
    folder: Annotated[Path, Parameter(name="--out", help="Folder for the charts; it is made if need be.")],
    common: Common = Common(),
) -> None:
    """Show what a training would be: its steps, memory, learning rate and augmented pictures. Nothing is trained.

    Args:
        dataset: Id or name of the dataset, or the beginning of one.
    """
    spec = make(TrainingSpec, **options | {"net": own_path(options["net"], common)})
    with common.open_here(why="It writes charts into a folder of this machine.") as ws:
        found = trials.preview(ws, dataset, spec, out=folder)
    if common.json:
        print_json(found)
        return
    out.print(facts(_facts(found)))
    for sentence in found["unused"]:
        out.print(f"[yellow]{safe(sentence)}[/]", soft_wrap=True)
    next_step(["vizsla", "train", dataset, *given(spec)], "Train so:")


def _facts(found: dict[str, Any]) -> list[tuple[str, object]]:
    pictures, size, settings = found["pictures"], found["input"], found["settings"]
    counts = " + ".join(f"{count:,} {split}" for split, count in pictures.items() if count)
    steps = f"{settings['epochs']:,} epochs of {found['steps_per_epoch']:,} are {found['total_steps']:,} steps"
    changed = (f"{name} {change['value']} ({change['default']})" for name, change in found["changed"].items())
    memory = found["memory"]
    return [
        ("dataset", f"{safe(found['dataset'])}, {counts} pictures of {found['classes']:,} classes"),
        ("network", f"{safe(found['network'])}, {found['num_parameters']:,} parameters, tuned: {settings['tune']}"),
        ("input", f"{size['width']} x {size['height']} px, {'grey' if size['channels'] == 1 else 'colour'}"),
        ("training", f"{steps} of up to {found['pictures_per_step']:,} pictures"),
        (
            "memory of tensors",
            f"about {_memory(memory, 'total')}, of it {_memory(memory, 'activations')} for activations",
        ),
        *((("largest batch", _largest(found)),) if found["largest_batch"] is not None else ()),
        ("changed (default)", safe(", ".join(changed) or "nothing")),
        *((name, safe(path)) for name, path in found["files"].items()),
    ]


def _largest(found: dict[str, Any]) -> str:
    if not found["largest_batch"]:
        return "none: not even two pictures fit"
    return f"{found['largest_batch']:,} pictures fit into the memory of the devices (tried)"


def _memory(memory: dict[str, int], part: str) -> str:
    return num_bytes(memory[f"{part}_bytes"])
