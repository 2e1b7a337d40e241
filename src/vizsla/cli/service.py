"""`vizsla service`: models that answer programs and people."""

from __future__ import annotations

import hashlib
import re
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from vizsla import files
from vizsla.api import models
from vizsla.cli.options import Common, count, make, with_options
from vizsla.cli.output import err, print_json, safe
from vizsla.cli.serve import check_certificate, listen
from vizsla.errors import InvalidInput
from vizsla.models.card import CARD, Card, open_model
from vizsla.serving.spec import SERVICE, Limits, ModelSpec, ServiceSpec, VersionSpec

app = App(name="service", help="Let a model answer programs and people.")
app.command(
    "vizsla.cli.package:package",
    name="package",
    help="Write a folder from which a service is built and run: container, Compose, Swarm, Kubernetes, systemd.",
)

MIN_KEY = 16


@Parameter(name="*", group="Who may ask")
@dataclass(frozen=True, kw_only=True)
class Reach:
    """Where it listens, and to whom."""

    host: Annotated[str, Parameter(help="Address to listen on. Others can reach any but loopback.")] = "127.0.0.1"
    port: Annotated[int, Parameter(help="Port to listen on; 0 takes a free one.", converter=count)] = 8000
    keys: Annotated[
        Path | None,
        Parameter(show_default=False, help="File with a key in each line, one of which requests must show."),
    ] = None
    public: Annotated[
        bool, Parameter(negative="", show_default=False, help="Answer everybody who can reach it, without keys.")
    ] = False
    origin: Annotated[
        tuple[str, ...],
        Parameter(negative="", show_default=False, help="Site whose pages may ask (CORS), as https://example.org."),
    ] = ()
    tls_cert: Annotated[Path | None, Parameter(show_default=False, help="Certificate (PEM).")] = None
    tls_key: Annotated[Path | None, Parameter(show_default=False, help="The key of the certificate (PEM).")] = None

    def digests(self) -> list[str]:
        """What is kept of the keys; refuses to answer everybody on a network unless that is wanted."""
        from vizsla.web.guard import LOOPBACK

        check_certificate(self.tls_cert, self.tls_key)
        found = digests(self.keys)
        if self.host not in LOOPBACK and not found and not self.public:
            raise InvalidInput(
                f"{self.host} can be reached from elsewhere, and everybody could ask.",
                where="--host",
                remedy="Give --keys FILE with a key in each line, or say --public.",
            )
        return found

    def url(self, listening: socket.socket) -> str:
        """Where the page is."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_cert else 'http'}://{shown}:{listening.getsockname()[1]}/"


@app.command
@with_options(Limits, groups={"What is gathered, and what is refused": tuple(Limits.model_fields)})
def run(
    *served: Annotated[str, Parameter(name="models")],
    options: dict[str, Any],
    title: Annotated[str, Parameter(help="What the page is called.")] = "What is this?",
    share: Annotated[
        float | None,
        Parameter(show_default=False, help="Of several versions, the share of requests that the last one gets."),
    ] = None,
    workers: Annotated[int, Parameter(help="Processes that answer.", converter=count)] = 1,
    device: Annotated[str, Parameter(help="Where it is computed: cpu or cuda:N.")] = "cpu",
    threads: Annotated[
        int, Parameter(help="Threads that compute, in each process; 0: one a core.", converter=count)
    ] = 0,
    drain: Annotated[float, Parameter(help="Seconds for which it says that it is not ready before it ends.")] = 0.0,
    allow_links: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Fetch pictures by links, from the public internet only."),
    ] = False,
    reach: Reach = Reach(),
    common: Common = Common(),
) -> None:
    """Answer with models until Ctrl-C: a page, `POST /predict`, and the Open Inference Protocol under `/v2`.

    Args:
        served: Models by name or id, or their folders. NAME=MODEL serves one as NAME; of several with the same NAME,
            the last is the version that answers, unless --share says otherwise, and each can be asked for by its id.
    """
    from vizsla.serving import supervisor

    if not served:
        raise InvalidInput("Name a model to serve.", remedy="`vizsla model list` shows those that there are.")
    if not 1 <= workers <= supervisor.MAX_WORKERS:
        raise InvalidInput(
            f"{workers} workers cannot be.", where="--workers", remedy=f"Use 1 to {supervisor.MAX_WORKERS}."
        )
    if not 0 <= drain <= supervisor.MAX_DRAIN_S:
        raise InvalidInput(f"{drain:g} s cannot be.", where="--drain", remedy=f"Use 0 to {supervisor.MAX_DRAIN_S}.")
    spec = make(
        ServiceSpec,
        name=title,
        keys=reach.digests(),
        models=specs(served, share, common),
        limits=make(Limits, **options),
        device=device,
        threads=threads,
        links=allow_links,
        origins=reach.origin,
        hosts=("*",) if reach.public else (),
    )
    with tempfile.TemporaryDirectory(prefix="vizsla-service-") as folder, listen(reach.host, reach.port) as listening:
        place = Path(folder) / SERVICE
        files.write_json(place, spec.model_dump(mode="json"))
        plan = supervisor.Plan(place, workers, drain_s=drain, tls_cert=reach.tls_cert, tls_key=reach.tls_key)
        supervisor.run(plan, listening, lambda: _say(spec, reach.url(listening), common))


def _say(spec: ServiceSpec, url: str, common: Common) -> None:
    names = [model.name for model in spec.models]
    if common.json:
        print_json({"url": url, "models": names})
        return
    err.print(f"{safe(', '.join(names))} at [bold]{safe(url)}[/]. Ctrl-C ends it.", soft_wrap=True)


def digests(keys: Path | None) -> list[str]:
    """What is kept of the keys in a file."""
    if keys is None:
        return []
    try:
        lines = [line.strip() for line in keys.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The keys cannot be read: {error}.", where=str(keys)) from None
    if not lines or min(map(len, lines)) < MIN_KEY or not all(map(str.isascii, lines)):
        raise InvalidInput(
            f"A key has {MIN_KEY} characters or more, of ASCII as headers have them, and there is one at least.",
            where=str(keys),
            remedy="Make one: openssl rand -hex 24",
        )
    return [hashlib.sha256(line.encode()).hexdigest() for line in lines]


def specs(served: tuple[str, ...], share: float | None, common: Common) -> list[ModelSpec]:
    """What the arguments name, the versions of a model together."""
    found: dict[str, list[tuple[Card, Path]]] = {}
    for one in served:
        name, _, reference = one.rpartition("=")
        card, folder = _found(reference, common)
        found.setdefault(name or _address(card.name), []).append((card, folder))
    if share is not None and not any(len(versions) > 1 for versions in found.values()):
        raise InvalidInput("There is one version only, which gets every request.", where="--share")
    return [
        make(
            ModelSpec,
            name=name,
            versions=[
                VersionSpec(version=card.id, folder=folder, share=part)
                for (card, folder), part in zip(versions, _shares(len(versions), share), strict=True)
            ],
        )
        for name, versions in found.items()
    ]


def _shares(num_versions: int, last: float | None) -> list[float]:
    """Of the versions of a model: the last one gets its share, the one before it the rest."""
    last = 1.0 if last is None or num_versions == 1 else last
    if not 0 <= last <= 1:
        raise InvalidInput(f"{last:g} is no share.", where="--share", remedy="Use a number from 0 to 1.")
    return [*([0.0] * (num_versions - 2)), 1 - last, last] if num_versions > 1 else [1.0]


def _found(reference: str, common: Common) -> tuple[Card, Path]:
    folder = Path(reference)
    if (folder / CARD).is_file():
        return open_model(folder), folder.absolute()
    with common.open_here(why="It reads the model.") as ws:
        card = models.get(ws, reference)
        return card, ws.folder("model", card.id)


def _address(name: str) -> str:
    """A name that can be a part of an address."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-._")[:60] or "model"
