"""Which pictures are to be classified: the files below a folder, or those that a text list names."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vizsla.datasets.scan import NOT_UTF_8, is_utf_8, spelled_out, walk
from vizsla.errors import InvalidInput

MAX_PICTURES = 1_000_000
MAX_LIST_BYTES = 2**28
MAX_LINE = 4096

# As in the lists of DIGITS: a path, white space and the number of its class.
_LABELLED = re.compile(r"(.+?)\s+(-?\d+)")


class Named(NamedTuple):
    """A picture to classify."""

    path: str
    """as the list has it, or from the folder on"""
    file: str
    """where it lies"""
    label: str | None
    """the class that the list gives it, where the model has such a class"""
    reason: str | None
    """why it cannot be looked at"""


def check(source: Path) -> None:
    """Raise `InvalidInput` unless a source is a folder or a file that may be a list."""
    try:
        status = source.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise InvalidInput("There is no such folder or list.", where=str(source), remedy="Check the path.") from None
    except OSError as error:
        raise _unreadable(source, error) from None
    if not is_utf_8(str(source)):
        raise InvalidInput("The path is not valid UTF-8.", where=spelled_out(str(source)), remedy="Rename it.")
    if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
        raise InvalidInput("This is neither a folder nor a list.", where=str(source))


def _unreadable(source: Path, error: OSError) -> InvalidInput:
    return InvalidInput(
        f"It cannot be read: {error.strerror}.",
        where=str(source),
        remedy="Give the account that runs Vizsla permission to read it.",
    )


def find(
    source: Path, labels: Sequence[str], *, base: Path | None = None, within: Sequence[Path] | None = None
) -> list[Named]:
    """The pictures of a folder and those below it, by path, or of a list, in its order.

    Args:
        labels: the classes of the model.
        base: to which the paths of a list are relative; the list's own folder by default.
        within: the folders in which the files of a list have to lie; None for anywhere.

    Raises:
        InvalidInput: there is no such source, it names no picture, or more than `MAX_PICTURES`.
    """
    check(source)
    found = _below(source) if source.is_dir() else _listed(source, labels, base or source.parent, within)
    if not found:
        raise InvalidInput("There are no pictures.", where=str(source), remedy="Name a folder or a list that has some.")
    if len(found) > MAX_PICTURES:
        raise InvalidInput(
            f"{len(found):,} pictures, more than the limit of {MAX_PICTURES:,}.",
            where=str(source),
            remedy="Divide them.",
        )
    return found


def _below(folder: Path) -> list[Named]:
    found = []
    for path, reason in walk(str(folder)):
        relative = path.removeprefix(str(folder)).lstrip(os.sep)
        if is_utf_8(relative):
            found.append(Named(relative, path, None, reason))
        else:
            found.append(Named(spelled_out(relative), "", None, NOT_UTF_8))
    return sorted(found, key=lambda named: named.path)


def _listed(source: Path, labels: Sequence[str], base: Path, within: Sequence[Path] | None) -> list[Named]:
    if source.stat().st_size > MAX_LIST_BYTES:
        raise InvalidInput(f"The list has more than {MAX_LIST_BYTES:,} bytes.", where=str(source), remedy="Divide it.")
    try:
        text = source.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise _unreadable(source, error) from None
    if "\0" in text:
        raise InvalidInput(
            "This is no text list.", where=str(source), remedy="Give a folder, or a text file with a path in each line."
        )
    lines = (line.strip() for line in text.removeprefix("\ufeff").split("\n"))
    return [_of_line(line, labels, base, within) for line in lines if line]


def _of_line(line: str, labels: Sequence[str], base: Path, within: Sequence[Path] | None) -> Named:
    if not is_utf_8(line):
        return Named(spelled_out(line), "", None, NOT_UTF_8)
    if len(line) > MAX_LINE:
        return Named(line[:MAX_LINE], "", None, "a path that is too long")
    path, label = _parted(line, labels, base, within)
    if re.match(r"\w+://", path):
        return Named(path, "", label, "an address, not a file")
    file = base / path
    if not _may_be_read(file, within):
        return Named(path, "", label, "not in a folder that may be read")
    return Named(path, str(file), label, None)


def _may_be_read(file: Path, within: Sequence[Path] | None) -> bool:
    if within is None:
        return True
    try:
        resolved = file.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return False
    return any(resolved.is_relative_to(folder) for folder in within)


def _parted(line: str, labels: Sequence[str], base: Path, within: Sequence[Path] | None) -> tuple[str, str | None]:
    """The path of a line, and its label: the name of a class behind a tab or a space, or the number of one.

    Of files that may not be read, the answer does not tell whether they are there.
    """
    path, tab, name = line.rpartition("\t")
    if tab and name in labels:
        return path.strip(), name
    if _may_be_read(base / line, within) and _is_file(base / line):
        return line, None
    if numbered := _LABELLED.fullmatch(line):
        number = int(numbered[2][:9])
        return numbered[1], labels[number] if 0 <= number < len(labels) else None
    path, _, name = line.rpartition(" ")  # as in the lists that datasets are built from
    return (path.strip(), name) if path and name in labels else (line, None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False
