"""`vizsla network`: list, show and draw networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from vizsla import files
from vizsla.api import networks
from vizsla.cli.opening import own_path
from vizsla.cli.options import Common, count
from vizsla.cli.output import facts, out, print_json, safe, table
from vizsla.errors import InvalidInput
from vizsla.images.preprocess import parse_size
from vizsla.networks import own

app = App(name="network", help="List, show and draw networks.")

Size = Annotated[
    str | None, Parameter(help="Size of the pictures in px: 224, or 320x240. Default: what the network was made for.")
]
Channels = Annotated[int, Parameter(help="1 for grey, 3 for colour.", converter=count)]
Classes = Annotated[int, Parameter(help="Number of classes.", converter=count)]


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
    size: Size = None,
    channels: Channels = 3,
    classes: Classes = 1000,
    common: Common = Common(),
) -> None:
    """Show a network: parameters, arithmetic, pretrained weights and layers.

    Args:
        name: lenet, alexnet, googlenet, any timm name, or a Python file that defines one.
    """
    found = _ask(networks.get, name, common, size=size, channels=channels, classes=classes)
    if common.json:
        print_json(found)
        return
    height, width = found["size"]
    out.print(f"\n[bold]{safe(found['name'])}[/]")
    pairs: list[tuple[str, object]] = [
        ("parameters", f"{found['num_parameters']:,}"),
        ("multiply-accumulates", f"{found['multiply_accumulates']:,} a picture of {width} x {height} px"),
        ("pretrained weights", safe(found["weights"]) + _fetched(found["weights_here"])),
        ("their licence", safe(found["licence"] or "–")),
    ]
    out.print(facts(pairs))
    rows = [
        (
            safe(layer["name"]),
            safe(layer["kind"]),
            " x ".join(map(str, layer["shape"])),
            f"{layer['num_parameters']:,}",
            f"{layer['multiply_accumulates']:,}",
        )
        for layer in found["layers"]
    ]
    columns = ("layer", "kind", "output", "parameters", "multiply-accumulates")
    out.print(table(columns, rows, right=("parameters", "multiply-accumulates")))


def _fetched(here: bool | None) -> str:
    """Whether a training has to fetch the weights; nothing where there are none."""
    return {True: "", False: ", to be fetched by the first training", None: ""}[here]


@app.command
def draw(
    name: str,
    /,
    *,
    out_: Annotated[Path | None, Parameter(name="--out", help="File to write. Default: NAME.svg.")] = None,
    size: Size = None,
    channels: Channels = 3,
    classes: Classes = 1000,
    common: Common = Common(),
) -> None:
    """Draw a network as an SVG page: layers, branches, output sizes and parameters.

    Args:
        name: lenet, alexnet, googlenet, any timm name, or a Python file that defines one.
    """
    path = (out_ or Path(f"{own.title(name).removesuffix(own.SUFFIX)}.svg")).expanduser().absolute()
    if not path.parent.is_dir():
        raise InvalidInput("There is no such folder.", where=str(path.parent), remedy="Make it, or change --out.")
    svg = _ask(networks.draw, name, common, size=size, channels=channels, classes=classes)
    files.write_text(path, svg)
    if common.json:
        print_json({"file": str(path)})
    else:
        out.print(f"Drawn: {safe(path)}", soft_wrap=True)


def _ask(verb: Any, name: str, common: Common, *, size: str | None, channels: int, classes: int) -> Any:
    width, height = parse_size(size) if size else (None, None)
    asked = {"width": width, "height": height, "channels": channels, "num_classes": classes}
    if not own.is_own(name):
        return verb(name, **asked)
    with common.open_here(why="It runs a file of a network on this machine.") as ws:
        return verb(own_path(name, common), **asked, ws=ws)
