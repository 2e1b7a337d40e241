"""Verbs on services: models that answer programs and people, for as long as they are wanted."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from vizsla import events, files, work
from vizsla.api import jobs, workspace
from vizsla.api.served import served
from vizsla.client.server import Server
from vizsla.errors import Busy, Conflict, InvalidInput, NotFound, VizslaError, from_dict
from vizsla.events import Event, ignore_event
from vizsla.jobs import queue
from vizsla.jobs.schedule import NOTHING, Need
from vizsla.jobs.spec import ServiceJobSpec
from vizsla.jobs.waiting import until_running
from vizsla.models import archive
from vizsla.models.card import open_model
from vizsla.serving import capture, hosting, spec
from vizsla.serving.capture import Captured
from vizsla.serving.hosting import HOSTING, LOOPBACK, Hosted, Hosting, HostingSpec, Standing
from vizsla.serving.spec import Given, ModelSpec, ServiceSpec
from vizsla.store.rows import Entry, Job
from vizsla.store.workspace import Workspace

POLL_S = 0.1
READY_S, CHANGED_S, BACK_S = 600.0, 50.0, 10.0
"""how long a service may take until it answers, until it has gone over to other models, and until it is back"""


def start(
    ws: Workspace | Server, wanted: HostingSpec, *, name: str | None = None, job: ServiceJobSpec = ServiceJobSpec()
) -> Hosted:
    """Start a service, and wait until it answers; it goes on by itself until it is stopped.

    Raises:
        NotFound: there is no such model.
        InvalidInput: everybody could ask it, and that was not said to be wanted.
        Conflict: its port cannot be had.
        Unavailable: the machine has no such device.
    """
    return ready(ws, submit(ws, wanted, name=name, job=job))


@served
def submit(
    ws: Workspace, wanted: HostingSpec, *, name: str | None = None, job: ServiceJobSpec = ServiceJobSpec()
) -> Job:
    """Put a service into the queue, as `start` does, and return at once."""
    _check_reach(wanted)
    _check_port(wanted.host, wanted.port)
    models, names = _found(ws, wanted.models, wanted.share)
    service = ServiceSpec(
        name=wanted.title,
        models=models,
        limits=wanted.limits,
        device=wanted.device,
        threads=wanted.threads,
        keys=wanted.keys,
        links=wanted.links,
        capture=wanted.capture,
        origins=wanted.origins,
        hosts=("*",) if wanted.public else (),
    )
    name = name or _free_name(ws, models[0].name)
    with workspace.claim(ws, "service", name, parents=list(names)) as claim:
        found = Hosting(
            id=claim.entry.id,
            name=name,
            created_at=claim.entry.created_at,
            service=service,
            model_names=names,
            host=wanted.host,
            port=wanted.port,
            workers=wanted.workers,
            drain_s=wanted.drain_s,
            tls_cert=wanted.tls_cert,
            tls_key=wanted.tls_key,
        )
        queue.require_possible(ws, _need(service, job))
        files.write_json(claim.folder / HOSTING, found.model_dump(mode="json"))
        return queue.submit(ws, claim.entry, _need(service, job), job)


def resume(ws: Workspace | Server, reference: str, *, job: ServiceJobSpec = ServiceJobSpec()) -> Hosted:
    """Start a service again that was stopped, or has failed, and wait until it answers, at the same address.

    Raises:
        NotFound: there is no such service.
        Conflict: it is at work.
    """
    return ready(ws, submit_resume(ws, reference, job=job))


@served
def submit_resume(ws: Workspace, reference: str, *, job: ServiceJobSpec = ServiceJobSpec()) -> Job:
    """Put a service into the queue again, as `resume` does, and return at once."""
    queue.turn(ws)
    entry = workspace.to_change(ws, "service", reference)
    folder = ws.folder("service", entry.id)
    found = hosting.read(folder)
    live = ws.store.jobs.live_of(entry.id)
    if live is not None:
        raise Conflict(f"The service {entry.name!r} is {live.state}.", remedy="Stop it first.")
    _check_port(found.host, found.port)
    with _changing(folder):
        return queue.submit(ws, entry, _need(found.service, job), job)


@served
def ready(ws: Workspace, job: Job, on_event: Callable[[Event], None] = ignore_event) -> Hosted:
    """Wait until a service answers that was put into the queue, and leave it to itself.

    Raises:
        VizslaError: why it does not.
    """

    def look() -> Job:
        queue.turn(ws)
        return ws.store.jobs.get(job.id)

    until_running(look, on_event, pause_s=POLL_S, patience_s=READY_S)
    found = hosting.open_hosted(ws.folder("service", job.thing))
    if found.error is not None:
        raise from_dict(found.error)
    jobs.leave(ws)
    return found


@served
def update(ws: Workspace, reference: str, models: Sequence[str], *, share: float | None = None) -> Hosted:
    """Have a service serve other models or versions, without a failed request; returns when it does.

    Args:
        models, share: as for `HostingSpec`. All that is served from now on, with what is to stay.

    Raises:
        NotFound: there is no such service, or no such model.
        VizslaError: why it serves still what it served.
    """
    entry = workspace.to_change(ws, "service", reference)
    folder = ws.folder("service", entry.id)
    found, names = _found(ws, models, share)
    with _changing(folder):
        before = hosting.read(folder)
        service = before.service.model_copy(update={"models": found})
        stands = hosting.standing(folder)
        job = ws.store.jobs.live_of(entry.id)
        if job is not None and stands.state != "running":
            raise Conflict(
                f"The service {entry.name!r} is {stands.state}.", remedy="Try again in a moment, or stop it first."
            )
        ws.store.found_on(entry.id, list(names))
        if job is not None:
            _go_over(ws, job, stands, before.service, service)
        # Not before it is served: should this process be killed meanwhile, what it was is what it will be.
        wanted = before.model_copy(update={"service": service, "model_names": before.model_names | names})
        files.write_json(folder / HOSTING, wanted.model_dump(mode="json"))
    return hosting.open_hosted(folder)


@contextlib.contextmanager
def _changing(folder: Path) -> Iterator[None]:
    """Around what changes what a service serves: one at a time does."""
    place = folder / "changing"
    place.mkdir(exist_ok=True)
    lock = files.Lock(place)
    try:
        lock.acquire(patience_s=1.0)
    except Conflict:
        raise Conflict("The service goes over to something else already.", remedy="Try again in a moment.") from None
    try:
        yield
    finally:
        lock.release()


def _go_over(ws: Workspace, job: Job, stands: Standing, before: ServiceSpec, wanted: ServiceSpec) -> None:
    """Have what answers serve something else, or go on with what it served."""
    try:
        _tell(ws, job, wanted)
        refused = _answer(ws, job, stands, CHANGED_S)
    except BaseException:
        _tell(ws, job, before)
        with contextlib.suppress(VizslaError):
            place = events.end(ws.folder(job.kind, job.thing) / work.EVENTS)
            _answer(ws, job, stands._replace(place=place), BACK_S)  # or the next one would hear it
        raise
    if refused is not None:
        _write(ws, job, before)
        raise refused


def _tell(ws: Workspace, job: Job, service: ServiceSpec) -> None:
    _write(ws, job, service)
    queue.signal_worker(ws, job, signal.SIGHUP)


def _write(ws: Workspace, job: Job, service: ServiceSpec) -> None:
    files.write_json(ws.folder(job.kind, job.thing) / spec.SERVICE, queue.located(ws, service).model_dump(mode="json"))


def _answer(ws: Workspace, job: Job, stands: Standing, patience_s: float) -> VizslaError | None:
    """Wait until a service says that it has gone over, or why it has not."""
    folder = ws.folder(job.kind, job.thing)
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        for event in events.read(folder / work.EVENTS, stands.place)[0]:
            if event["event"] in (hosting.CHANGED, hosting.REFUSED):
                return from_dict(event["error"]) if "error" in event else None
        if files.lock_holder(folder) != stands.worker:
            raise Conflict(f"The service {job.name!r} ended meanwhile.", remedy="It is started again: try then.")
        time.sleep(POLL_S)
    raise Busy(
        f"It did not go over within {patience_s:.0f} s.", remedy="It serves what it served; its log may say why."
    )


@served
def get(ws: Workspace, reference: str) -> Hosted:
    """The service of this id, name or beginning of one, and how it stands."""
    return hosting.open_hosted(workspace.finished(ws, "service", reference))


@served
def captured(ws: Workspace, reference: str) -> Captured:
    """The pictures that a service has kept for people to label, counted by class."""
    folder = workspace.finished(ws, "service", reference)
    service = hosting.read(folder).service
    return capture.captured(folder / service.captured, service.capture)


def captured_pieces(ws: Workspace, reference: str, model: str | None = None) -> Iterator[bytes]:
    """The pictures that a service has kept, as a zip with a folder a class, piece by piece.

    Args:
        model: as which it is served; by default the only one of which there are pictures.

    Raises:
        NotFound: there are none, or none of this model.
        InvalidInput: there are pictures of several models, and none was named.
    """
    folder = workspace.finished(ws, "service", reference)
    found: dict[str, list[Path]] = {}
    for path in capture.pictures(folder / hosting.read(folder).service.captured):
        found.setdefault(path.parents[2].name, []).append(path)
    if model is None and len(found) > 1:
        remedy = f"Name one (--model): {', '.join(found)}."
        raise InvalidInput("There are pictures of several models.", where="model", remedy=remedy)
    paths = found.get(model, []) if model is not None else next(iter(found.values()), [])
    if model is not None and found and not paths:
        raise NotFound(f"No pictures of {model!r} were kept.", where="model", remedy=f"There are: {', '.join(found)}.")
    if not paths:
        raise NotFound("No pictures were kept.", where="model", remedy="`vizsla service captured` shows what there is.")
    return archive.zip_pieces(_opened(paths), datetime.now(UTC))


def _opened(paths: Sequence[Path]) -> Iterator[tuple[str, IO[bytes]]]:
    for path in paths:
        try:
            file = path.open("rb")
        except OSError:  # it was kept for long enough, or moved, or is not for this account
            continue
        yield f"{path.parent.name}/{path.name}", file


def pack_captured(ws: Workspace, reference: str, out: Path, model: str | None = None) -> Path:
    """Write the pictures that a service has kept as a zip, of which a dataset can be made.

    Raises:
        NotFound, InvalidInput: as `captured_pieces`.
        Conflict: there is such a file.
    """
    if archive.format_of(out) != "zip":
        raise InvalidInput("It is written as a zip.", where=str(out), remedy="Let the name end with .zip.")
    return archive.write(captured_pieces(ws, reference, model), out)


@served
def list_all(ws: Workspace, *, limit: int | None = None, tags: Sequence[str] = ()) -> list[Hosted]:
    """All services, or the newest `limit`, oldest first; with `tags` only those with all these."""
    return workspace.readable(ws, "service", hosting.open_hosted, limit, tags=tags)


@served
def delete(ws: Workspace, reference: str, *, with_pictures: bool = False) -> Entry:
    """Delete a service that is stopped; its models stay.

    Args:
        with_pictures: also where it has kept pictures for people to label, which are deleted with it.

    Raises:
        Conflict: it is at work, or has kept pictures.
    """
    entry = workspace.to_change(ws, "service", reference)
    num = sum(1 for _ in capture.pictures(ws.folder("service", entry.id) / spec.CAPTURED))
    if num and not with_pictures:
        kept = f"{num:,} picture{'' if num == 1 else 's'}"
        raise Conflict(
            f"The service {entry.name!r} has kept {kept}, which would be deleted with it.",
            remedy="Take them first (vizsla service captured), or say that they go with it (--with-pictures).",
        )
    return workspace.delete(ws, "service", entry.id)


def _free_name(ws: Workspace, model: str) -> str:
    """A service is usually called as what it serves."""
    taken = any(one.name == model for one in ws.store.all("service"))
    return ws.store.free_name("service", model) if taken else model


def named(ws: Workspace, asked: str) -> tuple[str, Entry]:
    """What a model is to be served as, "" for its own name, and the model: names may hold an equals sign too."""
    with contextlib.suppress(NotFound):
        return "", ws.store.exact(asked, "model")
    name, reference = spec.named(asked)
    return name, ws.store.find(reference, "model")


def _need(service: ServiceSpec, job: ServiceJobSpec) -> Need:
    return NOTHING if service.device == "cpu" else Need((service.device,), 1, job.gpu_memory)


def _check_reach(wanted: HostingSpec) -> None:
    """Refuse to answer everybody on a network unless that is wanted."""
    if wanted.host not in LOOPBACK and not wanted.keys and not wanted.public:
        raise InvalidInput(
            f"{wanted.host} can be reached from elsewhere, and everybody could ask.",
            where="host",
            remedy="Give keys, one of which requests must show, or say that it is public.",
        )
    if (wanted.tls_cert is None) != (wanted.tls_key is None):
        raise InvalidInput("A certificate and its key belong together.", where="tls_cert", remedy="Give both.")


def _check_port(host: str, port: int) -> None:
    """Refuse a port that cannot be had, before there is a service that could only fail."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except (OSError, ValueError, TypeError, OverflowError) as error:
        number = error.errno if isinstance(error, OSError) else None
        why = os.strerror(number) if number is not None and number > 0 else str(error)
        raise Conflict(
            f"Port {port} of {host} cannot be had: {why}.",
            where="port",
            remedy="See what has it, or choose another; 0 takes a free one.",
        ) from None


def _found(ws: Workspace, models: Sequence[str], share: float | None) -> tuple[tuple[ModelSpec, ...], dict[str, str]]:
    """What is to be served, and the names of these models by their ids."""
    if not models:
        raise InvalidInput(
            "Name a model to serve.", where="models", remedy="`vizsla model list` shows those that there are."
        )
    given = []
    for one in models:
        name, entry = named(ws, one)
        folder = ws.folder("model", entry.id)
        open_model(folder)  # one that is not finished says so
        given.append(Given(name, entry.name, entry.id, folder))
    return spec.models(given, share), {one.id: one.title for one in given}
