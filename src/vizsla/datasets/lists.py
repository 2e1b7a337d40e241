"""Text lists of pictures: a line a picture, `PATH LABEL`, and files of class names.

A label is what stands after the last space of a line, or after its last tab where there is one. With a file of class
names, whose first line is class 0, a number is a place in it; else every label is the name of a class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

from vizsla.errors import InvalidInput

MAX_LINE_BYTES = 10_000
MAX_LINES = 10_000_000
MAX_LABELS, MAX_LABEL_BYTES = 100_000, 255
_START_BYTES, _SHOWN_BYTES = 65_536, 1000
_MARK = b"\xef\xbb\xbf"
"""with which some editors begin a text"""
_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".gif", ".tif", ".tiff", ".webp")
_SHAPE = "A list has a line for each picture: its path, a space or a tab, and its class."


class Line(NamedTuple):
    """A line of a list: a picture and its class, or why it cannot be used.

    `path` is as it was written; of a line that is rejected it begins with the name of the list and the number.
    """

    path: str
    label: str | None
    reason: str | None


def is_list(path: Path) -> bool:
    """Whether a source is a file, and so has to be a list."""
    try:
        return path.is_file()
    except OSError:
        return False


def require(path: Path) -> None:
    """Raise `InvalidInput` unless a file can be read and begins as a list does; looks no further."""
    if not str(path).isprintable():  # also lone surrogates, which stand for bytes that are no UTF-8
        raise InvalidInput("The path of the list cannot be printed.", where=ascii(str(path)), remedy="Rename it.")
    with _opened(path) as file:
        start = file.read(_START_BYTES)
    if b"\0" in start:
        raise InvalidInput(
            "This is a file, and neither a folder nor an archive of pictures, nor a text list of them.",
            where=str(path),
            remedy=_SHAPE,
        )
    if not start.removeprefix(_MARK).strip() and len(start) < _START_BYTES:
        raise InvalidInput("The list is empty.", where=str(path), remedy=_SHAPE)


def read_labels(path: Path) -> list[str]:
    """The class names in a file, one a line.

    Raises:
        InvalidInput: the file cannot be read, or a name is empty, too long, or there twice.
    """
    with _opened(path) as file:
        lines = [_text(line) for line in islice(_lines(file), MAX_LABELS + 1)]
    while lines and lines[-1] == "":
        lines.pop()
    names: dict[str, int] = {}
    for number, name in enumerate(lines, 1):
        if not name or not _is_label(name):
            problem = "has no name" if name == "" else "is not valid UTF-8, or too long"
        elif name in names:
            problem = f"has the name of line {names[name]}"
        elif number > MAX_LABELS:
            problem = f"is one more than the {MAX_LABELS:,} classes that there may be"
        else:
            names[name] = number
            continue
        remedy = "A file of class names has one name a line; the first is class 0."
        raise InvalidInput(f"Line {number} {problem}.", where=str(path), remedy=remedy)
    if len(names) < 2:
        raise InvalidInput(
            f"The file has {len(names)} class names; a classifier needs two.",
            where=str(path),
            remedy="Write one name a line.",
        )
    return list(names)


def read_lines(
    path: Path, folder: Path, names: Sequence[str] | None = None, *, allowed: Sequence[Path] | None = None
) -> list[Line]:
    """The lines of a list, in their order, without those that are blank.

    Args:
        folder: to which its paths are relative.
        names: of the classes that numbers mean.
        allowed: the folders, without links, below which pictures may lie; None: anywhere. Of what lies elsewhere
            nothing is looked at.

    Raises:
        InvalidInput: the file cannot be read, is no text, has no lines, or too many.
    """
    require(path)
    classes = None if names is None else {str(number): name for number, name in enumerate(names)}
    known = frozenset(names or ())
    found = []
    with _opened(path) as file:
        for number, raw in enumerate(_lines(file), 1):
            if number > MAX_LINES:
                raise InvalidInput(f"The list has more than {MAX_LINES:,} lines.", where=str(path), remedy="Divide it.")
            if not raw.strip():
                continue
            line = _parsed(raw, classes, known)
            reason = line.reason or _refusal(folder / line.path, allowed)
            shown = raw[:_SHOWN_BYTES].decode("utf-8", "backslashreplace").strip()
            found.append(Line(f"{path.name}:{number}: {shown}", None, reason) if reason else line)
    if not found:
        raise InvalidInput("The list is empty.", where=str(path), remedy=_SHAPE)
    return found


def _opened(path: Path) -> IO[bytes]:
    try:
        if not path.is_file():  # a FIFO would block
            raise InvalidInput("There is no such file.", where=str(path), remedy="Check the path.")
        return path.open("rb")
    except OSError as error:
        raise InvalidInput(
            f"The file cannot be read: {error.strerror}.", where=str(path), remedy="Check the path and its permissions."
        ) from None


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file; of one that is too long, `MAX_LINE_BYTES` and one more."""
    skipped = file.read(len(_MARK))
    if skipped != _MARK:
        file.seek(0)
    while line := file.readline(MAX_LINE_BYTES + 1):
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES + 1)
        yield line


def _text(line: bytes) -> str | None:
    """A line without the white space around it; None where it is not valid UTF-8."""
    try:
        return line.decode().strip()
    except UnicodeDecodeError:
        return None


def _parsed(raw: bytes, numbered: Mapping[str, str] | None, known: frozenset[str]) -> Line:
    """What a line says, wherever its picture lies."""
    text = _text(raw)
    if len(raw) > MAX_LINE_BYTES:
        return Line("", None, "the line is too long")
    if text is None:
        return Line("", None, "the line is not valid UTF-8")
    path, _, label = (part.strip() for part in text.rpartition("\t" if "\t" in text else " "))
    if not path or label.lower().endswith(_ENDINGS):
        return Line("", None, "no label")
    if label.startswith("-") and label[1:].isdecimal():
        return Line("", None, "a label below 0")
    if numbered is not None:
        name = numbered.get(str(int(label)) if label.isdecimal() and len(label) < 10 else "") or (
            label if label in known else None
        )
        return Line(path, name, None if name else "unknown label")
    return Line(path, label, None if _is_label(label) else "the label is too long")


def _is_label(name: str) -> bool:
    return len(name.encode()) <= MAX_LABEL_BYTES


def _refusal(path: Path, allowed: Sequence[Path] | None) -> str | None:
    """Why a picture cannot be used; where it may not lie is no matter of what there is."""
    try:
        if allowed is not None and not any(path.resolve().is_relative_to(folder) for folder in allowed):
            return "outside of the folders that the server may read"
        return None if path.is_file() else "a folder" if path.is_dir() else "no such file"
    except (OSError, ValueError, RuntimeError):  # a NUL, a loop of links, a name that is too long
        return "no such file"
