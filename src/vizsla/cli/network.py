"""`vizsla network`: list and show networks."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from vizsla.api import networks
from vizsla.cli.options import Common
from vizsla.cli.output import facts, out, print_json, safe, table
from vizsla.images.preprocess import parse_size

app = App(name="network", help="List and show networks.")


@app.command(name="list")
def list_(pattern: str = "", /, *, common: Common = Common()) -> None:
    """List networks: the classic ones first, then timm's.

    Args:
        pattern: Only names that hold this text.
    """
    names = networks.list_all(pattern)
    if common.json:
        print_json(names)
    elif names:
        out.print("\n".join(safe(name) for name in names))
    else:
        out.print(f"No network's name holds {safe(pattern)!r}.")


@app.command
def show(
    name: str,
    /,
    *,
    size: Annotated[str, Parameter(help="Size of the pictures in px: 224, or 320x240.")] = "224",
    channels: Annotated[int, Parameter(help="1 for grey, 3 for colour.")] = 3,
    classes: Annotated[int, Parameter(help="Number of classes.")] = 1000,
    common: Common = Common(),
) -> None:
    """Show a network: parameters, arithmetic, pretrained weights and layers.

    Args:
        name: lenet, alexnet, googlenet, or any timm name.
    """
    width, height = parse_size(size)
    found = networks.get(name, width=width, height=height, channels=channels, num_classes=classes)
    if common.json:
        print_json(found)
        return
    out.print(f"\n[bold]{safe(found['name'])}[/]")
    pairs: list[tuple[str, object]] = [
        ("parameters", f"{found['num_parameters']:,}"),
        ("multiply-accumulates", f"{found['multiply_accumulates']:,} a picture of {width} x {height} px"),
        ("pretrained weights", safe(found["weights"])),
        ("their licence", safe(found["licence"] or "–")),
    ]
    out.print(facts(pairs))
    rows = [
        (safe(layer["name"]), safe(layer["kind"]), " x ".join(map(str, layer["shape"])), f"{layer['num_parameters']:,}")
        for layer in found["layers"]
    ]
    out.print(table(("layer", "kind", "output", "parameters"), rows, right=("parameters",)))
