"""`vizsla service start` and what follows: services of a workspace, which go on by themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from vizsla.api import jobs, models, services, things
from vizsla.cli.naming import Tagged, say_no_tagged, show_written
from vizsla.cli.options import SHOWN, Common, Limit, count, make, with_options
from vizsla.cli.output import err, facts, next_step, out, print_error, print_json, safe, say_more, state, table
from vizsla.cli.queued import Queued, as_json, attend
from vizsla.cli.service import Capture, Manner, Reach
from vizsla.client.server import Server
from vizsla.errors import Conflict, InvalidInput
from vizsla.events import Event
from vizsla.jobs.spec import ServiceJobSpec
from vizsla.serving.capture import Captured
from vizsla.serving.hosting import Hosted, HostingSpec
from vizsla.serving.spec import CaptureSpec, Limits, named
from vizsla.store.rows import Job
from vizsla.store.workspace import Workspace
from vizsla.words import num_bytes

RUN = "run:"
"""before the name of a run, as in `--weights`"""

Retries = Annotated[
    int, Parameter(group="Queue", help=ServiceJobSpec.model_fields["retries"].description, converter=count)
]
GpuMemory = Annotated[
    float | None,
    Parameter(
        group="Queue", show_default=False, help="GB of the GPU that it needs; others may use the rest. Default: all."
    ),
]


@with_options(Limits, groups={"What is gathered, and what is refused": tuple(Limits.model_fields)})
def start(
    *served: Annotated[str, Parameter(name="models")],
    options: dict[str, Any],
    name: Annotated[str | None, Parameter(help="Name of the service. Default: made of the first model's.")] = None,
    manner: Manner = Manner(),
    workers: Annotated[int, Parameter(help="Processes that answer.", converter=count)] = 1,
    device: Annotated[str, Parameter(help="Where it is computed: cpu or cuda:N.")] = "cpu",
    drain: Annotated[float, Parameter(help="Seconds for which it says that it is not ready before it ends.")] = 0.0,
    capture: Capture = Capture(),
    reach: Reach = Reach(),
    retries: Retries = ServiceJobSpec().retries,
    gpu_memory: GpuMemory = None,
    common: Common = Common(),
) -> None:
    """Start a service that goes on by itself until it is stopped, and is started again should it die.

    Args:
        served: Models by name or id, or run:NAME, of whose best checkpoint a model is made if there is none.
            NAME=MODEL serves one as NAME; of several with the same NAME, the last is the version that answers, unless
            --share says otherwise, and each can be asked for by its id.
    """
    wanted = make(
        HostingSpec,
        models=served,
        share=manner.share,
        title=manner.title,
        host=reach.host,
        port=reach.port,
        workers=workers,
        device=device,
        threads=manner.threads,
        drain_s=drain,
        links=manner.allow_links,
        capture=capture.spec(),
        origins=reach.origin,
        keys=reach.checked(),
        public=reach.public,
        tls_cert=reach.tls_cert.absolute() if reach.tls_cert else None,
        tls_key=reach.tls_key.absolute() if reach.tls_key else None,
        limits=make(Limits, **options),
    )
    spec = make(ServiceJobSpec, retries=retries, gpu_memory=gpu_memory)
    with common.open() as ws:
        wanted = wanted.model_copy(update={"models": tuple(_as_model(ws, one, common) for one in served)})
        _await_answer(ws, lambda: services.submit(ws, wanted, name=name, job=spec), common)


def _as_model(ws: Workspace | Server, asked: str, common: Common) -> str:
    """What is to be served, with a model in place of a run: the newest of it, or a new one."""
    name, reference = named(asked)
    if not reference.startswith(RUN):
        return asked
    run = things.find(ws, reference.removeprefix(RUN), "run")
    card = next((card for card in reversed(models.list_all(ws)) if card.run.id == run.id), None)
    if card is None:
        submit = partial(models.submit, ws, run.id)
        card = attend(ws, submit, models.finish, Queued(), common)
        assert card is not None, "it was not asked to be left"
    return f"{name}={card.id}" if name else card.id


def resume(
    name: str,
    /,
    *,
    retries: Retries = ServiceJobSpec().retries,
    gpu_memory: GpuMemory = None,
    common: Common = Common(),
) -> None:
    """Start a service again that was stopped or has failed; it comes back at the same address.

    Args:
        name: Id, name, or the beginning of one.
    """
    spec = make(ServiceJobSpec, retries=retries, gpu_memory=gpu_memory)
    with common.open() as ws:
        _await_answer(ws, lambda: services.submit_resume(ws, name, job=spec), common)


def _await_answer(ws: Workspace | Server, submit: Callable[[], Job], common: Common) -> None:
    job = submit()
    try:
        found = services.ready(ws, job, _tell)
    except KeyboardInterrupt:
        jobs.stop(ws, job.id)
        raise
    if common.json:
        print_json(found)
        return
    names = safe(", ".join(model.name for model in found.models))
    out.print(f"The service [bold]{safe(found.name)}[/] answers with {names} at [bold]{safe(found.url)}[/].")
    next_step(["vizsla", "service", "stop", found.name], "It goes on by itself. To stop it:")


def _tell(event: Event) -> None:
    err.print(f"It {safe(event['text'])}.", soft_wrap=True)


def stop(
    name: str,
    /,
    *,
    at_once: Annotated[
        bool, Parameter(negative="", show_default=False, help="Without answering what is under way.")
    ] = False,
    common: Common = Common(),
) -> None:
    """Stop a service: it answers what is under way, and ends.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        found = services.get(ws, name)
        job = jobs.live_of(ws, found.id)
        if job is None:
            raise Conflict(f"The service {found.name!r} is not at work: it is {found.state}.")
        asked = jobs.stop(ws, job.id, at_once=at_once)
        jobs.leave(ws)
    if common.json:
        print_json(as_json(asked))
    else:
        # Who looks after the queue may tell it so a moment later.
        out.print(f"The service {safe(found.name)} is {'stopping' if asked.live else asked.state}.")


