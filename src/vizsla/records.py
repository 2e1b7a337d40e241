"""JSON files with a `format`, read into the model that describes them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from vizsla import files
from vizsla.errors import InvalidInput

Record = TypeVar("Record", bound=BaseModel)


def read(path: Path, kind: type[Record], *, remedy: str) -> Record:
    """The record in a file, of a model whose field `format` has the format as its default.

    Args:
        remedy: what to do when the file is missing, damaged or of another format.

    Raises:
        InvalidInput: it is one of these.
    """
    content = files.read_json(path)
    known = kind.model_fields["format"].default
    found = content.get("format") if isinstance(content, dict) else None
    if found != known:
        raise InvalidInput(
            f"The file is of format {found!r}; this version of Vizsla reads {known!r}.",
            where=str(path),
            remedy=f"Use the version of Vizsla that wrote it, or: {remedy}",
        )
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"The file is damaged: {field}: {first['msg']}.", where=str(path), remedy=remedy) from None
