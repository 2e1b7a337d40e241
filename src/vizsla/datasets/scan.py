"""Find the files of a dataset: each gets a label and, where a folder says so, a split, or a reason why not."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from vizsla.datasets import lists
from vizsla.datasets.spec import DatasetSpec
from vizsla.errors import InvalidInput

Split = Literal["train", "val", "test"]
Root = Literal["source", "val", "test"]
Given = Literal["val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

_SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_CLUTTER = {"__macosx", "thumbs.db", "desktop.ini"}
_LAYOUT = "The folder must hold one sub-folder of pictures a class, or folders train, val and test that do."
_NOT_IN_A_CLASS = "not in a class folder"
_NOT_IN_TRAIN = "class not in train"
_HIDDEN = "hidden"
NOT_UTF_8 = "the name is not valid UTF-8"


class Found(NamedTuple):
    """A file (or a folder that was not entered). `split` is None where the pictures are still to be divided."""

    root: Root
    path: str
    label: str | None
    split: Split | None
    reason: str | None


class Scan(NamedTuple):
    """All files, sorted by root and path, the class names in natural order, and the splits that are given.

    The lines of a list are in its order, and the class names in that of their file, where there is one.
    """

    labels: list[str]
    files: list[Found]
    given: frozenset[Given]


def scan(spec: DatasetSpec, *, allowed: Sequence[Path] | None = None) -> Scan:
    """List the files of `spec.source`, `val_folder` and `test_folder`. Opens none of them but lists.

    Args:
        allowed: see `lists.read_lines`.

    Raises:
        InvalidInput: a folder or list is missing or not to be read, or there are fewer than two classes.
    """
    extra: dict[Given, Path | None] = {"val": spec.val_folder, "test": spec.test_folder}
    names = lists.read_labels(spec.labels_file) if spec.labels_file else None
    listed = lists.is_list(spec.source)
    folders = {} if listed else _split_folders(spec.source)
    for split, folder in extra.items():
        if folder is not None and split in folders:
            raise InvalidInput(
                f"The {split} pictures are given twice.",
                where=f"{folders[split]} and {folder}",
                remedy=f"Leave out --{split}-folder, or give the train folder as the source.",
            )
    if listed:
        files = _listed(spec, "source", names, allowed)
        labels = names or _in_order({found.label for found in files if found.label is not None})
        _require_two_listed(spec.source, labels, files)
    else:
        labels = _classes(folders.get("train", spec.source))
        _require_two(spec.source, folders.get("train", spec.source), labels)
        files = sorted(_scan_source(spec.source, folders, labels), key=_path)
    for split, folder in extra.items():
        if folder is not None and lists.is_list(folder):
            files += _of_train(folder, _listed(spec, split, names, allowed), frozenset(labels))
        elif folder is not None:
            _require_known(folder, labels)
            visit = _Visit(split, folder, known=frozenset(labels))
            files += sorted(_class_files(visit, _listing(folder), split), key=_path)
    given = frozenset(split for split, folder in extra.items() if folder is not None or split in folders)
    return Scan(labels, files, given)


def _path(found: Found) -> str:
    return found.path


def _roots(spec: DatasetSpec) -> dict[Root, Path]:
    roots: dict[Root, Path | None] = {"source": spec.source, "val": spec.val_folder, "test": spec.test_folder}
    return {name: path for name, path in roots.items() if path is not None}


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key by which "class 2" comes before "class 10"."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), part) if part.isascii() and part.isdigit() else (1, 0, part) for part in parts if part]


def location(spec: DatasetSpec, found: Found) -> Path:
    """Where the file of a row lies."""
    return _base(spec, _roots(spec)[found.root]) / found.path


def _base(spec: DatasetSpec, root: Path) -> Path:
    """The folder to which the paths of a root are relative."""
    return root if root.is_dir() else spec.picture_folder or root.parent


class _Visit(NamedTuple):
    """The root that is searched, and the classes."""

    root: Root
    folder: Path
    known: frozenset[str]

    def row(self, path: str, label: str | None, split: Split | None, reason: str | None) -> Found:
        relative = path.removeprefix(str(self.folder)).lstrip(os.sep)
        if not is_utf_8(relative):
            relative = spelled_out(relative)
            label, reason = label if label and is_utf_8(label) else None, NOT_UTF_8
        return Found(self.root, relative.replace(os.sep, "/"), label, split, reason)


def _scan_source(source: Path, folders: dict[Split, Path], labels: list[str]) -> list[Found]:
    visit = _Visit("source", source, known=frozenset(labels))
    if not folders:
        return _class_files(visit, _listing(source), None)
    files: list[Found] = []
    for split, folder in folders.items():
        files += _class_files(visit, _listing(folder), None if split == "train" else split)
    used = set(folders.values())
    for entry in _listing(source):
        if Path(entry.path) not in used:
            files += _outside(visit, entry)
    return files


def _classes(folder: Path) -> list[str]:
    return _in_order({entry.name for entry in _listing(folder) if _is_class(entry) and is_utf_8(entry.name)})


def _in_order(names: set[str]) -> list[str]:
    return sorted(names, key=lambda name: (natural(name), name))


def require_folder(folder: Path) -> None:
    """Raise `InvalidInput` when a folder is missing or not to be read; looks no further."""
    _listing(folder)


def _listed(spec: DatasetSpec, root: Root, names: Sequence[str] | None, allowed: Sequence[Path] | None) -> list[Found]:
    """The lines of a list."""
    path = _roots(spec)[root]
    split: Split | None = None if root == "source" else root
    lines = lists.read_lines(path, _base(spec, path), names, allowed=allowed)
    return [Found(root, line.path, line.label, split, line.reason) for line in lines]


def _of_train(path: Path, files: list[Found], known: frozenset[str]) -> list[Found]:
    """The lines of a val or test list, of which those count whose class the training pictures have."""
    files = [f._replace(reason=_NOT_IN_TRAIN) if f.reason is None and f.label not in known else f for f in files]
    if all(found.reason for found in files):
        raise InvalidInput("None of the lines can be used.", where=str(path), remedy=_first_reasons(files))
    return files


def _require_two_listed(path: Path, labels: list[str], files: list[Found]) -> None:
    if len(labels) < 2:
        one = f"There is one class only, {labels[0]!r}; a classifier needs two." if labels else ""
        rejected = [found for found in files if found.reason]
        raise InvalidInput(one or "None of the lines can be used.", where=str(path), remedy=_first_reasons(rejected))


def _first_reasons(files: list[Found]) -> str:
    shown = [f"  {found.path}: {found.reason}" for found in files[:5]]
    return "\n".join(["The first lines that were rejected:", *shown]) if shown else "Name pictures of two classes."


def _listing(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder the user named, sorted."""
    if not is_utf_8(str(folder)):
        raise InvalidInput("The path of the folder is not valid UTF-8.", where=ascii(str(folder)), remedy="Rename it.")
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        remedy = "Check the path; it is a folder of the machine on which the dataset is built."
        raise InvalidInput("There is no such folder.", where=str(folder), remedy=remedy) from None
    except NotADirectoryError:
        raise InvalidInput("This is not a folder.", where=str(folder), remedy=_LAYOUT) from None
    except OSError as error:
        raise InvalidInput(
            f"The folder cannot be read: {error.strerror}.",
            where=str(folder),
            remedy="Give the account that runs Vizsla permission to list it.",
        ) from None


