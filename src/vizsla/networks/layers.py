"""What layers and functions are called in a drawing, and which of them are drawn."""

from __future__ import annotations

from torch import nn

from vizsla.networks.classic import ResponseNorm, ScaledTanh, Subsampling, TableConvolution
from vizsla.networks.drawing import Kind

# torch's name of a function: what it is called, and its kind.
FUNCTIONS: dict[str, tuple[str, Kind]] = {
    "conv2d": ("Conv", "conv"),
    "linear": ("Linear", "linear"),
    "matmul": ("Matrix product", "attention"),
    "__matmul__": ("Matrix product", "attention"),
    "bmm": ("Matrix product", "attention"),
    "einsum": ("Product", "attention"),
    "scaled_dot_product_attention": ("Attention", "attention"),
    "_native_multi_head_attention": ("Attention", "attention"),
    "multi_head_attention_forward": ("Attention", "attention"),
    "_transformer_encoder_layer_fwd": ("Transformer layer", "attention"),
    "max_pool2d": ("Max pool", "pool"),
    "boolean_dispatch": ("Max pool", "pool"),
    "avg_pool2d": ("Average pool", "pool"),
    "adaptive_avg_pool2d": ("Average pool", "pool"),
    "adaptive_max_pool2d": ("Max pool", "pool"),
    "mean": ("Mean", "pool"),
    "amax": ("Maximum", "pool"),
    "interpolate": ("Resize", "pool"),
    "pixel_shuffle": ("Pixel shuffle", "pool"),
    "batch_norm": ("BatchNorm", "norm"),
    "layer_norm": ("LayerNorm", "norm"),
    "group_norm": ("GroupNorm", "norm"),
    "rms_norm": ("RMSNorm", "norm"),
    "local_response_norm": ("Response norm", "norm"),
    "normalize": ("Normalise", "norm"),
    "relu": ("ReLU", "act"),
    "relu_": ("ReLU", "act"),
    "relu6": ("ReLU6", "act"),
    "leaky_relu": ("Leaky ReLU", "act"),
    "elu": ("ELU", "act"),
    "gelu": ("GELU", "act"),
    "silu": ("SiLU", "act"),
    "hardswish": ("Hardswish", "act"),
    "hardsigmoid": ("Hardsigmoid", "act"),
    "mish": ("Mish", "act"),
    "sigmoid": ("Sigmoid", "act"),
    "tanh": ("tanh", "act"),
    "softmax": ("Softmax", "act"),
    "log_softmax": ("Log softmax", "act"),
    "cat": ("concat", "merge"),
    "concat": ("concat", "merge"),
    "stack": ("stack", "merge"),
    "add": ("+", "merge"),
    "__add__": ("+", "merge"),
    "add_": ("+", "merge"),
    "__iadd__": ("+", "merge"),
    "__radd__": ("+", "merge"),
    "mul": ("×", "merge"),
    "mul_": ("×", "merge"),
    "__mul__": ("×", "merge"),
    "__imul__": ("×", "merge"),
    "__rmul__": ("×", "merge"),
    "sub": ("−", "merge"),
    "__sub__": ("−", "merge"),
}
SHORT = {
    "BatchNorm2d": "BatchNorm",
    "BatchNormAct2d": "BatchNorm",
    "LayerNorm2d": "LayerNorm",
    "FrozenBatchNorm2d": "BatchNorm",
    "Hardswish": "Hardswish",
    "LeakyReLU": "Leaky ReLU",
    "Tanh": "tanh",
    "ScaledTanh": "tanh",
    "SwishMe": "SiLU",
    "ResponseNorm": "Response norm",
    "Subsampling": "Subsampling 2 × 2",
    "FastAdaptiveAvgPool": "Global average pool",
}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, ResponseNorm)
ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid),
    *(nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softmax, nn.LogSoftmax, ScaledTanh),
)
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d, Subsampling, nn.Upsample)


def is_whole(module: nn.Module) -> bool:
    """Whether a module is one layer, whatever it calls inside."""
    return not any(module.children()) or isinstance(module, nn.MultiheadAttention)


