"""The settings of a dataset. Light, so that every face can draw its options from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vizsla.images.preprocess import MAX_SIDE, Interpolation, Resize

Encoding = Literal["raw", "png", "jpeg"]


UPLOAD = "upload:"

PATHS = ("source", "val_folder", "test_folder", "labels_file", "picture_folder")
"""the fields that name files and folders"""
UPLOADABLE = ("source", "val_folder", "test_folder")
"""those of them that may name an upload"""


def upload_id(source: Path) -> str | None:
    """The id of the upload that a source such as `upload:1swk2a7qx4` names; None: it is a path."""
    text = str(source)
    return text.removeprefix(UPLOAD) if text.startswith(UPLOAD) else None


class DatasetSpec(BaseModel):
    """What a dataset is made of and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: Path = Field(
        description="Folder with one sub-folder of pictures a class, or with folders train, val and test of those; "
        "or a zip or tar archive of such a folder, or a text list with a line `PATH LABEL` for each picture."
    )
    val_folder: Path | None = Field(
        None,
        description="Folder or archive with one sub-folder a class, or text list, all of whose pictures are for "
        "validation.",
    )
    test_folder: Path | None = Field(
        None,
        description="Folder or archive with one sub-folder a class, or text list, all of whose pictures are for the "
        "test.",
    )
    labels_file: Path | None = Field(
        None, description="Of text lists: file with a class name a line; a number as label is a place in it, from 0."
    )
    picture_folder: Path | None = Field(
        None, description="Of text lists: folder to which their paths are relative. Default: where the list lies."
    )
    width: int = Field(256, ge=1, le=MAX_SIDE, description="Width in px to which the pictures are resized.")
    height: int = Field(256, ge=1, le=MAX_SIDE, description="Height in px to which the pictures are resized.")
    colour: Literal["auto", "colour", "grey"] = Field(
        "auto", description="Colour or grey; auto takes grey when a sample of the pictures has no colour."
    )
    resize: Resize = Field(
        "squash",
        description="How a picture of another shape is fitted: stretched (squash), cut at the centre (crop), "
        "padded with black (fill), or half of each (half-crop).",
    )
    interpolation: Interpolation = Field("bicubic", description="How pixels are interpolated when resizing.")
    val_percent: float = Field(
        25.0,
        ge=0,
        lt=100,
        description="Share of the pictures, in percent, kept for validation; no use with val pictures.",
    )
    test_percent: float = Field(
        0.0,
        ge=0,
        lt=100,
        description="Share of the pictures, in percent, kept for the test; no use with test pictures.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of the division: the same seed gives the same splits.")
    min_per_class: int = Field(2, ge=1, description="Usable pictures that a class must have at least.")
    small_classes: Literal["error", "drop"] = Field(
        "error", description="What to do about a class with fewer pictures: stop with an error, or leave it out."
    )
    max_per_class: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Pictures of a class to use at most, in each folder, chosen at random. Default: all."
    )
    encoding: Encoding | Literal["auto"] = Field(
        "auto", description="How the pixels are kept: raw, png, or jpeg (lossy); auto takes raw up to 16 GB, else jpeg."
    )

    @field_validator(*PATHS)
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        # The process that builds may have another working directory than the one that was asked.
        try:
            return value if value is None or upload_id(value) else value.expanduser().absolute()
        except RuntimeError:
            raise ValueError("there is no such home folder") from None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.val_percent + self.test_percent >= 100:
            raise ValueError(
                f"val_percent {self.val_percent:g} and test_percent {self.test_percent:g} leave nothing to train with; "
                "together they must be less than 100"
            )
        if self.max_per_class is not None and self.max_per_class < self.min_per_class:
            raise ValueError(
                f"max_per_class {self.max_per_class} must not be less than min_per_class {self.min_per_class}"
            )
        return self


class Request(BaseModel):
    """`request.json` of a dataset: what the worker is asked to build."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["vizsla.dataset-request/1"] = "vizsla.dataset-request/1"
    id: str
    name: str
    spec: DatasetSpec
    allowed: tuple[Path, ...] | None = Field(
        None, description="folders below which pictures of text lists have to lie; null: they may lie anywhere"
    )