def update(
    name: str,
    /,
    *served: Annotated[str, Parameter(name="models")],
    share: Annotated[
        float | None,
        Parameter(show_default=False, help="Of several versions, the share of requests that the last one gets."),
    ] = None,
    common: Common = Common(),
) -> None:
    """Have a service serve other models or versions, without a failed request.

    To try a new version on a tenth of the requests, name the old one and the new one as versions of one model, with
    --share 0.1; to go back, name the old one alone.

    Args:
        name: Id or name of the service, or the beginning of one.
        served: All models that it serves from now on, as `vizsla service start` takes them.
    """
    with common.open() as ws:
        found = services.update(ws, name, served, share=share)
    if common.json:
        print_json(found)
    else:
        show_service(found)


def list_(*, limit: Limit = SHOWN, tag: Tagged = (), common: Common = Common()) -> None:
    """List the newest services, the newest last."""
    with common.open() as ws:
        found = services.list_all(ws, limit=limit, tags=tag)
    if common.json:
        print_json(found)
    elif not found and tag:
        say_no_tagged("service", tag)
    elif not found:
        out.print("There are no services yet.")
        next_step(["vizsla", "service", "start", "MODEL"], "Let a model answer:")
    else:
        rows = [
            (safe(one.name), one.id, state(one.state), safe(", ".join(m.name for m in one.models)), _lately(one),
             safe(one.url or "")) for one in found
        ]  # fmt: skip
        out.print(table(("name", "id", "state", "models", "lately", "at"), rows))
        say_more(len(found), limit)


