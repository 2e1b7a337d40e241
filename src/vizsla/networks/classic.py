"""LeNet-5, AlexNet and GoogLeNet as in their papers, with the interface that timm's networks have."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vizsla.errors import InvalidInput

AnyLayer = TypeVar("AnyLayer", nn.Conv2d, nn.Linear)

AUXILIARY_WEIGHT = 0.3
"""What each auxiliary classifier's loss counts beside the main loss (Szegedy et al. 2015, section 5)."""

LENET_TABLE = (
    (0, 1, 2),
    (1, 2, 3),
    (2, 3, 4),
    (3, 4, 5),
    (0, 4, 5),
    (0, 1, 5),
    (0, 1, 2, 3),
    (1, 2, 3, 4),
    (2, 3, 4, 5),
    (0, 3, 4, 5),
    (0, 1, 4, 5),
    (0, 1, 2, 5),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)
"""For each of the 16 maps of C3, the maps of S2 that it sees (LeCun et al. 1998, table I)."""


class WithAuxiliary(NamedTuple):
    """What GoogLeNet returns while it trains: logits (n, classes), and those of its auxiliary classifiers."""

    logits: Tensor
    auxiliary: tuple[Tensor, ...]


class Classic(nn.Module):
    """What the three share: the interface of timm's networks, so that one training loop deals with all."""

    smallest: ClassVar[int]
    pretrained_cfg: ClassVar[dict[str, Any]]
    num_features: int
    head_hidden_size: int

    def __init__(self, num_classes: int, size: tuple[int, int]) -> None:
        """Raise `InvalidInput` when `size` (height, width) leaves the last feature map without a pixel."""
        super().__init__()
        self.num_classes = num_classes
        if min(size) < self.smallest:
            height, width = size
            raise InvalidInput(
                f"Pictures of {width} x {height} px are too small for {self.pretrained_cfg['architecture']}.",
                where="size",
                remedy=f"Use at least {self.smallest} x {self.smallest} px, or another network.",
            )

    def forward_features(self, x: Tensor) -> Tensor:
        """Pictures (n, channels, height, width) -> feature maps (n, num_features, h, w)."""
        raise NotImplementedError

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature maps -> logits (n, classes), or with `pre_logits` what the classifier sees (n, head_hidden_size)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor | WithAuxiliary:
        """Pictures (n, channels, height, width) -> logits (n, classes)."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.get_submodule(self.pretrained_cfg["classifier"])

    def reset_classifier(self, num_classes: int) -> None:
        """Put a fresh last layer for `num_classes` in place; with 0, none."""
        self.num_classes = num_classes
        fresh = self._new_classifier() if num_classes else nn.Identity()
        self.set_submodule(self.pretrained_cfg["classifier"], fresh)

    def _new_classifier(self) -> nn.Linear:
        raise NotImplementedError


class ScaledTanh(nn.Module):
    """1.7159 tanh(2x/3): its gain is near 1 on [-1, 1] (LeCun et al. 1998, appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, kept."""
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """The mean of each 2x2 pixels, times a trained coefficient, plus a trained bias; one of each a map."""

    def __init__(self, num_maps: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.ones(num_maps, 1, 1))
        self.bias = nn.Parameter(torch.zeros(num_maps, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, maps, h, w) -> (n, maps, h // 2, w // 2)."""
        return F.avg_pool2d(x, 2) * self.coefficient + self.bias


class TableConvolution(nn.Module):
    """A convolution in which each output map sees only the input maps that a table names: LeNet-5's C3.

    The 60 kernels 5x5 are stored, so that exactly the paper's 1,516 parameters exist, are counted and are trained.
    """

    targets: Tensor
    sources: Tensor

    def __init__(self, table: tuple[tuple[int, ...], ...], kernel_size: int = 5) -> None:
        super().__init__()
        pairs = [(target, source) for target, sources in enumerate(table) for source in sources]
        self.kernel_size = kernel_size
        self.shape = (len(table), 1 + max(source for _, source in pairs), kernel_size, kernel_size)
        self.register_buffer("targets", torch.tensor([target for target, _ in pairs]), persistent=False)
        self.register_buffer("sources", torch.tensor([source for _, source in pairs]), persistent=False)
        fan_in = torch.tensor([len(table[target]) * kernel_size**2 for target, _ in pairs]).view(-1, 1, 1)
        self.kernels = nn.Parameter((torch.rand(len(pairs), kernel_size, kernel_size) * 2 - 1) * 2.4 / fan_in.sqrt())
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def dense(self) -> Tensor:
        """The kernels as the weight of an ordinary convolution, zero where the table has no connection."""
        return self.kernels.new_zeros(self.shape).index_put((self.targets, self.sources), self.kernels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, input maps, h, w) -> (n, output maps, h - 4, w - 4)."""
        return F.conv2d(x, self.dense(), self.bias)


class LeNet(Classic):
    """LeNet-5 (LeCun et al. 1998, Proc. IEEE 86(11)): 60,000 trained parameters before the output layer.

    The paper's output units are radial basis functions that compare F6 with drawn characters of 7x12 pixels. Such
    drawings exist for characters only, so a linear layer with a softmax loss, which serves any labels, replaces them.
    Weights begin uniform in +-2.4 / sqrt(fan-in); subsampling begins as the plain mean. Appendix A divides by the
    fan-in itself, and relies on second derivatives to get away from there: with plain gradients the loss stands still
    for epochs. The square root is what the same appendix gives for inputs that are independent.
    A side of 28 px is padded to 32, as the paper does with MNIST, by repeating the border: that is its background.
    C5's kernel is as large as the map it sees, so that other sizes work.
    """

    smallest = 16
    pretrained_cfg: ClassVar[dict[str, Any]] = {"architecture": "lenet", "first_conv": "c1", "classifier": "output"}

    def __init__(self, num_classes: int, in_channels: int, size: tuple[int, int]) -> None:
        super().__init__(num_classes, size)
        self.num_features, self.head_hidden_size = 120, 84
        height, width = (32 if side == 28 else side for side in size)
        self.padding = ((width - size[1]) // 2,) * 2 + ((height - size[0]) // 2,) * 2
        self.squash = ScaledTanh()
        self.c1 = nn.Conv2d(in_channels, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = TableConvolution(LENET_TABLE)
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, (_lenet_map(height), _lenet_map(width)))
        self.f6 = nn.Linear(120, 84)
        self.output: nn.Module = self._new_classifier()
        _uniform(self.c1)
        _uniform(self.c5)
        _uniform(self.f6)

    def forward_features(self, x: Tensor) -> Tensor:
        """Pictures (n, channels, height, width) -> C5's maps (n, 120, 1, 1)."""
        if any(self.padding):
            x = F.pad(x, self.padding, mode="replicate")
        x = self.squash(self.s2(self.squash(self.c1(x))))
        x = self.squash(self.s4(self.squash(self.c3(x))))
        return self.squash(self.c5(x))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """C5's maps (n, 120, 1, 1) -> logits (n, classes), or F6 (n, 84)."""
        hidden = self.squash(self.f6(features.flatten(1)))
        return hidden if pre_logits else self.output(hidden)

    def _new_classifier(self) -> nn.Linear:
        return _uniform(nn.Linear(84, self.num_classes))


def _lenet_map(side: int) -> int:
    """The side of S4's map."""
    return ((side - 4) // 2 - 4) // 2


def _uniform(layer: AnyLayer) -> AnyLayer:
    bound = 2.4 / layer.weight[0].numel() ** 0.5
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ResponseNorm(nn.Module):
    """Local response normalisation over 5 neighbouring maps (Krizhevsky et al. 2012, section 3.3).

    b_i = a_i / (k + alpha * sum of a_j^2 over the 5 maps around i) ^ beta, with k = 2, alpha = 1e-4, beta = 0.75.
    """

    num_maps, k, alpha, beta = 5, 2.0, 1e-4, 0.75

    def forward(self, x: Tensor) -> Tensor:
        """(n, maps, h, w), kept."""
        # torch divides its alpha by the number of maps; the paper does not.
        return F.local_response_norm(x, self.num_maps, self.alpha * self.num_maps, self.beta, self.k)


class AlexNet(Classic):
    """AlexNet (Krizhevsky, Sutskever and Hinton 2012): 60,965,224 parameters for 1,000 classes at 224 or 227 px.

    Its two columns, one a GPU, are the groups of conv2, conv4 and conv5. The order is the paper's: convolution,
    ReLU, response normalisation, overlapping pooling. The paper says 224 px and computes with 227: a size that
    conv1's stride does not fit exactly is padded by 2 px, which makes 55 x 55 maps of both.
    Weights begin as in He et al. 2015. The paper's own start, N(0, 0.01) with biases of 1, is made for 1,000 classes
    and a million pictures: with 2,000 digits it stood at chance after four epochs, where He's start reached 0.89 in
    three. `start_as_published` sets it. Either wants a small rate: 1e-4 with AdamW, 0.01 with SGD.
    """

    smallest = 64
    pretrained_cfg: ClassVar[dict[str, Any]] = {"architecture": "alexnet", "first_conv": "conv1", "classifier": "fc8"}

    def __init__(self, num_classes: int, in_channels: int, size: tuple[int, int]) -> None:
        super().__init__(num_classes, size)
        self.num_features, self.head_hidden_size = 256, 4096
        padding = [0 if (side - 11) % 4 == 0 else 2 for side in size]
        self.conv1 = nn.Conv2d(in_channels, 96, 11, stride=4, padding=(padding[0], padding[1]))
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.norm = ResponseNorm()
        self.pool = nn.MaxPool2d(3, stride=2)
        self.dropout = nn.Dropout(0.5)
        with torch.no_grad():
            num_inputs = self.forward_features(torch.zeros(1, in_channels, *size)).numel()
        self.fc6 = nn.Linear(num_inputs, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8: nn.Module = self._new_classifier()
        self.apply(_he)

    def start_as_published(self) -> None:
        """Set weights to N(0, 0.01), biases to 1 in conv2, conv4, conv5 and the hidden layers, else 0 (section 5)."""
        biased = {self.conv2, self.conv4, self.conv5, self.fc6, self.fc7}
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.constant_(layer.bias, float(layer in biased))

    def forward_features(self, x: Tensor) -> Tensor:
        """Pictures (n, channels, height, width) -> conv5's pooled maps (n, 256, h, w)."""
        x = self.pool(self.norm(F.relu(self.conv1(x))))
        x = self.pool(self.norm(F.relu(self.conv2(x))))
        x = F.relu(self.conv4(F.relu(self.conv3(x))))
        return self.pool(F.relu(self.conv5(x)))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Pooled maps (n, 256, h, w) -> logits (n, classes), or the second hidden layer (n, 4096)."""
        hidden = self.dropout(F.relu(self.fc6(features.flatten(1))))
        hidden = self.dropout(F.relu(self.fc7(hidden)))
        return hidden if pre_logits else self.fc8(hidden)

    def _new_classifier(self) -> nn.Linear:
        linear = nn.Linear(4096, self.num_classes)
        _he(linear)
        return linear


class Widths(NamedTuple):
    """The maps of one inception module, in the order of the paper's table 1."""

    plain: int
    reduce3: int
    conv3: int
    reduce5: int
    conv5: int
    pooled: int


class Inception(nn.Module):
    """Four branches over the same maps, side by side: 1x1, 3x3, 5x5 and pooling, the larger ones behind a 1x1."""

    def __init__(self, num_maps: int, widths: Widths) -> None:
        super().__init__()
        self.plain = _conv(num_maps, widths.plain, 1)
        self.conv3 = nn.Sequential(_conv(num_maps, widths.reduce3, 1), _conv(widths.reduce3, widths.conv3, 3))
        self.conv5 = nn.Sequential(_conv(num_maps, widths.reduce5, 1), _conv(widths.reduce5, widths.conv5, 5))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _conv(num_maps, widths.pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, maps, h, w) -> (n, plain + conv3 + conv5 + pooled, h, w)."""
        return torch.cat([self.plain(x), self.conv3(x), self.conv5(x), self.pooled(x)], dim=1)


class AuxiliaryClassifier(nn.Module):
    """A small classifier on maps in the middle of the network, which feeds gradient to the layers below it.

    The paper pools 14 x 14 maps to 4 x 4 by windows of 5 with stride 3; here the pooling makes 4 x 4 of any size.
    """

    def __init__(self, num_maps: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.conv = _conv(num_maps, 128, 1)
        self.hidden = nn.Linear(128 * 4 * 4, 1024)
        self.dropout = nn.Dropout(0.7)
        self.classifier: nn.Module = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, maps, h, w) -> logits (n, classes)."""
        hidden = F.relu(self.hidden(self.conv(self.pool(x)).flatten(1)))
        return self.classifier(self.dropout(hidden))


class GoogLeNet(Classic):
    """GoogLeNet (Szegedy et al. 2015), without batch normalisation: 6,998,552 parameters for 1,000 classes.

    With the two auxiliary classifiers 13,378,280; they work in training only. In train mode `forward` returns
    `WithAuxiliary`; the loss of each auxiliary counts `AUXILIARY_WEIGHT`.
    The paper names neither the constants of its response normalisation nor how the weights begin: the constants are
    AlexNet's, and the weights begin as in He et al. 2015, which keeps the signal's size through 22 layers of ReLU.
    """

    smallest = 32
    pretrained_cfg: ClassVar[dict[str, Any]] = {
        "architecture": "googlenet",
        "first_conv": "stem.0.0",
        "classifier": ("classifier", "auxiliary.0.classifier", "auxiliary.1.classifier"),
    }

    def __init__(self, num_classes: int, in_channels: int, size: tuple[int, int]) -> None:
        super().__init__(num_classes, size)
        self.num_features = self.head_hidden_size = 1024
        pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.stem = nn.Sequential(
            _conv(in_channels, 64, 7, stride=2), pool, ResponseNorm(), _conv(64, 64, 1), _conv(64, 192, 3),
            ResponseNorm(), pool,
        )  # fmt: skip
        self.lower = nn.Sequential(
            Inception(192, Widths(64, 96, 128, 16, 32, 32)),
            Inception(256, Widths(128, 128, 192, 32, 96, 64)),
            pool,
            Inception(480, Widths(192, 96, 208, 16, 48, 64)),
        )
        self.middle = nn.Sequential(
            Inception(512, Widths(160, 112, 224, 24, 64, 64)),
            Inception(512, Widths(128, 128, 256, 24, 64, 64)),
            Inception(512, Widths(112, 144, 288, 32, 64, 64)),
        )
        self.upper = nn.Sequential(
            Inception(528, Widths(256, 160, 320, 32, 128, 128)),
            pool,
            Inception(832, Widths(256, 160, 320, 32, 128, 128)),
            Inception(832, Widths(384, 192, 384, 48, 128, 128)),
        )
        self.auxiliary = nn.ModuleList([AuxiliaryClassifier(512, num_classes), AuxiliaryClassifier(528, num_classes)])
        self.dropout = nn.Dropout(0.4)
        self.classifier: nn.Module = nn.Linear(1024, num_classes)
        self.apply(_he)

    def forward_features(self, x: Tensor) -> Tensor:
        """Pictures (n, channels, height, width) -> the last inception module's maps (n, 1024, h, w)."""
        return self.upper(self.middle(self.lower(self.stem(x))))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps (n, 1024, h, w) -> logits (n, classes), or their means (n, 1024)."""
        pooled = self.dropout(features.mean(dim=(2, 3)))
        return pooled if pre_logits else self.classifier(pooled)

    def forward(self, x: Tensor) -> Tensor | WithAuxiliary:
        """Pictures (n, channels, height, width) -> logits (n, classes); in train mode `WithAuxiliary`."""
        if not self.training:
            return super().forward(x)
        lower = self.lower(self.stem(x))
        middle = self.middle(lower)
        auxiliary = tuple(branch(maps) for branch, maps in zip(self.auxiliary, (lower, middle), strict=True))
        return WithAuxiliary(self.forward_head(self.upper(middle)), auxiliary)

    def get_classifier(self) -> nn.Module:
        """The last linear layer of the main path."""
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Put fresh last layers for `num_classes` in place, the auxiliary ones too; with 0, none."""
        self.num_classes = num_classes
        for name in self.pretrained_cfg["classifier"]:
            self.set_submodule(name, self._new_classifier() if num_classes else nn.Identity())

    def _new_classifier(self) -> nn.Linear:
        linear = nn.Linear(1024, self.num_classes)
        _he(linear)
        return linear


def _conv(num_inputs: int, num_maps: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(num_inputs, num_maps, kernel, stride, padding=kernel // 2), nn.ReLU(inplace=True))


def _he(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


CLASSICS: dict[str, type[LeNet] | type[AlexNet] | type[GoogLeNet]] = {
    "lenet": LeNet,
    "alexnet": AlexNet,
    "googlenet": GoogLeNet,
}
"""The classics by name, in the order of their years."""
