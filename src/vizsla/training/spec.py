"""The settings of a run. Light: no torch, so that every face can draw its options from it."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vizsla.errors import InvalidInput

Tune = Literal["full", "head", "scratch"]
Preset = Literal["modern", "digits"]
Policy = Literal["cosine", "onecycle", "fixed", "step", "multistep", "exp", "inv", "poly", "sigmoid"]

# What `None` becomes in the preset "modern", by what is trained. Measured on small sets of real pictures; see
# docs/decisions/0004-defaults.md.
_MODERN: dict[str, Any] = {
    "optimizer": "adamw",
    "schedule": "cosine",
    "warmup_percent": 5.0,
    "batch_size": 32,
    "subtract_mean": "pixel",
}
RECIPES: dict[Tune, dict[str, Any]] = {
    "full": _MODERN | {"epochs": 10, "learning_rate": 1e-3, "weight_decay": 0.05, "flip": True, "jitter": 0.2},
    "head": _MODERN | {"epochs": 40, "learning_rate": 1e-3, "weight_decay": 1.0, "flip": True, "jitter": 0.0},
    "scratch": _MODERN | {"epochs": 30, "learning_rate": 1e-3, "weight_decay": 0.01, "flip": False, "jitter": 0.0},
}

# What DIGITS 6 filled into its form; momentum and weight decay are those of the Caffe networks that it came with.
DIGITS: dict[str, Any] = {
    "tune": "scratch",
    "epochs": 30,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "schedule": "step",
    "warmup_percent": 0.0,
    "weight_decay": 0.0005,
    "flip": False,
    "jitter": 0.0,
    "subtract_mean": "image",
}
# DIGITS left the batch to the network's own description.
DIGITS_BATCH = {"lenet": 64, "alexnet": 128}

# What `None` becomes for the parameters of the policies of the learning rate.
POLICIES: dict[Policy, dict[str, float]] = {
    "step": {"step_percent": 33.0, "gamma": 0.1},
    "multistep": {"gamma": 0.5},
    "exp": {"gamma": 0.95},
    "inv": {"gamma": 0.1, "power": 0.5},
    "poly": {"power": 3.0},
    "sigmoid": {"step_percent": 50.0, "gamma": 0.1},
}
# Policies that multiply the learning rate by `gamma` again and again.
SHRINKING = ("step", "multistep", "exp")
AUGMENTS_EACH_PASS = (
    *("jitter", "shift", "rotate", "quarter_turns", "zoom", "hue", "noise", "erase", "flip_vertical"),
    *("auto_augment", "mixup", "cutmix"),
)


class TrainingSpec(BaseModel):
    """How to train. A field left at None takes a default that depends on `preset` and `tune`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    net: str = Field(
        "tf_efficientnet_lite0",
        description="Network: lenet, alexnet, googlenet, any timm name, or a Python file that defines one.",
    )
    preset: Preset = Field("modern", description="Where defaults come from: modern, or those of NVIDIA DIGITS.")
    tune: Tune | None = Field(
        None,
        description="What is trained: all of a pretrained network (full), its last layer only (head: many times "
        "quicker), or a network without pretrained weights (scratch). Default: full where there are pretrained "
        "weights, else scratch.",
    )
    weights: str = Field(
        "auto",
        description="Pretrained weights: auto, run:NAME (its best checkpoint), model:NAME, or a .safetensors or .pth "
        "file.",
    )
    freeze_epochs: int = Field(
        0, ge=0, le=100_000, description="Epochs in which only the last layer is trained, before all of the network."
    )

    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="Passes over the training pictures. Default: 10 (full), 40 (head), 30 (scratch, digits)."
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        None,
        description="Pictures a pass through the network, at most, over all devices. Default: 32 "
        "(digits: 64 for lenet, 128 for alexnet).",
    )
    accumulate: int = Field(
        1, ge=1, le=4096, description="Batches whose gradients are added up for one step of the optimiser."
    )
    optimizer: str | None = Field(
        None,
        description="Optimiser: sgd, nesterov, adam, adamw, rmsprop, adagrad, adadelta, lamb, or any other of timm's. "
        "Default: adamw (digits: sgd).",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd, nesterov and others that have one.")
    rms_decay: float = Field(0.99, gt=0, lt=1, description="Decay of the mean square in rmsprop.")
    weight_decay: Annotated[float, Field(ge=0)] | None = Field(
        None, description="Weight decay. Default: 0.05 (full), 1 (head), 0.01 (scratch), 0.0005 (digits)."
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="Each layer learns so much slower than the one after it; 1 is all the same."
    )
    clip_norm: float = Field(0.0, ge=0, description="Largest norm of the gradient; 0 does not clip.")
    ema: float = Field(
        0.0, ge=0, lt=1, description="Decay of a running mean of the weights, which then is the model; 0 is off."
    )
    early_stop: int = Field(
        0, ge=0, description="Stop after so many validations in a row without a better one; 0 never does."
    )

    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Highest learning rate. Default: 0.001, or 0.01 (digits)."
    )
    schedule: Policy | None = Field(
        None,
        description="How the learning rate goes: cosine, onecycle, or one of DIGITS' policies. Default: cosine "
        "(digits: step).",
    )
    warmup_percent: Annotated[float, Field(ge=0, le=50)] | None = Field(
        None,
        description="Share of the training, in percent, in which the learning rate rises from zero. Default: 5 "
        "(onecycle: 30, digits: 0).",
    )
    step_percent: Annotated[float, Field(gt=0, le=100)] | None = Field(
        None, description="Of step: percent of the training a step; of sigmoid: its middle. Default: 33; 50."
    )
    gamma: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Factor of step, multistep, exp, inv and sigmoid. Default: 0.1, 0.5, 0.95, 0.1, 0.1."
    )
    power: Annotated[float, Field(gt=0)] | None = Field(None, description="Of inv and poly. Default: 0.5; 3.")
    milestones: str = Field(
        "50,85", pattern=r"^\d+(\.\d+)?(,\d+(\.\d+)?)*$", description="Of multistep: percents of the training."
    )

    imbalance: Literal["none", "weights", "sample", "focal"] = Field(
        "none",
        description="Against classes of unequal size: weigh the loss by class (weights), draw each class as often "
        "(sample), or attend to the hard pictures (focal).",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of each label spread over all classes.")
    mixup: float = Field(0.0, ge=0, le=10, description="Alpha of mixup, which blends pairs of pictures; 0 is off.")
    cutmix: float = Field(0.0, ge=0, le=10, description="Alpha of cutmix, which pastes a part of another; 0 is off.")

    crop: Annotated[int, Field(ge=8, le=4096)] | None = Field(
        None,
        description="Side in px of the square fed to the network: cut at random in training (with tune=head: from "
        "the centre), and from the centre elsewhere. Default: the whole picture of the dataset.",
    )
    subtract_mean: Literal["none", "pixel", "image"] | None = Field(
        None,
        description="What is subtracted from pictures when training from scratch: nothing, the mean colour, or the "
        "mean picture. Pretrained weights bring their own. Default: pixel (digits: image).",
    )
    shift: int = Field(
        0, ge=0, le=512, description="Training pictures are moved at random by up to so many px; edges are repeated."
    )
    flip: bool | None = Field(
        None, description="Mirror half of the training pictures left to right. Default: on, but off for scratch."
    )
    flip_vertical: bool = Field(False, description="Mirror half of the training pictures upside down.")
    quarter_turns: bool = Field(False, description="Turn training pictures by 0, 90, 180 or 270 degrees at random.")
    rotate: float = Field(0.0, ge=0, le=180, description="Turn training pictures at random by up to so many degrees.")
    zoom: float = Field(0.0, ge=0, lt=1, description="Scale training pictures at random by 1 ± this.")
    jitter: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Random change of brightness, contrast and saturation, 0 to 1. Default: 0.2 (full), else 0."
    )
    hue: float = Field(0.0, ge=0, le=0.5, description="Random change of hue, in turns of the colour circle.")
    noise: float = Field(0.0, ge=0, le=1, description="Standard deviation of Gaussian noise on pixels of 0 to 1.")
    auto_augment: Literal["none", "trivial", "rand"] = Field(
        "none", description="Automatic augmentation: TrivialAugment (one change a picture) or RandAugment (two)."
    )
    magnitude: float = Field(9.0, ge=0, le=30, description="Strength of auto_augment=rand, of 30.")
    erase: float = Field(0.0, ge=0, le=1, description="Share of the training pictures that lose a random rectangle.")

    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Number format of the heavy arithmetic; auto measures which is fastest here."
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="Whether torch.compile is used; auto measures it when the training is long enough."
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:[0-9]{1,4}(,[0-9]{1,4}){0,255})?)$",
        description="Where to train: auto, cpu, cuda, cuda:N, or cuda:N,M with a process on each.",
    )
    processes: int = Field(
        1, ge=1, le=256, description="Processes that share each step: on GPUs one each, on a CPU together."
    )
    sync_batch_norm: bool = Field(False, description="Batch statistics over all GPUs instead of each one's own.")

    val_every: float = Field(
        1.0, ge=0, le=100_000, description="Epochs between validations, such as 0.5; 0 only at the end."
    )
    checkpoint_every: float = Field(1.0, ge=0, le=100_000, description="Epochs between checkpoints; 0 only at the end.")
    checkpoint_every_s: float = Field(
        120.0, gt=0, description="Seconds between checkpoints that only serve to go on after a failure."
    )
    keep_best: int = Field(1, ge=1, le=100, description="How many of the best checkpoints are kept.")
    keep_every: int = Field(0, ge=0, description="Also keep the checkpoint of every so many epochs; 0 keeps none.")
    seed: int = Field(
        0,
        ge=0,
        lt=2**31,
        description="Seed of everything random: on a CPU the same seed and arithmetic give the same run to the bit, on "
        "GPUs nearly.",
    )

    @field_validator("optimizer")
    @classmethod
    def _lower(cls, value: str | None) -> str | None:
        return value.lower() if value is not None else None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        fields = type(self).model_fields
        each_pass = [name for name in AUGMENTS_EACH_PASS if getattr(self, name) not in (fields[name].default, 0.0)]
        if self.tune == "head" and each_pass:
            raise ValueError(
                f"{' and '.join(each_pass)} cannot be used with tune=head, which computes the features of each "
                "picture only once; use tune=full, or leave them out"
            )
        if self.tune == "head" and (self.freeze_epochs or self.sync_batch_norm or self.layer_decay != 1):
            raise ValueError(
                "freeze_epochs, sync_batch_norm and layer_decay have no use with tune=head; leave them out"
            )
        if (self.tune or (self.preset == "digits" and "scratch")) == "scratch" and self.weights != "auto":
            raise ValueError("weights has no use with tune=scratch; leave one of the two out")
        if self.tune == "scratch" and self.freeze_epochs:
            raise ValueError("freeze_epochs has no use with tune=scratch; leave one of the two out")
        if self.imbalance == "focal" and (self.mixup or self.cutmix or self.label_smoothing):
            raise ValueError("imbalance=focal needs plain labels: leave out mixup, cutmix and label_smoothing")
        usual = DIGITS_BATCH.get(self.net, 32) if self.preset == "digits" else 32
        pictures = (self.batch_size or usual) * self.accumulate
        if pictures < 2 * self.num_processes:
            raise ValueError(
                f"steps of {pictures} pictures cannot be shared by {self.num_processes} processes: each needs two"
            )
        if not all(0 < a < b for a, b in pairwise([*self.milestone_percents, 100.0])):
            raise ValueError("milestones are percents of the training that rise from above 0 to below 100")
        if self.schedule in SHRINKING and (self.gamma or 0) > 1:
            raise ValueError(f"with gamma above 1 the learning rate of {self.schedule} would grow; use 1 or less")
        if "," in self.device and self.processes not in (1, self.device.count(",") + 1):
            raise ValueError("processes must be the number of devices that are named, or left out")
        return self

    @property
    def milestone_percents(self) -> list[float]:
        """`milestones` as numbers."""
        return [float(part) for part in self.milestones.split(",")]

    @property
    def num_processes(self) -> int:
        """Processes that train together: as many as devices are named, or as asked."""
        return max(self.processes, self.device.count(",") + 1)

    def unused(self, *, num_val: int, channels: int) -> list[str]:
        """Sentences about settings of a resolved spec that were given and have no effect.

        Args:
            num_val: pictures that there are to validate on.
            channels: of the pictures: 1 (grey) or 3.
        """
        policy = POLICIES.get(self.schedule or "cosine", {})
        unvalidated = "" if num_val else "there are no pictures to validate on"
        wrong_schedule = f"the schedule is {self.schedule}"
        why = {
            "momentum": self._without_momentum(),
            "rms_decay": "" if "rmsprop" in (self.optimizer or "") else "the optimiser is not rmsprop",
            "milestones": "" if self.schedule == "multistep" else wrong_schedule,
            "hue": "" if channels > 1 else "the pictures are grey",
            "magnitude": "" if self.auto_augment == "rand" else "auto_augment is not rand",
            **{name: "" if name in policy else wrong_schedule for name in ("gamma", "step_percent", "power")},
            "sync_batch_norm": "" if self.num_processes > 1 else "one process has all of each step",
            **dict.fromkeys(("early_stop", "keep_best", "val_every"), unvalidated),
            "subtract_mean": "" if self.tune == "scratch" else "pretrained weights bring their own standardisation",
        }
        defaults: dict[str, Any] = {name: field.default for name, field in type(self).model_fields.items()}
        defaults["subtract_mean"] = "pixel" if self.preset == "modern" else "image"
        return [
            f"--{name.replace('_', '-')} has no effect: {reason}."
            for name, reason in why.items()
            if reason and getattr(self, name) != defaults[name]
        ]

    def _without_momentum(self) -> str:
        plain = ("adam", "adamw", "adagrad", "adadelta", "lamb")
        return f"the optimiser is {self.optimizer}" if self.optimizer in plain else ""

    def usual(self, *, has_weights: bool) -> dict[str, Any]:
        """What a resolved spec would be by default; what follows from the preset or from `tune` is a default."""
        fields = type(self).model_fields
        plain = TrainingSpec(net=self.net, preset=self.preset, tune=self.tune).resolved(has_weights=has_weights)
        usual = plain.model_dump(mode="json") | {"net": fields["net"].default, "preset": fields["preset"].default}
        return usual | {"tune": TrainingSpec(net=self.net, preset=self.preset).resolved(has_weights=has_weights).tune}

    def resolved(self, *, has_weights: bool) -> TrainingSpec:
        """The same settings with every None replaced by its default.

        `crop` may stay None (the whole picture), as may parameters that the policy of the learning rate lacks.
        """
        tune = self.tune or (DIGITS["tune"] if self.preset == "digits" else None)
        tune = tune or ("full" if has_weights or self.weights != "auto" else "scratch")
        recipe = dict(RECIPES[tune])
        if self.preset == "digits":
            recipe |= DIGITS | {"batch_size": DIGITS_BATCH.get(self.net, recipe["batch_size"])}
        schedule: Policy = self.schedule or recipe["schedule"]
        recipe |= POLICIES.get(schedule, {})
        if schedule == "onecycle":
            recipe["warmup_percent"] = 30.0
        recipe["tune"] = tune
        filled = {name: value for name, value in recipe.items() if getattr(self, name) is None}
        try:
            return TrainingSpec(**(self.model_dump() | filled))
        except ValidationError as error:  # settings that go together only with another `tune` than it turned out
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise InvalidInput(f"With tune={tune}: {reason}.", where="settings") from None


# How a form or a help page puts the settings together.
GROUPS: dict[str, tuple[str, ...]] = {
    "Network": ("net", "preset", "tune", "weights", "freeze_epochs"),
    "Optimisation": (
        *("epochs", "batch_size", "accumulate", "optimizer", "momentum", "rms_decay", "weight_decay", "layer_decay"),
        *("clip_norm", "ema", "early_stop"),
    ),
    "Learning rate": (
        *("learning_rate", "schedule", "warmup_percent", "step_percent", "gamma", "power", "milestones"),
    ),
    "Loss": ("imbalance", "label_smoothing", "mixup", "cutmix"),
    "Pictures": (
        *("crop", "subtract_mean", "shift", "flip", "flip_vertical", "quarter_turns", "rotate", "zoom", "jitter"),
        *("hue", "noise", "auto_augment", "magnitude", "erase"),
    ),
    "Devices": ("precision", "compile", "device", "processes", "sync_batch_norm"),
    "Course": ("val_every", "checkpoint_every", "checkpoint_every_s", "keep_best", "keep_every", "seed"),
}