def spelled_out(name: str) -> str:
    """A name in which bytes that are no UTF-8 stand as `\\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_utf_8(name: str) -> bool:
    """Whether a name can be written as text."""
    # Bytes of a file name that are no UTF-8 reach Python as lone surrogates.
    return not any("\udc80" <= character <= "\udcff" for character in name)


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_class(entry: os.DirEntry[str]) -> bool:
    return _is_folder(entry) and not _is_clutter(entry.name)


def _split_folders(source: Path) -> dict[Split, Path]:
    """The folders train, val and test of `source`; none when its sub-folders are classes."""
    visible = [entry for entry in _listing(source) if _is_class(entry)]
    folders: dict[Split, Path] = {}
    for entry in visible:
        split = _SPLIT_NAMES.get(entry.name.lower())
        if split in folders:
            raise InvalidInput(
                f"Two folders are for {split}: {folders[split].name!r} and {entry.name!r}.",
                where=str(source),
                remedy="Keep one of them.",
            )
        if split is not None:
            folders[split] = Path(entry.path)
    if "train" not in folders or not (len(folders) > 1 or len(visible) == 1):
        return {}
    inside = _listing(folders["train"])
    return folders if any(_is_class(entry) for entry in inside) else {}


def _require_two(source: Path, folder: Path, labels: list[str]) -> None:
    if not labels:
        raise InvalidInput("There are no class folders.", where=str(source), remedy=_LAYOUT)
    if len(labels) == 1:
        only = folder / labels[0]
        inside = sum(_is_class(entry) for entry in _listing(only))
        meant = f" Did you mean {only}, which has {inside} folders?" if inside > 1 else ""
        raise InvalidInput(
            f"There is one class only, {labels[0]!r}; a classifier needs two.",
            where=str(source),
            remedy=_LAYOUT + meant,
        )


def _require_known(folder: Path, labels: list[str]) -> None:
    classes = _classes(folder)
    if not set(classes) & set(labels):
        raise InvalidInput(
            "None of the folders here is a class of the training pictures.",
            where=str(folder),
            remedy=f"There must be folders named as the classes: {', '.join(labels[:5])}{', ...' * (len(labels) > 5)}.",
        )


def _class_files(visit: _Visit, entries: list[os.DirEntry[str]], split: Split | None) -> list[Found]:
    """The files of each class folder among `entries`, and what else is there with a reason."""
    rows: list[Found] = []
    for entry in entries:
        if _is_clutter(entry.name):
            rows.append(visit.row(_shown(entry), None, split, _HIDDEN))
        elif not _is_folder(entry):
            rows.append(visit.row(entry.path, None, split, _not_a_file(entry) or _NOT_IN_A_CLASS))
        elif not is_utf_8(entry.name):
            rows += (visit.row(path, None, split, NOT_UTF_8) for path, _ in walk(entry.path))
        else:
            strange = entry.name not in visit.known
            for path, reason in walk(entry.path):
                rows.append(visit.row(path, entry.name, split, reason or (_NOT_IN_TRAIN if strange else None)))
    return rows


def _outside(visit: _Visit, entry: os.DirEntry[str]) -> Iterator[Found]:
    if _is_clutter(entry.name):
        yield visit.row(_shown(entry), None, None, _HIDDEN)
    elif _is_folder(entry):
        for path, reason in walk(entry.path):
            yield visit.row(path, None, None, reason or "outside of train, val and test")
    else:
        yield visit.row(entry.path, None, None, _not_a_file(entry) or _NOT_IN_A_CLASS)


def _shown(entry: os.DirEntry[str]) -> str:
    # A hidden folder is one row and is not entered: it may hold a version history or whole snapshots of the disk.
    return entry.path + "/" if _is_folder(entry) else entry.path


def walk(folder: str) -> Iterator[tuple[str, str | None]]:
    """Each file under `folder` with the reason why it cannot be used, if there is one. Follows symbolic links."""
    # A link to any folder above would lead here again, and one to the root through the whole disk.
    parents = frozenset(_identity(parent.stat()) for parent in Path(folder).parents)
    pending = [(folder, parents)]
    while pending:
        path, above = pending.pop()
        try:
            status = Path(path).stat()
            with os.scandir(path) as listing:
                entries = list(listing)
        except OSError as error:
            yield path + "/", f"the folder cannot be read: {error.strerror}"
            continue
        identity = _identity(status)
        if identity in above:
            yield path + "/", "a link to a folder above it"
            continue
        for entry in entries:
            if _is_clutter(entry.name):
                yield _shown(entry), _HIDDEN
            elif _is_folder(entry):
                pending.append((entry.path, above | {identity}))
            else:
                yield entry.path, _not_a_file(entry)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _not_a_file(entry: os.DirEntry[str]) -> str | None:
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        return "a link that leads nowhere" if entry.is_symlink() else f"cannot be read: {error.strerror}"
    return None if stat.S_ISREG(mode) else "not a regular file"
