"""`vizsla service`: models that answer programs and people."""

from __future__ import annotations

import hashlib
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from vizsla import files
from vizsla.api import models, services
from vizsla.cli.naming import add_notes, add_rename, add_tags
from vizsla.cli.options import Common, count, make, with_options
from vizsla.cli.output import err, print_json, safe
from vizsla.cli.serve import check_certificate, listen
from vizsla.errors import InvalidInput, VizslaError
from vizsla.models.card import CARD, open_model
from vizsla.serving import spec
from vizsla.serving.spec import MAX_DRAIN_S, MAX_WORKERS, SERVICE, CaptureSpec, Given, Limits, ModelSpec, ServiceSpec

app = App(name="service", help="Let a model answer programs and people.")
for _verb, _help in (
    ("start", "Start a service that goes on by itself until it is stopped."),
    ("stop", "Stop a service once it has answered what is under way."),
    ("resume", "Start a service again that was stopped, at the same address."),
    ("update", "Have a service serve other models or versions, without a failed request."),
    ("list", "List the newest services, the newest last."),
    ("show", "Show a service: what it serves and where, how it stands, what it has answered."),
    ("captured", "Show how many pictures a service has kept for labelling, or write them as a zip."),
    ("delete", "Delete a service that is stopped; its models stay."),
):
    app.command(f"vizsla.cli.hosted:{'list_' if _verb == 'list' else _verb}", name=_verb, help=_help)
app.command(
    "vizsla.cli.package:package",
    name="package",
    help="Write a folder from which a service is built and run: container, Compose, Swarm, Kubernetes, systemd.",
)

add_rename(app, "service")
add_notes(app, "service")
add_tags(app, "service")

MIN_KEY = 16
CAPTURE = "Pictures that are kept for people to label"


@Parameter(name="*", group="Who may ask")
@dataclass(frozen=True, kw_only=True)
class Audience:
    """Whom it answers."""

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

    def digests(self, *, reached_by: str) -> list[str]:
        """What is kept of the keys; refuses to answer everybody unless that is wanted.

        Args:
            reached_by: what others reach it by; "" where they cannot.
        """
        found = _digests(self.keys)
        if reached_by and not found and not self.public:
            raise InvalidInput(
                f"{reached_by} can be reached from elsewhere, and everybody could ask.",
                where="--keys",
                remedy="Give --keys FILE with a key in each line, or say --public.",
            )
        return found

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names that it answers to where it asks for no key."""
        return ("*",) if self.public else ()


@Parameter(name="*", group="Who may ask")
@dataclass(frozen=True, kw_only=True)
class Reach(Audience):
    """Where it listens, and to whom."""

    host: Annotated[str, Parameter(help="Address to listen on. Others can reach any but loopback.")] = "127.0.0.1"
    port: Annotated[int, Parameter(help="Port to listen on; 0 takes a free one.", converter=count)] = 8000
    tls_cert: Annotated[Path | None, Parameter(show_default=False, help="Certificate (PEM).")] = None
    tls_key: Annotated[Path | None, Parameter(show_default=False, help="The key of the certificate (PEM).")] = None

    def checked(self) -> list[str]:
        """What is kept of the keys; refuses what cannot be, as `digests`."""
        from vizsla.web.guard import LOOPBACK

        check_certificate(self.tls_cert, self.tls_key)
        return self.digests(reached_by="" if self.host in LOOPBACK else self.host)

    def url(self, listening: socket.socket) -> str:
        """Where the page is."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_cert else 'http'}://{shown}:{listening.getsockname()[1]}/"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Manner:
    """How it serves."""

    title: Annotated[str, Parameter(help="What the page is called.")] = "What is this?"
    share: Annotated[
        float | None,
        Parameter(show_default=False, help="Of several versions, the share of requests that the last one gets."),
    ] = None
    threads: Annotated[
        int, Parameter(help="Threads that compute, in each process; 0: one a core.", converter=count)
    ] = 0
    allow_links: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Fetch pictures by links, from the public internet only."),
    ] = False


def _capture(field: str) -> Parameter:
    return Parameter(help=CaptureSpec.model_fields[field].description)


