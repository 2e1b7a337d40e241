"""Where the pictures of a dataset come from: folders, archives and uploads, as folders for as long as they are read."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vizsla import files
from vizsla.datasets import archive, lists, upload
from vizsla.datasets.dataset import Origin
from vizsla.datasets.read import Progress
from vizsla.datasets.scan import Root, require_folder
from vizsla.datasets.spec import DatasetSpec, upload_id
from vizsla.errors import InvalidInput, VizslaError

UNPACKED = "unpacked"
_FIELDS: dict[Root, str] = {"source": "source", "val": "val_folder", "test": "test_folder"}


class Sources(NamedTuple):
    """The sources as folders, and of those that were none, what they were."""

    spec: DatasetSpec
    origins: dict[Root, Origin]


def named_uploads(spec: DatasetSpec) -> list[str]:
    """The ids of the uploads that a spec names."""
    return [id for path in _paths(spec).values() if (id := upload_id(path)) is not None]


def require(spec: DatasetSpec) -> None:
    """Raise `InvalidInput` when a source is missing, is not to be read, or is a file that is no archive.

    Looks no further, and not at uploads.
    """
    for path in _paths(spec).values():
        if upload_id(path) is None:
            _require(path)
    _require_for_lists(spec)


def _require(path: Path) -> None:
    try:
        is_archive = path.is_file() and archive.kind_of(path) is not None
        is_folder = not path.is_file()
    except OSError as error:
        raise InvalidInput(
            f"The file cannot be read: {error.strerror}.",
            where=str(path),
            remedy="Give the account that runs Vizsla permission to read it.",
        ) from None
    if is_folder:
        require_folder(path)
    elif not is_archive and path.name.lower().endswith(archive.INNER):
        raise InvalidInput(
            "This is a file, and neither a folder nor an archive.",
            where=str(path),
            remedy=f"Give a folder with one sub-folder of pictures a class, or an archive of it. {archive.FORMATS}",
        )
    elif not is_archive:
        lists.require(path)


def _require_for_lists(spec: DatasetSpec) -> None:
    for field in ("labels_file", "picture_folder"):
        if getattr(spec, field) is not None and not any(map(_is_list, _paths(spec).values())):
            raise InvalidInput(
                "This is of use only where pictures are named by a text list.", where=field, remedy="Leave it out."
            )
    if spec.picture_folder is not None:
        require_folder(spec.picture_folder)
    if spec.labels_file is not None:
        lists.read_labels(spec.labels_file)


def _is_list(path: Path) -> bool:
    return upload_id(path) is None and lists.is_list(path) and archive.kind_of(path) is None


@contextlib.contextmanager
def opened(spec: DatasetSpec, folder: Path, progress: Progress, *, uploads: Path | None) -> Iterator[Sources]:
    """The sources of a spec as folders; archives are unpacked in `folder`, which is removed on leaving.

    Raises:
        InvalidInput: an archive is damaged or could do harm; an upload is not whole.
        NotFound: there is no such upload.
        DiskFull: there is no room to unpack.
    """
    found: dict[Root, Path] = {}
    origins: dict[Root, Origin] = {}
    try:
        for root, path in _paths(spec).items():
            place = folder / root
            with errors_name(path, place):
                found[root], origin = fetch(path, place, progress, uploads)
            if origin is not None:
                origins[root] = origin
        folders = spec.model_copy(update={_FIELDS[root]: path for root, path in found.items()})
        with contextlib.ExitStack() as stack:
            for root in origins:
                for place in (folder / root, found[root]):
                    stack.enter_context(errors_name(_paths(spec)[root], place))
            yield Sources(folders, origins)
    finally:
        if folder.exists():
            shutil.rmtree(folder)


@contextlib.contextmanager
def errors_name(path: Path, place: Path) -> Iterator[None]:
    """Let errors speak of the archive that was given, and not of where it was unpacked."""
    try:
        yield
    except VizslaError as error:
        error.where = error.where.replace(str(place), path.name)
        error.remedy = error.remedy.replace(str(place), path.name)
        raise


def fetch(path: Path, place: Path, progress: Progress, uploads: Path | None) -> tuple[Path, Origin | None]:
    """The folder of the pictures of a source, or a text list; and what it was if it was an archive or an upload.

    Args:
        place: where an archive is unpacked; it must not be there yet.
        uploads: the folder in which uploads lie.
    """
    name = path.name
    id = upload_id(path)
    if id is not None:
        assert uploads is not None, "a spec that names an upload needs their folder"
        came = upload.open_upload(uploads / id)
        if came.kind == "folder":
            pictures = uploads / id / upload.PICTURES
            origin = Origin(
                name=came.name, sha256=upload.list_hash(uploads / id), num_bytes=upload.came(uploads / id)[1]
            )
            return archive.pictures_root(pictures), origin
        name, path = came.name, uploads / id / upload.DATA
    elif not path.is_file() or archive.kind_of(path) is None:
        return path, None
    origin = Origin(name=name, sha256=files.sha256(path), num_bytes=path.stat().st_size)
    archive.unpack(path, place, lambda done, total: progress("unpack", done, total))
    return archive.pictures_root(place), origin


def _paths(spec: DatasetSpec) -> dict[Root, Path]:
    """The sources that are given."""
    return {root: path for root, field in _FIELDS.items() if (path := getattr(spec, field)) is not None}
