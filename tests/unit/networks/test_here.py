"""Whether weights are on this disk, told without torch."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from vizsla.networks import here


def test_what_is_installed_or_downloaded_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    hub, address = "hub timm/resnet18.a1_in1k@main", "https://models.example/v1/resnet18-4bb0ce65.pth"
    assert here.is_here("lenet", here.NOWHERE) is None
    assert here.is_here("resnet18", hub) is False
    assert here.is_here("legacy_resnet18", address) is False
    snapshot = tmp_path / "hub/models--timm--resnet18.a1_in1k/snapshots/0123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    assert here.is_here("resnet18", hub) is False, "a description is no weights"
    (snapshot / "model.safetensors").touch()
    assert here.is_here("resnet18", hub) is True
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    (tmp_path / "torch/hub/checkpoints/resnet18-4bb0ce65.pth").touch()
    assert here.is_here("legacy_resnet18", address) is True
    assert here.is_here("tf_efficientnet_lite0.in1k", "hub timm/tf_efficientnet_lite0.in1k") is True, "a package"
