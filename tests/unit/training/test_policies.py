from collections.abc import Callable

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from vizsla.training import policies
from vizsla.training.policies import OPERATIONS, Choice

References = dict[str, tuple[float, Callable[[Tensor], Tensor]]]
# What each operation is compared with: its parameter, and torchvision's function of the same.
AGAINST: References = {
    "brightness": (1.4, lambda p: reference.adjust_brightness(p, 1.4)),
    "colour": (0.3, lambda p: reference.adjust_saturation(p, 0.3)),
    "contrast": (1.7, lambda p: reference.adjust_contrast(p, 1.7)),
    "sharpness": (1.9, lambda p: reference.adjust_sharpness(p, 1.9)),
    "posterize": (3, lambda p: reference.posterize(p, 3)),
    "solarize": (100, lambda p: reference.solarize(p, 100)),
    "autocontrast": (0, reference.autocontrast),
    "equalize": (0, reference.equalize),
}
ROUNDED = {"brightness": 1, "colour": 2, "contrast": 2, "sharpness": 1, "autocontrast": 1}


def _pixels(num: int = 12, channels: int = 3) -> Tensor:
    """Pictures of few grey levels, dark and light, one of them of a single colour."""
    random = torch.Generator().manual_seed(1)
    found = torch.randn(num, 40, 34, channels, generator=random) * 25 + 110
    found[-1] = 40
    return found.clamp(0, 255).to(torch.uint8)


def _all(name: str, level: float, num: int) -> Choice:
    return Choice(torch.full((num, 1), OPERATIONS.index(name)), torch.full((num, 1), level, dtype=torch.float64))


@pytest.mark.parametrize("channels", [3, 1], ids=["colour", "grey"])
@pytest.mark.parametrize("name", AGAINST)
def test_operations_on_colour_are_those_of_torchvision(name: str, channels: int) -> None:
    level, expected = AGAINST[name]
    pixels = _pixels(channels=channels)
    seen = policies.apply(pixels, _all(name, level, len(pixels)))
    assert seen.dtype == torch.uint8
    difference = seen.int() - expected(pixels.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).int()
    assert int(difference.abs().max()) <= ROUNDED.get(name, 0)
    assert torch.equal(seen, pixels) == (name == "colour" and channels == 1)


def test_operations_on_colour_are_those_of_pillow() -> None:
    pixels = _pixels()
    for name, level, change in (
        ("brightness", 0.6, lambda image: ImageEnhance.Brightness(image).enhance(0.6)),
        ("colour", 1.6, lambda image: ImageEnhance.Color(image).enhance(1.6)),
        ("contrast", 0.5, lambda image: ImageEnhance.Contrast(image).enhance(0.5)),
        ("sharpness", 0.2, lambda image: ImageEnhance.Sharpness(image).enhance(0.2)),
        ("autocontrast", 0, ImageOps.autocontrast),
        ("equalize", 0, ImageOps.equalize),
    ):
        seen = policies.apply(pixels, _all(name, level, len(pixels)))
        for picture, before in zip(seen, pixels, strict=True):
            expected = torch.frombuffer(
                bytearray(change(Image.fromarray(before.numpy())).tobytes()), dtype=torch.uint8
            ).view(before.shape)
            assert int((picture.int() - expected.int()).abs().max()) <= ROUNDED.get(name, 0), name


def test_only_the_pictures_that_drew_an_operation_change_and_in_the_order_drawn() -> None:
    pixels = _pixels()
    choice = policies.draw("rand", 9.0, len(pixels), torch.Generator().manual_seed(0))
    seen = policies.apply(pixels, choice)
    for row in range(len(pixels)):
        expected = pixels[row : row + 1]
        for operation, level in zip(choice.operations[row].tolist(), choice.levels[row], strict=True):
            if operation >= policies.GEOMETRIC:
                expected = policies.COLOUR[OPERATIONS[operation]](expected, level.float().view(1, 1, 1, 1))
        assert torch.equal(seen[row : row + 1], expected)


@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_every_operation_is_drawn_as_often_as_any_other(policy: str) -> None:
    operations, levels = policies.draw(policy, 9.0, 5000, torch.Generator().manual_seed(0))
    assert operations.shape == levels.shape == (5000, 1 if policy == "trivial" else 2)
    counts = operations.flatten().bincount(minlength=len(OPERATIONS)).double() / operations.numel()
    assert counts.tolist() == pytest.approx([1 / 14] * 14, abs=0.02)


def test_the_strengths_are_those_of_the_papers() -> None:
    ranges = {"shear_x": (-0.99, 0.99), "rotate": (-2.3562, 2.3562), "contrast": (0.01, 1.99), "posterize": (2, 8)}
    operations, levels = policies.draw("trivial", 9.0, 20_000, torch.Generator().manual_seed(0))
    for name, (low, high) in (ranges | {"solarize": (0, 255), "translate_y": (-1 / 7, 1 / 7)}).items():
        found = levels[operations == OPERATIONS.index(name)]
        assert float(found.min()) == pytest.approx(low, abs=1e-3)
        assert float(found.max()) == pytest.approx(high, abs=1e-3)
    operations, levels = policies.draw("rand", 10.0, 5000, torch.Generator().manual_seed(0))
    for name, expected in (
        ("shear_y", {-0.1, 0.1}),
        ("brightness", {0.7, 1.3}),
        ("posterize", {7}),
        ("solarize", {170}),
    ):
        assert {round(v, 6) for v in levels[operations == OPERATIONS.index(name)].tolist()} == expected


def test_maps_move_and_shear_as_pillow_does() -> None:
    picture = Image.fromarray(_pixels(1)[0].numpy())
    for name, level, data in (
        ("shear_x", 0.4, lambda x, y: (x + 0.4 * y, y)),
        ("shear_y", -0.3, lambda x, y: (x, y - 0.3 * x)),
        ("translate_x", 0.2, lambda x, y: (x + 0.2 * picture.width, y)),
        ("translate_y", 0.5, lambda x, y: (x, y + 0.5 * picture.height)),
    ):
        (found,) = policies.matrices(_all(name, level, 1), (picture.height, picture.width))[0]
        assert (found @ torch.tensor([3.0, 5.0, 1.0], dtype=torch.float64))[:2].tolist() == pytest.approx(
            data(3.0, 5.0)
        )
    assert torch.equal(policies.matrices(_all("equalize", 0.0, 2), (9, 9))[:, 0], torch.eye(3).double().repeat(2, 1, 1))
