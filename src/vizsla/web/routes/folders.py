"""`/api/v1/folders`: names of folders below those that requests may read, for who types one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from vizsla.datasets.scan import is_utf_8
from vizsla.errors import InvalidInput
from vizsla.web import auth
from vizsla.web.paths import allowed
from vizsla.web.schema import Answer

router = APIRouter(prefix="/folders", tags=["folders"], dependencies=[Depends(auth.member)])

SHOWN, LOOKED_AT = 50, 20_000


class FoldersAnswer(Answer):
    """Folders that may be named in a request."""

    roots: list[str] = Field(description="the folders below which all others lie")
    folders: list[str] = Field(description=f"those that begin with what was typed, {SHOWN} at most")


@router.get("")
def list_folders(
    request: Request, path: Annotated[str, Query(max_length=4096, description="What was typed.")] = ""
) -> FoldersAnswer:
    """The folders whose path begins with `path`: one level below its last slash, without those that are hidden.

    Of what lies outside of the folders that the server may read nothing is told.
    """
    roots = [str(folder) for folder in request.app.state.allowed]
    found = [root for root in roots if root.startswith(path)]
    with contextlib.suppress(InvalidInput, OSError):
        found += _below(request, path)
    return FoldersAnswer(roots=roots, folders=sorted(set(found))[:SHOWN])


def _below(request: Request, path: str) -> Iterator[str]:
    """The folders that `path` begins, as they are typed on."""
    above, _, begun = path.rpartition("/")
    folder = allowed(request, above or "/", where="path")
    with os.scandir(folder) as listing:
        for number, entry in enumerate(listing):
            if number == LOOKED_AT:
                return
            fits = entry.name.lower().startswith(begun.lower()) and not entry.name.startswith(".")
            if fits and is_utf_8(entry.name) and _leads_to_folder(request, entry):
                yield str(Path(above or "/") / entry.name)


def _leads_to_folder(request: Request, entry: os.DirEntry[str]) -> bool:
    if not entry.is_symlink():
        return entry.is_dir()
    with contextlib.suppress(InvalidInput, OSError):
        return allowed(request, entry.path, where="path").is_dir()
    return False
