"""What the range test of learning rates found. Light: no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FOUND, CHART = "rates.json", "rates.png"


class Point(BaseModel):
    """One step of the test."""

    model_config = ConfigDict(frozen=True)

    rate: float
    loss: float = Field(description="on the training pictures of the steps so far, smoothed")


class Rates(BaseModel):
    """`rates.json`: the loss by learning rate, and the rate to begin with."""

    model_config = ConfigDict(frozen=True)

    format: Literal["vizsla.rates/1"] = "vizsla.rates/1"
    network: str
    dataset: str
    points: list[Point]
    suggested: float = Field(description="where the loss is half way down to its lowest")
    num_pictures: int = Field(description="pictures of the train split seen, with repetitions")
