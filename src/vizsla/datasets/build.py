"""Build a dataset: scan, decode into the store, divide, measure, and last write what makes it one."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from vizsla import files
from vizsla.datasets import rows as images_file
from vizsla.datasets.dataset import Dataset, Labelled, fingerprint, version
from vizsla.datasets.read import Progress, choose_preprocess, raw_bytes, read_all
from vizsla.datasets.rows import Row
from vizsla.datasets.scan import SPLITS, Given, Scan, Split, scan
from vizsla.datasets.sources import UNPACKED, opened
from vizsla.datasets.spec import DatasetSpec, Encoding
from vizsla.datasets.split import Item, divide
from vizsla.datasets.stats import PixelMoments, describe, pixel_moments
from vizsla.datasets.store import PixelStore, PixelWriter, choose_encoding
from vizsla.errors import Conflict, InvalidInput
from vizsla.images.preprocess import Preprocess


def build(
    spec: DatasetSpec,
    folder: Path,
    *,
    id: str,
    name: str,
    progress: Progress,
    uploads: Path | None = None,
    allowed: Sequence[Path] | None = None,
) -> Dataset:
    """Build the dataset that `spec` asks for in `folder`. `dataset.json` is written last; on an error there is none.

    Args:
        progress: called as `progress(stage, done, total)` with the stages unpack, scan, read and measure, in this
            thread; it may raise to stop the work.
        uploads: the folder in which uploads lie, for sources that name one.
        allowed: see `lists.read_lines`.

    Raises:
        InvalidInput: the folders, the classes or the pictures cannot make a dataset.
        DiskFull: there is not enough room.
        Conflict: there is a dataset in `folder`.
    """
    _require_apart(spec, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with opened(spec, folder / UNPACKED, progress, uploads=uploads) as sources:
        progress("scan", 0, 0)
        found = scan(sources.spec, allowed=allowed)
        progress("scan", len(found.files), len(found.files))
        preprocess = choose_preprocess(sources.spec, found)
        filled = _fill_store(sources.spec, found, preprocess, folder, progress)
    kept = without_small_classes(spec, found.labels, filled.rows)
    rows = divided(spec, found.given, kept.rows)
    used = [row for row in rows if row.reason is None]
    train = [row.index for row in used if row.split == "train" and row.index is not None]
    moments = pixel_moments(PixelStore.open(folder / "pixels"), train, progress)
    _write_mean(folder, moments)
    images_file.write(folder / "images.parquet", rows)
    reasons = Counter(row.reason for row in rows if row.reason is not None)
    dataset = Dataset(
        id=id,
        name=name,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        spec=spec,
        origins=sources.origins,
        preprocess=preprocess,
        encoding=filled.encoding,
        labels=kept.labels,
        counts=counts(kept.labels, used),
        found=len(rows),
        used=len(used),
        rejected=len(rows) - len(used),
        rejected_reasons=dict(reasons.most_common()),
        fingerprint=fingerprint(preprocess, filled.encoding, _labelled(used)),
        statistics=describe(used, moments, disk_bytes=_disk_bytes(folder)),
        vizsla_version=version(),
    )
    files.write_json(folder / "dataset.json", dataset.model_dump(mode="json"))
    return dataset


def _require_apart(spec: DatasetSpec, folder: Path) -> None:
    if (folder / "dataset.json").exists():
        raise Conflict("There is a dataset here already.", where=str(folder), remedy="Build into a new folder.")
    for root in (spec.source, spec.val_folder, spec.test_folder):
        if root is not None and folder.resolve().is_relative_to(root.resolve()):
            raise InvalidInput(
                "The dataset would be written into the folder of its own pictures.",
                where=str(root),
                remedy="Use a workspace elsewhere, with --workspace.",
            )


class _Filled(NamedTuple):
    rows: list[Row]
    encoding: Encoding


def _fill_store(spec: DatasetSpec, found: Scan, preprocess: Preprocess, folder: Path, progress: Progress) -> _Filled:
    num_bytes = raw_bytes(spec, found, preprocess)
    encoding = choose_encoding(spec.encoding, num_bytes)
    if encoding == "raw":
        files.require_space(folder, num_bytes)
    with PixelWriter(
        folder / "pixels",
        height=preprocess.height,
        width=preprocess.width,
        channels=preprocess.channels,
        encoding=encoding,
    ) as writer:
        rows = read_all(spec, found, preprocess, writer, progress)
    if writer.count == 0:
        raise _none_usable(spec, rows)
    return _Filled(rows, encoding)


def _none_usable(spec: DatasetSpec, rows: list[Row]) -> InvalidInput:
    first = [f"  {row.path}: {row.reason}" for row in rows[:5]]
    return InvalidInput(
        f"None of the {len(rows)} files is a picture that can be used.",
        where=str(spec.source),
        remedy="\n".join(["The first of them:", *first, "Formats: JPEG, PNG, BMP, PPM, GIF, TIFF and WebP."]),
    )


class Kept(NamedTuple):
    """The classes that are left, and all rows."""

    labels: list[str]
    rows: list[Row]


def without_small_classes(spec: DatasetSpec, labels: list[str], rows: list[Row]) -> Kept:
    """Hold the classes against `min_per_class`, to which the pictures of val and test folders do not count."""
    if rows and all(row.reason is not None for row in rows):
        raise _none_usable(spec, rows)
    usable = Counter(row.label for row in rows if row.reason is None and row.split is None)
    small = [label for label in labels if usable[label] < spec.min_per_class]
    if small and spec.small_classes == "error":
        named = ", ".join(f"{label!r} has {usable[label]}" for label in small[:10])
        more = f" and {len(small) - 10} classes more have too few" if len(small) > 10 else ""
        raise InvalidInput(
            f"Each class needs {spec.min_per_class} usable pictures to train with: {named}{more}.",
            where=str(spec.source),
            remedy="Add pictures, or have small classes dropped (--small-classes drop).",
        )
    left = [label for label in labels if label not in small]
    if len(left) < 2:
        raise InvalidInput(
            f"Fewer than two classes have {spec.min_per_class} usable pictures to train with: {len(left)} of "
            f"{len(labels)} {'is' if len(left) == 1 else 'are'} left.",
            where=str(spec.source),
            remedy="Add pictures, or ask for fewer pictures a class (--min-per-class).",
        )
    reason = f"class dropped: fewer than {spec.min_per_class} usable pictures"
    dropped = set(small)
    kept = [row.rejected(reason) if row.reason is None and row.label in dropped else row for row in rows]
    return Kept(left, kept)


def divided(spec: DatasetSpec, given: frozenset[Given], rows: list[Row]) -> list[Row]:
    """The rows with their final splits: none for a rejected file."""
    rest = [row for row in rows if row.reason is None and row.split is None]
    splits = divide(
        [Item(str(row.label), row.path, str(row.sha256)) for row in rest],
        val_percent=0.0 if "val" in given else spec.val_percent,
        test_percent=0.0 if "test" in given else spec.test_percent,
        seed=spec.seed,
    )
    drawn = iter(splits)
    final: list[Row] = []
    for row in rows:
        split: Split | None = None if row.reason is not None else row.split or next(drawn)
        final.append(dataclasses.replace(row, split=split))
    return final


def _labelled(used: list[Row]) -> list[Labelled]:
    return [Labelled(str(row.label), row.split or "train", str(row.sha256)) for row in used]


def counts(labels: list[str], used: list[Row]) -> dict[Split, dict[str, int]]:
    """Pictures by split and label, zeros included."""
    pictures = Counter((row.split, row.label) for row in used)
    return {split: {label: pictures[split, label] for label in labels} for split in SPLITS}


def _write_mean(folder: Path, moments: PixelMoments) -> None:
    with files.atomic(folder / "mean.npy") as temporary, temporary.open("wb") as file:
        np.save(file, moments.picture)
    pixels = moments.picture.round().astype(np.uint8)
    with files.atomic(folder / "mean.png") as temporary:
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(temporary, "PNG")


def _disk_bytes(folder: Path) -> int:
    own = [folder / "images.parquet", folder / "mean.npy", folder / "mean.png", *(folder / "pixels").iterdir()]
    return sum(path.stat().st_size for path in own)
