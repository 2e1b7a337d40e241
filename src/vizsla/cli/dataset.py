"""`vizsla dataset`: build, list, show and delete datasets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from vizsla.api import datasets, jobs
from vizsla.cli.naming import Tagged, add_notes, add_rename, add_tags, say_no_tagged, show_written
from vizsla.cli.opening import place, require_whole
from vizsla.cli.options import SHOWN, Common, Limit, make, with_options
from vizsla.cli.output import facts, next_step, out, print_json, safe, say_more, table
from vizsla.cli.queued import Queued, attend
from vizsla.cli.sending import Uploading, require_server, sent
from vizsla.client.server import Server
from vizsla.datasets.cautions import cautions
from vizsla.datasets.dataset import Dataset
from vizsla.datasets.scan import SPLITS, Split
from vizsla.datasets.spec import UPLOADABLE, DatasetSpec
from vizsla.images.preprocess import parse_size
from vizsla.store.workspace import Workspace

app = App(name="dataset", help="Build, list, show and delete datasets.")

CLASSES_SHOWN = 40
REASONS_SHOWN = 10


@app.command
@with_options(DatasetSpec, skip=("source", "width", "height"))
def create(
    name: str,
    path: Path,
    /,
    *,
    options: dict[str, Any],
    size: Annotated[
        str, Parameter(help="Size of the stored pictures in px: 224, or 320x240 (width x height).")
    ] = "256",
    upload: Uploading = False,
    queued: Queued = Queued(),
    common: Common = Common(),
) -> None:
    """Build a dataset from a folder with one sub-folder a class, or with train/, val/ and test/ folders of those.

    Or from a text list with a line for each picture: its path, a space, and its class.

    Args:
        name: Name of the dataset.
        path: The folder of pictures, a zip or tar archive of it, a text list, or upload:ID.
    """
    width, height = parse_size(size)
    if upload:
        require_server(common)
    else:
        require_whole(common, path, options["val_folder"], options["test_folder"])
    spec = make(DatasetSpec, source=path, width=width, height=height, **options)
    job = queued.spec()
    with common.open() as ws, _sent(ws, spec, common) if upload else nullcontext(spec) as found:
        submit = partial(datasets.submit, ws, name, found, job=job)
        dataset = attend(ws, submit, datasets.finish, queued, common)
    if dataset is None:
        return
    if common.json:
        print_json(dataset)
        return
    show_dataset(dataset)
    next_step(["vizsla", "train", name], "Train a network on it:")


@contextmanager
def _sent(ws: Workspace | Server, spec: DatasetSpec, common: Common) -> Iterator[DatasetSpec]:
    """A spec whose folders of this machine were sent to the server."""
    named = {field: path for field in UPLOADABLE if (path := getattr(spec, field)) is not None}
    with sent(ws, common, *named.values()) as sources:
        yield spec.model_copy(update=dict(zip(named, sources, strict=True)))


@app.command
@with_options(DatasetSpec, skip=("source", "width", "height", "colour", "resize", "interpolation", "encoding"))
def scan(path: Path, /, *, options: dict[str, Any], common: Common = Common()) -> None:
    """Look at a folder, archive or list before a dataset is built from it: its classes, splits and unusable files.

    Args:
        path: The folder of pictures, a zip or tar archive of it, or a text list.
    """
    require_whole(common, path, options["val_folder"], options["test_folder"])
    with common.open() as ws:
        plan = datasets.scan(ws, make(DatasetSpec, source=path, **options))
    if common.json:
        print_json(plan)
        return
    how = "every file was opened" if plan.exact else f"{plan.opened:,} of the files were opened, the rest only named"
    out.print(f"{plan.found:,} files found, of which {plan.rejected:,} will be rejected ({how}).")
    _print_classes(plan.labels, plan.counts)
    _print_reasons(plan.rejected_reasons)
    if plan.problem:
        out.print(f"[yellow]Note:[/] {safe(plan.problem)} {safe(plan.remedy)}", soft_wrap=True)


add_rename(app, "dataset")
add_notes(app, "dataset")
add_tags(app, "dataset")


@app.command(name="list")
def list_(*, limit: Limit = SHOWN, tag: Tagged = (), common: Common = Common()) -> None:
    """List the newest datasets, the newest last."""
    with common.open() as ws:
        found = datasets.list_all(ws, limit=limit, tags=tag)
        coming = 0 if tag else sum(job.kind == "dataset" for job in jobs.live(ws))
    if common.json:
        print_json(found)
    elif not found and tag:
        say_no_tagged("dataset", tag)
    elif not found and not coming:
        out.print("There are no datasets yet.")
        next_step(
            ["vizsla", "dataset", "create", "NAME", "FOLDER"], "Build one from a folder with one sub-folder a class:"
        )
    else:
        rows = [
            (safe(d.name), d.id, len(d.labels), *(f"{_total(d, s):,}" for s in SPLITS), _shape(d), d.created_at[:10])
            for d in found
        ]
        columns = ("name", "id", "classes", *SPLITS, "pictures", "made")
        out.print(table(columns, rows, right=("classes", *SPLITS)))
        say_more(len(found), limit)
        if coming:
            next_step(["vizsla", "jobs", "list"], f"{coming} more {'is' if coming == 1 else 'are'} in the making:")


@app.command
def show(name: str, /, *, common: Common = Common()) -> None:
    """Show a dataset: its classes, splits and what was rejected.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        dataset = datasets.get(ws, name)
        folder = place(ws, "dataset", dataset.id)
        if common.json:
            print_json(dataset)
            return
        show_dataset(dataset)
        show_written(ws, "dataset", dataset.id)
    out.print(f"\n[dim]in[/] {safe(folder)}", soft_wrap=True)