@Parameter(name="*", group=CAPTURE)
@dataclass(frozen=True, kw_only=True)
class Capture:
    """Which pictures are kept."""

    capture_below: Annotated[float, _capture("below")] = 0.0
    capture_sample: Annotated[float, _capture("sample")] = 0.0
    capture_max_days: Annotated[float, _capture("max_days")] = 30.0
    capture_max_mb: Annotated[float, _capture("max_mb")] = 1000.0

    def spec(self) -> CaptureSpec:
        """The same for a service."""
        given = {name: getattr(self, f"capture_{name}") for name in CaptureSpec.model_fields}
        found = make(CaptureSpec, of="capture-", **given)
        if not found.wanted and found != CaptureSpec():
            what = "It would keep no pictures, and bounds them."
            raise InvalidInput(what, where="--capture-below", remedy="Give --capture-below or --capture-sample too.")
        return found


@Parameter(name="*", group=CAPTURE)
@dataclass(frozen=True, kw_only=True)
class CaptureTo(Capture):
    """Which pictures are kept, and where."""

    capture_to: Annotated[Path | None, Parameter(show_default=False, help="Folder to keep them in.")] = None

    def folder(self) -> Path:
        """Where they are kept; refuses to keep them nowhere, or none anywhere."""
        if self.spec().wanted != (self.capture_to is not None):
            raise InvalidInput(
                "Which pictures are kept and where belong together.",
                where="--capture-to",
                remedy="Give a folder, and --capture-below or --capture-sample.",
            )
        return (self.capture_to or Path(spec.CAPTURED)).absolute()


@app.command
@with_options(Limits, groups={"What is gathered, and what is refused": tuple(Limits.model_fields)})
def run(
    *served: Annotated[str, Parameter(name="models")],
    options: dict[str, Any],
    manner: Manner = Manner(),
    workers: Annotated[int, Parameter(help="Processes that answer.", converter=count)] = 1,
    device: Annotated[str, Parameter(help="Where it is computed: cpu or cuda:N.")] = "cpu",
    drain: Annotated[float, Parameter(help="Seconds for which it says that it is not ready before it ends.")] = 0.0,
    capture: CaptureTo = CaptureTo(),
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
    if not 1 <= workers <= MAX_WORKERS:
        raise InvalidInput(f"{workers} workers cannot be.", where="--workers", remedy=f"Use 1 to {MAX_WORKERS}.")
    if not 0 <= drain <= MAX_DRAIN_S:
        raise InvalidInput(f"{drain:g} s cannot be.", where="--drain", remedy=f"Use 0 to {MAX_DRAIN_S}.")
    service = make(
        ServiceSpec,
        name=manner.title,
        capture=capture.spec(),
        captured=capture.folder(),
        keys=reach.checked(),
        models=specs(served, manner.share, common),
        limits=make(Limits, **options),
        device=device,
        threads=manner.threads,
        links=manner.allow_links,
        origins=reach.origin,
        hosts=reach.hosts,
    )
    with tempfile.TemporaryDirectory(prefix="vizsla-service-") as folder, listen(reach.host, reach.port) as listening:
        place = Path(folder) / SERVICE
        files.write_json(place, service.model_dump(mode="json"))
        plan = supervisor.Plan(place, workers, drain_s=drain, tls_cert=reach.tls_cert, tls_key=reach.tls_key)
        told: list[str] = []

        def say(said: supervisor.Said, error: VizslaError | None) -> None:
            if said == "serving" and not told:
                told.append(said)
                _say(service, reach.url(listening), common)

        supervisor.run(plan, listening, say)


def _say(service: ServiceSpec, url: str, common: Common) -> None:
    names = [model.name for model in service.models]
    if common.json:
        print_json({"url": url, "models": names})
        return
    err.print(f"{safe(', '.join(names))} at [bold]{safe(url)}[/]. Ctrl-C ends it.", soft_wrap=True)


def _digests(keys: Path | None) -> list[str]:
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


def specs(served: tuple[str, ...], share: float | None, common: Common) -> tuple[ModelSpec, ...]:
    """What the arguments name, the versions of a model together."""
    return spec.models([_given(one, common) for one in served], share)


def _given(asked: str, common: Common) -> Given:
    for name, reference in (("", asked), spec.named(asked)):
        folder = Path(reference)
        if (folder / CARD).is_file():
            card = open_model(folder)
            return Given(name, card.name, card.id, folder.absolute())
    with common.open_here(why="It reads the model.") as ws:
        name, entry = services.named(ws, asked)
        card = models.get(ws, entry.id)
        return Given(name, card.name, card.id, ws.folder("model", card.id))
