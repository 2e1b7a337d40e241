"""The optimiser of a run: timm's, by name, with the parameters that are not decayed or learn more slowly."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from torch import nn

from vizsla.errors import InvalidInput, did_you_mean
from vizsla.training.spec import TrainingSpec

# In timm "sgd" is Nesterov's; here it is what the field calls so, as DIGITS did.
_TIMM_NAMES = {"sgd": "momentum", "nesterov": "sgd"}
# They need another library, second derivatives, or state that no checkpoint holds.
_LEFT_OUT = ("bnb", "fused", "adahessian", "kron")
USUAL = ("sgd", "nesterov", "adam", "adamw", "rmsprop", "adagrad", "adadelta", "lamb", "lion", "nadamw")
FUSED = ("sgd", "nesterov", "adam", "adamw", "adagrad")
"""those that torch can do for all parameters in one kernel"""


def names() -> list[str]:
    """The optimisers that can be used."""
    every = {str(name) for name in list_optimizers()} | {*_TIMM_NAMES}
    return sorted(name for name in every if not name.startswith(_LEFT_OUT))


def check(spec: TrainingSpec) -> None:
    """Raise `InvalidInput` unless the optimiser of a resolved spec is one that can be used."""
    assert spec.optimizer is not None, "the spec must be resolved"
    if spec.optimizer not in names():
        near = did_you_mean(spec.optimizer, names())
        raise InvalidInput(
            f"There is no optimiser named {spec.optimizer!r}.",
            where="optimizer",
            remedy=f"{near} {len(names())} can be used: {', '.join(USUAL)}, and others of timm.optim.".strip(),
        )


def make_optimizer(spec: TrainingSpec, module: nn.Module, *, fused: bool = False) -> torch.optim.Optimizer:
    """The optimiser of a resolved spec, over all parameters of `module`.

    Biases and norms are not decayed (He et al. 2019, "Bag of Tricks"). With `layer_decay`, the groups have an
    `lr_scale` (Clark et al. 2020, "ELECTRA"), which the loop multiplies the learning rate by.
    """
    assert spec.learning_rate is not None, "the spec must be resolved"
    options: dict[str, Any] = {"fused": True} if fused else {}
    info = get_optimizer_info(_name(spec))
    if spec.optimizer == "rmsprop":
        options["alpha"] = spec.rms_decay
    if info.has_momentum:
        options["momentum"] = spec.momentum
    return create_optimizer_v2(
        module,
        opt=_name(spec),
        lr=spec.learning_rate,
        weight_decay=spec.weight_decay or 0.0,
        layer_decay=spec.layer_decay if spec.layer_decay < 1 else None,
        **options,
    )


def _name(spec: TrainingSpec) -> str:
    assert spec.optimizer is not None, "the spec must be resolved"
    return _TIMM_NAMES.get(spec.optimizer, spec.optimizer)
