import pytest
import timm
import torch
from torch import nn

from vizsla.errors import InvalidInput, NotFound
from vizsla.networks import catalogue

FAMILIES = [
    "lenet", "alexnet", "googlenet", "tf_efficientnet_lite0", "resnet18", "vit_tiny_patch16_224", "convnext_atto",
    "mobilenetv3_small_050", "regnetx_002",
]  # fmt: skip


def build(name: str, size: tuple[int, int] = (64, 64), in_channels: int = 3) -> nn.Module:
    return catalogue.build(name, num_classes=5, in_channels=in_channels, size=size)


def test_names_begin_with_the_classics_and_filter() -> None:
    every = catalogue.names()
    assert every[:3] == ["lenet", "alexnet", "googlenet"]
    assert len(every) > 1000
    assert len(set(every)) == len(every)
    assert "tf_efficientnet_lite0" in catalogue.names("efficientnet_lite")
    assert catalogue.names("resnet1?") == [name for name in every if len(name) == 8 and name.startswith("resnet1")]


def test_check_knows_classics_architectures_and_tags() -> None:
    for name in ("lenet", "resnet18", "resnet18.a1_in1k"):
        catalogue.check(name)


@pytest.mark.parametrize(("name", "near"), [("resnet81", "resnet18"), ("lenett", "lenet"), ("resnet18.a1", "a1_in1k")])
def test_an_unknown_name_suggests_near_ones(name: str, near: str) -> None:
    with pytest.raises(NotFound, match=f"no network named '{name}'") as caught:
        catalogue.check(name)
    assert near in caught.value.remedy
    assert "vizsla network list" in caught.value.remedy


@pytest.mark.parametrize("name", FAMILIES)
def test_the_head_of_the_features_is_the_network(name: str) -> None:
    network = build(name).eval()
    x = torch.randn(3, 3, 64, 64)
    head = network.get_classifier()
    with torch.no_grad():
        torch.testing.assert_close(head(catalogue.features(network, x)), network(x), atol=1e-5, rtol=1e-4)


def test_a_network_with_two_classifiers_is_refused() -> None:
    network = build("deit_tiny_distilled_patch16_224")
    with pytest.raises(InvalidInput, match="cannot be trained alone: it has not one classifier"):
        catalogue.features(network, torch.zeros(2, 3, 64, 64))


def test_a_classifier_of_zeros_hides_nothing() -> None:
    class Late(nn.Module):
        """Scales its logits, which nobody sees while they are zero."""

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)
            nn.init.zeros_(self.fc.weight)

        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3))

        def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
            return x if pre_logits else self.fc(x + 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.forward_head(self.forward_features(x))

        def get_classifier(self) -> nn.Module:
            return self.fc

    with pytest.raises(InvalidInput, match="its classifier is not its last step"):
        catalogue.features(Late(), torch.rand(2, 3, 4, 4))


def test_trying_a_network_leaves_its_modes_and_statistics() -> None:
    network = build("resnet18")
    network.train()
    network.get_submodule("layer1").eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with catalogue.evaluating(network):
        network(torch.randn(2, 3, 64, 64))
    assert network.training
    assert not network.get_submodule("layer1.0").training
    assert network.get_submodule("layer2.0").training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_transformer_of_fixed_size_is_built_for_another() -> None:
    network = build("vit_tiny_patch16_224", (96, 64), in_channels=1)
    assert network(torch.zeros(1, 1, 96, 64)).shape == (1, 5)


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("vit_tiny_patch16_224", (100, 100), "multiples of its patches of 16 x 16 px"),
        ("inception_v3", (40, 48), "48 x 40 px"),
        ("lenet", (15, 15), "at least 16 x 16 px"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(name: str, size: tuple[int, int], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        build(name, size)
    assert name in caught.value.what
    assert "px" in caught.value.remedy


def test_what_a_network_expects() -> None:
    assert catalogue.input_size("googlenet") == (224, 224)
    assert catalogue.input_size("inception_v3") == (299, 299)


def test_summary_counts_resnet18() -> None:
    """1.814 G multiply-accumulates: 1.8 x 10^9 in He et al. 2016, table 1."""
    found = catalogue.summary(timm.create_model("resnet18"), (224, 224), 3)
    assert found.num_parameters == 11_689_512 == sum(layer.num_parameters for layer in found.layers)
    assert found.multiply_accumulates == 1_814_073_344
    assert found.layers[0][:3] == ("conv1", "Conv2d", (64, 112, 112))
    assert found.layers[-1][:3] == ("fc", "Linear", (1000,))


def test_summary_counts_lenets_sparse_layer() -> None:
    found = catalogue.summary(build("lenet", (28, 28), 1), (28, 28), 1)
    work = {layer.name: layer.multiply_accumulates for layer in found.layers}
    assert work["c1"] == 28 * 28 * 6 * 25
    assert work["c3"] == 10 * 10 * 60 * 25
    assert [layer.shape for layer in found.layers if layer.name == "c5"] == [(120, 1, 1)]


def test_summary_counts_attention() -> None:
    """Of each block: query times key and weights times value, 197 x 197 x 192 each."""
    network = timm.create_model("vit_tiny_patch16_224")
    found = catalogue.summary(network, (224, 224), 3)
    assert found.multiply_accumulates == sum(layer.multiply_accumulates for layer in found.layers) == 1_253_683_200
    attention = [layer for layer in found.layers if layer.kind == "Attention"]
    assert [layer.multiply_accumulates for layer in attention] == [2 * 197 * 197 * 192] * 12
    assert found.num_parameters == sum(layer.num_parameters for layer in found.layers), "position embeddings too"
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_describe() -> None:
    lenet = catalogue.describe("lenet", count=True)
    assert lenet["family"] == "classic"
    assert lenet["weights"] == "none"
    assert lenet["licence"] is None
    resnet = catalogue.describe("resnet18", count=True)
    assert resnet["parameters"] == 11_689_512
    assert resnet["family"] == "resnet"
    assert str(resnet["weights"]).startswith("hub timm/resnet18")
    assert catalogue.describe("resnet18")["parameters"] is None
