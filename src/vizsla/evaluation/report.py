"""`report.json`: what an evaluation found. The command line, the REST interface and the pages all read this file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from vizsla import records
from vizsla.errors import InvalidInput

FORMAT: Literal["vizsla.evaluation/2"] = "vizsla.evaluation/2"
FILE_NAME = "report.json"

SplitRole = Literal["held out", "chose the checkpoint", "trained on"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Figure(_Record):
    """A figure with the interval that says how far to trust it; all between 0 and 1."""

    value: float
    low: float
    high: float
    level: float = Field(description="The confidence of the interval, such as 0.95.")
    num_pictures: int = Field(description="The pictures that it is a figure of.")
    method: str = Field(description="How the interval was computed.")


class Subject(_Record):
    """What was evaluated: a run at one of its checkpoints, or a model."""

    kind: Literal["run", "model"]
    id: str
    name: str
    checkpoint: str | None = Field(description="The checkpoint that was used, such as `best`.")
    network: str


class DatasetRef(_Record):
    """The dataset that the split is of."""

    id: str
    name: str
    fingerprint: str


class ClassFigures(_Record):
    """The figures of one class, each with its interval. A figure that is not defined is null.

    Not defined are precision where no picture was taken for the class, recall where it has none, F1 where both hold.
    """

    label: str
    support: int = Field(description="The pictures of this class in the split.")
    precision: Figure | None = Field(description="Of the pictures that were taken for the class.")
    recall: Figure | None = Field(description="Of the pictures of the class.")
    f1: Figure | None = Field(description="Of the pictures that are of the class or were taken for it.")


class ConfusionCell(NamedTuple):
    """`num_pictures` pictures of class `true` were taken for class `predicted`; both are positions in `labels`."""

    true: int
    predicted: int
    num_pictures: int


class Mistake(_Record):
    """A picture that was taken for another class; `true` and `predicted` are positions in `labels`."""

    path: str
    index: int = Field(description="The row of the picture in the dataset.")
    true: int
    predicted: int
    probability: float = Field(description="The probability that the model gave to `predicted`.")


class Report(_Record):
    """Everything an evaluation found; `format` changes when a reader would have to."""

    format: Literal["vizsla.evaluation/2"] = FORMAT
    id: str
    name: str
    created_at: str = Field(description="ISO 8601, UTC.")
    version: str = Field(description="The version of Vizsla that wrote this.")
    subject: Subject
    dataset: DatasetRef
    split: str
    split_role: SplitRole
    num_pictures: int
    seconds: float
    device: str
    labels: list[str]
    headline: dict[str, Figure] = Field(
        description="accuracy, balanced_accuracy, macro_f1; top5 with more than 5 classes; auc with 2."
    )
    calibration_error: float = Field(description="Expected calibration error over 15 bins.")
    per_class: list[ClassFigures] = Field(description="One entry a label, in the order of `labels`.")
    confusion: list[ConfusionCell] = Field(
        description="The cells that are not 0, as [true, predicted, number of pictures]."
    )
    mistakes: list[Mistake] = Field(description="The most confident ones, most confident first.")
    warnings: list[str]


class Request(_Record):
    """`request.json` of an evaluation."""

    format: Literal["vizsla.evaluation-request/1"] = "vizsla.evaluation-request/1"
    id: str
    name: str
    kind: Literal["run", "model"]
    subject_folder: Path
    subject_name: str
    checkpoint: str = Field(description="a step; best or last of a run that had not ended when this was asked for")
    dataset_folder: Path
    dataset_name: str
    split: str
    device: str = Field("cpu", description="the one that the queue gave: cpu or cuda:N")


def read_report(folder: Path) -> Report:
    """The report in an evaluation's folder.

    Raises:
        InvalidInput: there is none, because the evaluation did not finish, or it is of another format.
    """
    path = folder / FILE_NAME
    if not path.exists():
        raise InvalidInput(
            "This folder holds no finished evaluation.", where=str(folder), remedy="Run the evaluation again."
        )
    return records.read(path, Report, remedy="Run the evaluation again.")
