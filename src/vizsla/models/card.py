"""The card of a model (`model.json`): everything needed to use it, and where it comes from. Light: no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vizsla import files, records
from vizsla.errors import InvalidInput
from vizsla.images.preprocess import Preprocess
from vizsla.training.run import DatasetRef, Input, WeightsRef

CARD = "model.json"
GRAPH = "model.onnx"
WEIGHTS = "model.safetensors"
LABELS = "labels.txt"


class RunRef(BaseModel):
    """The checkpoint of the run that a model was made from."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    checkpoint: int = Field(description="step")


class Parity(BaseModel):
    """How far the ONNX graph's probabilities were from torch's, when the model was exported."""

    model_config = ConfigDict(frozen=True)

    largest_difference: float
    num_pictures: int
    split: str


class Imported(BaseModel):
    """Where a model was before it was brought here as an archive. Its run and dataset may not be here."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="of the model there")
    name: str = Field(description="of the model there")
    created_at: str = Field(description="when it was made there")
    at: str = Field(description="when it came; ISO 8601, UTC")
    sha256: str = Field(description="of the archive")


class Card(BaseModel):
    """`model.json`."""

    model_config = ConfigDict(frozen=True)

    format: Literal["vizsla.model/1"] = "vizsla.model/1"
    id: str
    name: str
    created_at: str
    network: str
    num_parameters: int
    labels: tuple[str, ...]
    preprocess: Preprocess = Field(description="from a picture file to the pixels that the graph takes")
    input: Input = Field(description="done inside the graph: the cut from the centre and the standardisation")
    run: RunRef
    dataset: DatasetRef
    weights: WeightsRef | None = Field(description="the pretrained weights it started from, and their licence")
    figures: tuple[dict[str, Any], ...] = Field(
        description="headline figures of its checkpoint: the split, how many pictures, and how sure"
    )
    parity: Parity
    files: dict[str, str] = Field(description="SHA-256 of each file beside this one")
    imported: Imported | None = Field(None, description="null: it was made in this workspace")
    vizsla_version: str


class Request(BaseModel):
    """`request.json` of an export."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["vizsla.export-request/1"] = "vizsla.export-request/1"
    id: str
    name: str
    created_at: str
    run_folder: Path
    dataset_folder: Path
    checkpoint: str = Field(description="a step; best or last of a run that had not ended when this was asked for")
    figures: tuple[dict[str, Any], ...] = Field(description="of the evaluations that had been made of that step")


def open_model(folder: Path) -> Card:
    """Read the card of a model folder.

    Raises:
        InvalidInput: it is not a model folder, or the export was never finished.
    """
    if not (folder / CARD).exists():
        raise InvalidInput("This is not a finished model.", where=str(folder), remedy="Export it again.")
    return records.read(folder / CARD, Card, remedy="Copy or export the model again.")


def check_file(folder: Path, card: Card, name: str) -> Path:
    """The path of one of the model's files, after checking that it is the file that was exported.

    Raises:
        InvalidInput: it is missing or has been changed.
    """
    path = folder / name
    if not path.exists() or files.sha256(path) != card.files.get(name):
        raise InvalidInput(
            "A file of the model is missing or damaged.", where=str(path), remedy="Copy or export the model again."
        )
    return path