@app.command
def delete(name: str, /, *, common: Common = Common()) -> None:
    """Delete a dataset; refused while runs were made from it. The pictures that it was built from stay.

    Args:
        name: Id, name, or the beginning of one.
    """
    with common.open() as ws:
        entry = datasets.delete(ws, name)
    if common.json:
        print_json({"deleted": entry.id})
    else:
        out.print(f"Deleted the dataset {safe(entry.name)} ({entry.id}).")


def show_dataset(dataset: Dataset) -> None:
    """Print a dataset: counts that reconcile, classes by split, what was rejected, and what to beware of."""
    out.print(f"\n[bold]{safe(dataset.name)}[/]  [dim]{dataset.id}[/]")
    pairs: list[tuple[str, object]] = [
        *(("from" if root == "source" else f"{root} from", safe(o.name)) for root, o in dataset.origins.items()),
        ("pictures", f"{dataset.found:,} found = {dataset.used:,} used + {dataset.rejected:,} rejected"),
        ("stored as", _shape(dataset)),
        ("fingerprint", dataset.fingerprint[:16]),
    ]
    out.print(facts(pairs))
    _print_classes(dataset.labels, dataset.counts)
    _print_reasons(dataset.rejected_reasons)
    for text in cautions(dataset):
        out.print(f"[yellow]Note:[/] {safe(text)}", soft_wrap=True)


def _print_reasons(found: dict[str, int]) -> None:
    reasons = sorted(found.items(), key=lambda item: -item[1])
    if reasons:
        out.print(
            table(("rejected because", "files"), [(safe(r), n) for r, n in reasons[:REASONS_SHOWN]], right=("files",))
        )
    if len(reasons) > REASONS_SHOWN:
        out.print(f"[dim]… and {len(reasons) - REASONS_SHOWN} other reasons: images.parquet has one row a file.[/]")


def _print_classes(labels: list[str], counts: dict[Split, dict[str, int]]) -> None:
    rows: list[tuple[object, ...]] = [
        (safe(label), *(f"{counts.get(split, {}).get(label, 0):,}" for split in SPLITS))
        for label in labels[:CLASSES_SHOWN]
    ]
    if len(labels) > CLASSES_SHOWN:
        rows.append((f"[dim]… {len(labels) - CLASSES_SHOWN:,} more classes[/]", "", "", ""))
    totals = (f"[bold]{sum(counts.get(split, {}).values()):,}[/]" for split in SPLITS)
    rows.append((f"[bold]{len(labels):,} classes[/]", *totals))
    out.print(table(("class", *SPLITS), rows, right=SPLITS))


def _total(dataset: Dataset, split: Split) -> int:
    return sum(dataset.counts.get(split, {}).values())


def _shape(dataset: Dataset) -> str:
    p = dataset.preprocess
    return f"{p.width} x {p.height} px {'grey' if p.channels == 1 else 'colour'}, {p.resize}"
