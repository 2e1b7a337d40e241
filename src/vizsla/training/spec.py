"""The settings of a run. Light: no torch, so that every face can draw its options from it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Tune = Literal["full", "head", "scratch"]

# What `None` becomes, by what is trained. Measured on small sets of real pictures; see docs/decisions/0004-defaults.md.
RECIPES: dict[Tune, dict[str, Any]] = {
    "full": {"epochs": 10, "learning_rate": 3e-4, "weight_decay": 0.05, "flip": True, "jitter": 0.2},
    "head": {"epochs": 40, "learning_rate": 1e-3, "weight_decay": 1.0, "flip": True, "jitter": 0.0},
    "scratch": {"epochs": 30, "learning_rate": 1e-3, "weight_decay": 0.01, "flip": False, "jitter": 0.0},
}


class TrainingSpec(BaseModel):
    """How to train. A field left at None takes a default that depends on `tune`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    net: str = Field("tf_efficientnet_lite0", description="Network: lenet, alexnet, googlenet, or any timm name.")
    tune: Tune | None = Field(
        None,
        description="What is trained: all of a pretrained network (full), its last layer only (head), or a network "
        "without pretrained weights (scratch). Default: full where there are pretrained weights, else scratch.",
    )
    weights: str = Field("auto", description="Pretrained weights: auto, or a .safetensors or .pth file.")
    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="Passes over the training pictures. Default: 10 (full), 40 (head), 30 (scratch)."
    )
    batch_size: int = Field(32, ge=1, le=65_536, description="Pictures a step, at most.")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("adamw", description="Optimiser.")
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Highest learning rate. Default: 0.0003 (full), 0.001 (head), 0.001 (scratch)."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; the other optimisers do not use it.")
    weight_decay: Annotated[float, Field(ge=0)] | None = Field(
        None, description="Weight decay. Default: 0.05 (full), 1 (head), 0.01 (scratch)."
    )
    schedule: Literal["cosine", "step", "fixed"] = Field(
        "cosine", description="How the learning rate falls: half a cosine to zero, in steps, or not at all."
    )
    warmup_percent: float = Field(
        5.0, ge=0, le=50, description="Share of the training, in percent, in which the learning rate rises from zero."
    )
    step_percent: float = Field(33.0, gt=0, le=100, description="Schedule step: a step every so many percent.")
    gamma: float = Field(0.1, gt=0, le=1, description="Schedule step: what each step multiplies the learning rate by.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of each label spread over all classes.")
    crop: Annotated[int, Field(ge=8, le=4096)] | None = Field(
        None,
        description="Side in px of the square fed to the network: cut at random in training (with tune=head: from "
        "the centre), and from the centre elsewhere. Default: the whole picture of the dataset.",
    )
    shift: int = Field(
        0, ge=0, le=512, description="Training pictures are moved at random by up to so many px; edges are repeated."
    )
    flip: bool | None = Field(
        None, description="Mirror half of the training pictures left to right. Default: on, but off for scratch."
    )
    jitter: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Random change of brightness, contrast and saturation, 0 to 1. Default: 0.2 (full), else 0."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Number format of the heavy arithmetic; auto takes bf16 where the device is faster with it."
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of everything random: the same seed gives the same run.")
    checkpoint_every_s: float = Field(
        120.0, gt=0, description="Seconds between checkpoints within an epoch; each epoch's end has one anyway."
    )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.tune == "head" and (self.jitter or self.shift):
            raise ValueError(
                "jitter and shift cannot be used with tune=head, which computes the features of each picture only "
                "once; use tune=full, or leave them out"
            )
        if self.tune == "scratch" and self.weights != "auto":
            raise ValueError("weights has no use with tune=scratch; leave one of the two out")
        return self

    def unused(self) -> list[str]:
        """Sentences about settings of a resolved spec that differ from their default and have no effect."""
        silent = {
            "momentum": self.optimizer != "sgd" and "the optimiser is not sgd",
            "gamma": self.schedule != "step" and "the schedule is not step",
            "step_percent": self.schedule != "step" and "the schedule is not step",
        }
        fields = type(self).model_fields
        return [
            f"--{name.replace('_', '-')} has no effect: {why}."
            for name, why in silent.items()
            if why and getattr(self, name) != fields[name].default
        ]

    def resolved(self, *, has_weights: bool) -> TrainingSpec:
        """The same settings with every None replaced by its default (`crop` may stay None: the whole picture)."""
        tune = self.tune or ("full" if has_weights or self.weights != "auto" else "scratch")
        filled = {name: value for name, value in RECIPES[tune].items() if getattr(self, name) is None}
        return TrainingSpec(**(self.model_dump() | filled | {"tune": tune}))