def show(name: str, /, *, common: Common = Common()) -> None:
    """Show a service: what it serves and where, how it stands, and what it has answered.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        found = services.get(ws, name)
        if common.json:
            print_json(found)
            return
        show_service(found)
        show_written(ws, "service", found.id)


def captured(
    name: str,
    /,
    *,
    out_file: Annotated[
        Path | None, Parameter(name="--out", show_default=False, help="Zip to write, with a folder a class.")
    ] = None,
    model: Annotated[
        str | None, Parameter(show_default=False, help="As which it is served, where several are.")
    ] = None,
    common: Common = Common(),
) -> None:
    """Show how many pictures a service has kept for people to label, or write them as a zip.

    They lie in a folder for each class that they were taken for. Move what is in the wrong one, then make a dataset
    of it.

    Args:
        name: Id, name, or the beginning of one.
    """
    if out_file is None and model is not None:
        raise InvalidInput("A model is named for a zip.", where="--model", remedy="Give --out FILE.zip too.")
    if out_file is None:
        with common.open() as ws:
            show_captured(services.captured(ws, name), name, common)
        return
    with common.open_here(why="It writes a file here.") as ws:
        path = services.pack_captured(ws, name, out_file, model)
    if common.json:
        print_json({"archive": str(path), "bytes": path.stat().st_size})
    else:
        out.print(f"Wrote {safe(path)}, {num_bytes(path.stat().st_size)}.", soft_wrap=True)


def show_captured(found: Captured, name: str, common: Common) -> None:
    """Print what a service has kept."""
    if common.json:
        print_json(found)
        return
    if not found.rules.wanted:
        out.print("It keeps no pictures. `vizsla service start --capture-below 0.5` would keep those it is unsure of.")
        return
    num = found.num_pictures
    what = f"{num:,} picture{'' if num == 1 else 's'}, {num_bytes(found.num_bytes)}"
    out.print(f"{what}, in {safe(found.folder)}", soft_wrap=True)
    if found.classes:
        rows = [(safe(one.model), safe(one.label), f"{one.num_pictures:,}") for one in found.classes]
        out.print(table(("model", "taken for", "pictures"), rows, right=("pictures",)))
        next_step(["vizsla", "service", "captured", name, "--out", "captured.zip"], "To label them elsewhere:")


def delete(
    name: str,
    /,
    *,
    with_pictures: Annotated[
        bool, Parameter(negative="", show_default=False, help="Also where it has kept pictures for people to label.")
    ] = False,
    common: Common = Common(),
) -> None:
    """Delete a service that is stopped; its models stay.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        entry = services.delete(ws, name, with_pictures=with_pictures)
    if common.json:
        print_json({"deleted": entry.id})
    else:
        out.print(f"Deleted the service {safe(entry.name)} ({entry.id}).")


def show_service(found: Hosted) -> None:
    """Print what a service serves, and how it stands."""
    out.print(f"\n[bold]{safe(found.name)}[/]  [dim]{found.id}[/]  {state(found.state)}")
    pairs: list[tuple[str, object]] = [("answers at", safe(found.url))] if found.url else []
    pairs += [
        ("listens on", f"{safe(found.host)}, port {found.port or '(a free one)'}"),
        ("who may ask", f"who shows one of {found.num_keys} keys" if found.num_keys else "everybody who reaches it"),
        ("computes on", f"{found.device}, in {found.workers} process{'es' if found.workers > 1 else ''}"),
    ]
    if found.capture.wanted:
        pairs.append(("keeps", keeps(found.capture)))
    if found.figures:
        pairs += [("since it began", _since(found)), ("lately", _lately(found))]
    out.print(facts(pairs))
    asked = {(one.model, one.version): one.requests for one in found.figures.versions} if found.figures else {}
    rows = [
        (
            safe(model.name),
            safe(one.name),
            one.version,
            f"{100 * one.share:g} %",
            asked.get((model.name, one.version), 0),
        )
        for model in found.models
        for one in model.versions
    ]
    out.print(table(("model", "version", "id", "share", "requests"), rows, right=("share", "requests")))
    if found.error:
        print_error(found.error)


def keeps(rules: CaptureSpec) -> str:
    """Which pictures a service keeps, in words."""
    return f"{rules.which}, for {rules.max_days:g} days and up to {rules.max_mb:g} MB"


def _since(found: Hosted) -> str:
    assert found.figures is not None
    return f"{found.figures.requests:,} requests, {found.figures.failed:,} of them failed"


def _lately(found: Hosted) -> str:
    """What was answered in the last minute."""
    if (lately := found.figures) is None:
        return ""
    took = f", half within {lately.p50_ms:g} ms, 95 % within {lately.p95_ms:g} ms" if lately.p50_ms is not None else ""
    return f"{lately.per_s:.1f} requests/s in {lately.seconds:.0f} s{took}"
