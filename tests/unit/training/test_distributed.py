from __future__ import annotations

from torch import nn

from vizsla.networks import catalogue
from vizsla.training.distributed import with_synced_norms


def test_norms_are_synchronised_once_and_keep_their_activations() -> None:
    network = catalogue.build("tf_efficientnet_lite0", num_classes=3, in_channels=3, size=(64, 64))

    def kinds(module: nn.Module) -> list[str]:
        return [type(part).__name__ for part in module.modules()]

    activations = sum(name.startswith("ReLU") for name in kinds(network))
    once = kinds(with_synced_norms(network))
    assert sum("SyncBatchNorm" in name for name in once) > 10
    assert sum(name.startswith("ReLU") for name in once) == activations
    assert kinds(with_synced_norms(network)) == once, "as when the body is unfrozen"
