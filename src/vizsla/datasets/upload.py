"""An upload on the disk: an archive or a picture that comes in pieces, or a folder of pictures that come one by one."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from vizsla import events, files, records
from vizsla.datasets.spec import UPLOAD
from vizsla.errors import NotFound

UPLOADS = "uploads"
"""the folder of a workspace in which they lie"""
MAX_BYTES = 50 * 10**9
"""of an upload, unless a server says otherwise"""
RECORD, DATA, PICTURES, LIST = "upload.json", "data", "pictures", "pictures.jsonl"
Kind = Literal["archive", "picture", "folder"]


class Upload(BaseModel):
    """What is to come, and from whom; the content of `upload.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["vizsla.upload/1"] = "vizsla.upload/1"
    id: str
    name: str
    kind: Kind
    owner: str
    created_at: str
    size: int | None = Field(description="Bytes of an archive or a picture when it is whole; null for a folder.")
    sha256: str | None = Field(None, description="What it shall be when it is whole, if that was said.")
    complete: bool = Field(False, description="Of an archive or a picture: it is whole, and is what was promised.")
    used_by: str | None = Field(
        None, description="Id of the dataset or prediction that is, or was, to be made from it."
    )


class Status(NamedTuple):
    """An upload, and how much of it is there."""

    upload: Upload
    offset: int
    """bytes that are there"""
    num_pictures: int
    """of a folder"""
    expires_at: float
    """when it is swept unless more of it comes, in seconds since 1970"""

    @property
    def source(self) -> Path:
        """What names it as the source of a dataset or of a prediction."""
        return Path(f"{UPLOAD}{self.upload.id}")


class Picture(NamedTuple):
    """A picture that came into a folder."""

    path: str
    bytes: int
    sha256: str


def open_upload(folder: Path) -> Upload:
    """Read `upload.json`.

    Raises:
        NotFound: there is no such upload.
        InvalidInput: the file is damaged.
    """
    if not (folder / RECORD).exists():
        raise NotFound(
            f"There is no upload {folder.name!r}.", where="upload", remedy="It may have been used, or swept."
        )
    return records.read(folder / RECORD, Upload, remedy="Upload it again.")


def write(folder: Path, upload: Upload) -> None:
    """Write `upload.json`."""
    files.write_json(folder / RECORD, upload.model_dump(mode="json"))


def offset(folder: Path) -> int:
    """How many bytes of an archive or a picture are there."""
    path = folder / DATA
    return path.stat().st_size if path.exists() else 0


def came(folder: Path) -> tuple[int, int]:
    """How many pictures of a folder are there, and their bytes."""
    last = events.last(folder / LIST)
    return (last["count"], last["total_bytes"]) if last else (0, 0)


def list_hash(folder: Path) -> str:
    """A SHA-256 of what a folder of pictures holds: of their hashes and paths, by path."""
    lines, _ = events.read(folder / LIST)
    content = {line["path"]: line["sha256"] for line in lines}  # of one that came twice, the last
    digest = hashlib.sha256()
    for path in sorted(content):
        digest.update(f"{content[path]}  {path}\n".encode())
    return digest.hexdigest()


def remove(folder: Path) -> None:
    """Remove an upload. Without its record the rest is nothing, should this process be killed here."""
    (folder / RECORD).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
