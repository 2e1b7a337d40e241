"""`vizsla service package`: a service as a folder, for containers and for machines without Vizsla."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from vizsla.cli.options import Common, count, make, with_options
from vizsla.cli.output import next_step, out, print_json, safe
from vizsla.cli.service import Audience, Capture, Manner, specs
from vizsla.errors import InvalidInput
from vizsla.packaging import folder, quoting
from vizsla.packaging.spec import PackageSpec
from vizsla.serving.spec import Limits, ServiceSpec


@with_options(Limits, groups={"What is gathered, and what is refused": tuple(Limits.model_fields)})
def package(
    *served: Annotated[str, Parameter(name="models")],
    options: dict[str, Any],
    folder_: Annotated[Path, Parameter(name="--out", help="Folder to make; empty, or not there yet.")],
    name: Annotated[
        str | None,
        Parameter(show_default=False, help="Of image and manifests: a-z, 0-9 and dashes. Default: the first model's."),
    ] = None,
    manner: Manner = Manner(),
    workers: Annotated[int, Parameter(help="Processes that answer, in each container.", converter=count)] = 1,
    device: Annotated[Literal["cpu", "cuda"], Parameter(help="Where it is computed.")] = "cpu",
    cores: Annotated[float, Parameter(help="Cores that the manifests give to a container.")] = 2.0,
    drain: Annotated[float, Parameter(help="Seconds for which it says that it is not ready before it ends.")] = 5.0,
    capture: Capture = Capture(),
    audience: Audience = Audience(),
    common: Common = Common(),
) -> None:
    """Write a folder from which a service is built and run: container, Compose, Swarm, Kubernetes, systemd.

    Args:
        served: Models as `vizsla service run` takes them.
    """
    if not served:
        raise InvalidInput("Name a model to serve.", remedy="`vizsla model list` shows those that there are.")
    found = audience.digests(reached_by="A container")
    service = make(
        ServiceSpec,
        name=quoting.line(manner.title),
        keys=found,
        models=specs(served, manner.share, common),
        limits=make(Limits, **options),
        device=device,
        threads=manner.threads,
        links=manner.allow_links,
        capture=capture.spec(),
        origins=audience.origin,
        hosts=audience.hosts,
    )
    spec = make(
        PackageSpec,
        service=service,
        name=name or _name(service.models[0].name),
        public=audience.public and not found,
        workers=workers,
        drain=drain,
        cores=cores,
    )
    image = folder.write(spec, folder_)
    _say(folder_, image, common)


def _say(place: Path, image: str, common: Common) -> None:
    if common.json:
        print_json({"folder": str(place.absolute()), "image": image})
        return
    out.print(f"[bold]{safe(str(place))}[/] holds the service; its README.md says how to run it.", soft_wrap=True)
    next_step(["docker", "build", "--tag", image, str(place)], "To build the image:")


def _name(model: str) -> str:
    """The name of a model as one that images and hosts may have."""
    dashed = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    return (dashed if dashed[:1].isalpha() else f"model-{dashed}")[:40].rstrip("-")