def is_shown(module: nn.Module) -> bool:
    """Whether a layer is worth a row: not one that only changes the order of numbers, or that passes them on."""
    silent = (nn.Identity, nn.Flatten, nn.Unflatten)
    passes = isinstance(module, nn.Dropout | nn.Dropout2d) and not module.p
    return not isinstance(module, silent) and not passes


def is_drawn(function: str, num_inputs: int, has_parameters: bool) -> bool:
    """Whether a function that a block calls itself is worth a row: sums and products only of several things."""
    if function not in FUNCTIONS:
        return num_inputs > 1 or (has_parameters and not function.startswith("_"))
    return FUNCTIONS[function][1] != "merge" or num_inputs > 1 or has_parameters


def function(name: str, parameters: list[str]) -> tuple[str, Kind]:
    """What a function is called, with the parameters that it takes itself, and its kind."""
    label, kind = FUNCTIONS.get(name, (name.strip("_").replace("_", " "), "merge"))
    if parameters and kind == "merge":
        return f"{label} {', '.join(parameters)}".replace("_", " "), "other"
    return label, kind


def joins(kind: Kind, before: Kind) -> bool:
    """Whether a row of this kind is a word on the row before it, not one of its own."""
    if kind == "norm":
        return before in ("conv", "linear")
    return kind == "act" and before != "act"


def kind(module: nn.Module) -> Kind:
    """What sort of layer it is."""
    name = type(module).__name__
    kinds: list[tuple[Kind, bool]] = [
        ("conv", isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | TableConvolution)),
        ("linear", isinstance(module, nn.Linear)),
        ("attention", isinstance(module, nn.MultiheadAttention) or "Attention" in name),
        ("norm", isinstance(module, NORMS) or "Norm" in name),
        ("act", _is_word(module)),
        ("pool", isinstance(module, POOLS) or "Pool" in name),
    ]
    return next((kind for kind, fits in kinds if fits), "other")


def _is_word(module: nn.Module) -> bool:
    if isinstance(module, (*ACTIVATIONS, nn.Dropout, nn.Dropout2d)):
        return True
    # timm's own activations hold nothing and are named for what they do.
    name = type(module).__name__
    return not any(True for _ in module.parameters()) and any(
        word in name for word in ("Swish", "Mish", "Sigmoid", "ELU")
    )


def label(module: nn.Module) -> str:
    """What a layer is called: its kind and what makes it that one."""
    if isinstance(module, nn.Conv2d | TableConvolution):
        return _convolution(module)
    if isinstance(module, nn.Linear):
        return f"Linear {module.out_features}"
    if isinstance(module, nn.AdaptiveAvgPool2d):
        whole = module.output_size in (1, (1, 1))
        return "Global average pool" if whole else f"Average pool to {_sides(module.output_size)}"
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        name = "Max pool" if isinstance(module, nn.MaxPool2d) else "Average pool"
        return f"{name} {_sides(module.kernel_size)}{_stride(module.stride)}"
    if isinstance(module, nn.Dropout | nn.Dropout2d):
        return f"dropout {module.p:g}"
    name = type(module).__name__
    return SHORT.get(name, name)


def _convolution(module: nn.Conv2d | TableConvolution) -> str:
    if isinstance(module, TableConvolution):
        return f"Table conv {_sides(module.kernel_size)}, {len(module.bias)}"
    alone = module.groups == module.in_channels == module.out_channels and module.groups > 1
    name = "Depthwise" if alone else "Conv"
    grouped = f" in {module.groups} groups" if module.groups > 1 and not alone else ""
    dilated = f" dilated {module.dilation[0]}" if max(module.dilation) > 1 else ""
    return f"{name} {_sides(module.kernel_size)}, {module.out_channels}{_stride(module.stride)}{grouped}{dilated}"


def _sides(value: object) -> str:
    sides = value if isinstance(value, tuple | list) else (value, value)
    return " × ".join(map(str, sides))


def _stride(value: object) -> str:
    sides = value if isinstance(value, tuple | list) else (value, value)
    return "" if set(sides) == {1} else f" / {sides[0]}"
