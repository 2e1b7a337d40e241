"""Forms are drawn from specs."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from vizsla.datasets.spec import DatasetSpec
from vizsla.jobs.spec import JobSpec
from vizsla.training.spec import GROUPS, TrainingSpec
from vizsla.web.pages import forms
from vizsla.web.pages.render import environment


def test_a_field_says_what_it_takes() -> None:
    found = forms.inputs(TrainingSpec, "spec")
    epochs, tune, momentum, flip = (found[name] for name in ("epochs", "tune", "momentum", "flip"))
    assert (epochs.name, epochs.kind, epochs.step, epochs.bounds, epochs.usual) == (
        "spec.epochs", "number", "1", "1 to 100,000", "",
    )  # fmt: skip
    assert tune.choices == (("", "default"), ("full", "full"), ("head", "head"), ("scratch", "scratch"))
    assert (momentum.usual, momentum.value, momentum.step) == ("0.9", "", "any")
    assert (flip.kind, flip.type, flip.choices[1]) == ("choice", "boolean", ("true", "on"))
    assert found["flip_vertical"].kind == "check"
    assert found["rms_decay"].bounds == "above 0, below 1"
    assert forms.inputs(JobSpec, "job")["gpu_memory"].bounds == "above 0"


def test_what_is_filled_in_is_what_differs() -> None:
    found = forms.inputs(TrainingSpec, "spec", values={"epochs": 3, "momentum": 0.9, "flip": False, "ema": 0.999})
    assert [name for name, one in found.items() if one.changed] == ["epochs", "ema", "flip"]
    assert found["ema"].value == "0.999"
    shown = forms.inputs(DatasetSpec, "spec", values={"width": 28, "val_folder": None}, shows_defaults=True)
    values = {name: shown[name].value for name in ("width", "height", "val_percent", "resize", "val_folder", "source")}
    assert values == {
        "width": "28", "height": "256", "val_percent": "25", "resize": "squash", "val_folder": "", "source": "",
    }  # fmt: skip


def test_every_setting_is_in_a_group_and_can_be_drawn() -> None:
    grouped = forms.groups(TrainingSpec, "spec", GROUPS, skip=("net",))
    names = {one.name for every in grouped.values() for one in every}
    assert names == {f"spec.{name}" for name in TrainingSpec.model_fields} - {"spec.net"}
    page = environment().from_string('{% import "form.html" as form %}{{ form.folded(groups) }}')
    html = page.render(groups=grouped | {"<b>": list(forms.inputs(DatasetSpec, "spec").values())})
    assert html.count("<label") == len(names) + len(DatasetSpec.model_fields)
    assert "<b>" not in html
    assert "style=" not in html


@pytest.mark.parametrize("spec", [DatasetSpec, JobSpec, TrainingSpec])
def test_every_default_can_be_chosen(spec: type[BaseModel]) -> None:
    """Or else the browser would send the first choice in its place."""
    for name, one in forms.inputs(spec, "spec", shows_defaults=True).items():
        if one.kind == "choice":
            assert one.value in [value for value, _ in one.choices], name
