import colorsys
import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference
from PIL import Image
from torch import Tensor

from vizsla.training.augment import Draws, draw, mix, pictures
from vizsla.training.spec import TrainingSpec

EVERYTHING: dict[str, Any] = {
    "shift": 3,
    "flip": True,
    "flip_vertical": True,
    "quarter_turns": True,
    "rotate": 30.0,
    "zoom": 0.2,
    "jitter": 0.4,
    "hue": 0.2,
    "noise": 0.1,
    "auto_augment": "rand",
    "erase": 0.5,
    "mixup": 0.4,
    "cutmix": 1.0,
}
OFF: dict[str, Any] = {"flip": False, "jitter": 0.0}


def _spec(**settings: Any) -> TrainingSpec:
    return TrainingSpec(**({"tune": "full"} | OFF | settings)).resolved(has_weights=True)


def _draw(spec: TrainingSpec, pixels: Tensor, size: tuple[int, int] | None = None, seed: int = 0) -> Draws:
    num, height, width, channels = pixels.shape
    random = torch.Generator().manual_seed(seed)
    return draw(spec, num, stored=(height, width), size=size or (height, width), channels=channels, random=random)


def _see(pixels: Tensor, size: tuple[int, int] | None = None, seed: int = 0, **settings: Any) -> Tensor:
    """uint8 (n, h, w, C): what these settings make of the pictures."""
    size, spec = size or (pixels.shape[1], pixels.shape[2]), _spec(**settings)
    seen = pictures(pixels, _draw(spec, pixels, size, seed), spec, size=size)
    return (seen * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def _numbered(num: int = 64, height: int = 6, width: int = 8) -> Tensor:
    """Pictures in which each pixel tells its row and column."""
    rows = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.uint8)[None].expand(height, width)
    return torch.stack([rows, columns, rows], dim=2).expand(num, height, width, 3).contiguous()


def _noisy(num: int = 33, height: int = 20, width: int = 20, channels: int = 3) -> Tensor:
    random = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (num, height, width, channels), dtype=torch.uint8, generator=random)


def _smooth(height: int = 48, width: int = 48) -> Tensor:
    """One picture (1, h, w, 3) of slow waves, which sampling leaves nearly as they are."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    waves = [torch.sin(3 * x + 1 + c) * torch.cos(4 * y - c) for c in range(3)]
    return (torch.stack(waves, dim=2) * 100 + 128).to(torch.uint8)[None]


def test_nothing_asked_changes_nothing_and_draws_nothing() -> None:
    pixels, spec, random = _noisy(), _spec(), torch.Generator().manual_seed(3)
    before = random.get_state()
    draws = draw(spec, 33, stored=(20, 20), size=(20, 20), channels=3, random=random)
    assert draws == Draws(num=33)
    assert torch.equal(random.get_state(), before)
    seen = pictures(pixels, draws, spec, size=(20, 20))
    assert torch.equal(seen, pixels.permute(0, 3, 1, 2).float() / 255)
    targets = torch.eye(33)
    assert mix(seen, targets, draws) == (seen, targets)


CASES = [{name: value} for name, value in EVERYTHING.items()]
CASES += [EVERYTHING, EVERYTHING | {"auto_augment": "trivial", "rotate": 0.0, "zoom": 0.0}, {"auto_augment": "trivial"}]


@pytest.mark.parametrize("settings", CASES, ids=lambda case: "+".join(case) if len(case) < 3 else str(len(case)))
@pytest.mark.parametrize("size", [(16, 16), (12, 18)], ids=["square", "oblong"])
@pytest.mark.parametrize("channels", [3, 1], ids=["colour", "grey"])
def test_a_part_of_a_batch_sees_exactly_what_the_whole_sees(
    settings: dict[str, Any], size: tuple[int, int], channels: int
) -> None:
    pixels, targets, spec = _noisy(channels=channels), torch.eye(33), _spec(**settings)
    before = pixels.clone()
    draws = _draw(spec, pixels, size)
    whole, mixed_targets = mix(pictures(pixels, draws, spec, size=size), targets, draws)
    assert torch.equal(pixels, before)
    assert whole.shape == (33, channels, *size)
    assert whole.dtype == torch.float32
    assert whole.is_contiguous(memory_format=torch.channels_last)
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 1
    for parts in ((0, 8, 16, 33), (0, 2, 32, 33)):
        for start, stop in itertools.pairwise(parts):
            some = draws.rows(start, stop)
            seen = pictures(pixels[start:stop], some, spec, size=size)
            seen, labels = mix(seen, targets[start:stop], some)
            assert torch.equal(seen, whole[start:stop])
            assert torch.equal(labels @ torch.ones(33), torch.ones(stop - start))
            assert torch.equal(labels, mixed_targets[start:stop])


def test_the_same_seed_gives_the_same_pictures_and_another_gives_others() -> None:
    settings = {name: value for name, value in EVERYTHING.items() if name != "tune"}
    first = _see(_noisy(), seed=7, **settings)
    assert torch.equal(first, _see(_noisy(), seed=7, **settings))
    assert not torch.equal(first, _see(_noisy(), seed=8, **settings))


def test_windows_are_cut_everywhere_and_stay_inside() -> None:
    cut = _see(_numbered(500), size=(4, 5))
    assert cut.shape == (500, 4, 5, 3)
    assert set(cut[:, 0, 0, 0].tolist()) == {0, 1, 2}
    assert set(cut[:, 0, 0, 1].tolist()) == {0, 1, 2, 3}
    steps = cut[:, 1:, :, 0].int() - cut[:, :-1, :, 0].int()
    assert steps.unique().tolist() == [1]  # a window, not a shuffle


@pytest.mark.parametrize(("setting", "axis"), [("flip", 2), ("flip_vertical", 1)])
def test_half_of_the_pictures_are_mirrored_whole(setting: str, axis: int) -> None:
    pixels = _numbered(400)
    seen = _see(pixels, **{setting: True})
    mirrored = (seen == pixels.flip(axis)).flatten(1).all(1)
    plain = (seen == pixels).flatten(1).all(1)
    assert (mirrored ^ plain).all()
    assert 150 < int(mirrored.sum()) < 250


def test_shift_repeats_the_edge() -> None:
    pixels = _numbered(300)
    seen = _see(pixels, shift=2)
    assert seen.shape == pixels.shape
    offsets = seen[:, 3, 4, 0].int() - 3
    assert set(offsets.tolist()) == {-2, -1, 0, 1, 2}
    up = seen[offsets == -2][0]
    assert up[:, 0, 0].tolist() == [0, 0, 0, 1, 2, 3]


def test_quarter_turns_are_exact_and_oblong_pictures_are_only_turned_upside_down() -> None:
    square = _noisy(200, 7, 7)
    turns = _draw(_spec(quarter_turns=True), square).turns
    assert turns is not None
    seen = _see(square, quarter_turns=True)
    assert set(turns.tolist()) == {0, 1, 2, 3}
    for picture, before, turn in zip(seen, square, turns.tolist(), strict=True):
        assert torch.equal(picture, torch.rot90(before, turn))
    oblong = _noisy(40, 5, 9)
    half = (_see(oblong, quarter_turns=True) == torch.rot90(oblong, 2, (1, 2))).flatten(1).all(1)
    assert 10 < int(half.sum()) < 30


def test_one_map_of_all_geometry_agrees_with_the_exact_gather() -> None:
    settings: dict[str, Any] = {"flip": True, "flip_vertical": True, "quarter_turns": True}
    for size in ((9, 9), (6, 11)):
        pixels = _noisy(64, 12, 14)
        exact = _see(pixels, size, **settings)
        # A turn too small to be seen sends all pictures through the sampler; its number is drawn after the others.
        assert torch.equal(_see(pixels, size, rotate=1e-6, **settings), exact)


def test_rotation_and_zoom_agree_with_pillow() -> None:
    pixels = _smooth().expand(8, -1, -1, -1)
    spec = _spec(rotate=40.0, zoom=0.3)
    draws = _draw(spec, pixels)
    assert draws.affine is not None
    seen = _see(pixels, rotate=40.0, zoom=0.3)
    middle = slice(14, 34)
    for picture, map_ in zip(seen, draws.affine.numpy(), strict=True):
        # Pillow's map is of pixels from the corner, ours of pixels from the centre.
        to_centre = np.array([[1, 0, -24], [0, 1, -24], [0, 0, 1]])
        whole = np.linalg.inv(to_centre) @ map_ @ to_centre
        image = Image.fromarray(pixels[0].numpy())
        expected = image.transform((48, 48), Image.Transform.AFFINE, whole[:2].flatten(), Image.Resampling.BILINEAR)
        found = picture.numpy().astype(int) - np.asarray(expected)
        assert abs(found[middle, middle]).max() <= 2
        angle = np.degrees(np.arctan2(map_[1, 0], map_[0, 0]))
        scale = 1 / np.hypot(map_[0, 0], map_[1, 0])
        assert abs(angle) <= 40
        assert 0.7 <= scale <= 1.3
        turned = np.asarray(image.rotate(angle, Image.Resampling.BILINEAR)).astype(int)
        if abs(scale - 1) < 0.02:
            assert abs(turned - picture.numpy())[middle, middle].mean() < 3


def test_a_turned_picture_goes_on_as_its_mirror_image() -> None:
    pixels = torch.full((16, 20, 20, 3), 90, dtype=torch.uint8)
    assert (_see(pixels, rotate=180.0, zoom=0.9) == 90).all()


def test_jitter_is_brightness_then_contrast_then_saturation() -> None:
    pixels = (_noisy(16) // 4 + 96).to(torch.uint8)  # far from black and white: nothing is cut off
    spec = _spec(jitter=0.2)
    draws = _draw(spec, pixels)
    assert draws.jitter is not None
    seen = pictures(pixels, draws, spec, size=(20, 20))
    for picture, before, factors in zip(seen, pixels, draws.jitter.tolist(), strict=True):
        expected = reference.adjust_brightness(before.permute(2, 0, 1).float() / 255, factors[0])
        expected = reference.adjust_contrast(expected, factors[1])
        expected = reference.adjust_saturation(expected, factors[2])
        assert torch.allclose(picture, expected, atol=1e-3)
        assert all(0.8 <= factor <= 1.2 for factor in factors)


def test_hue_turns_the_colour_and_leaves_grey_alone() -> None:
    pixels = _noisy(4, 4, 4)
    spec = _spec(hue=0.1)
    draws = _draw(spec, pixels)
    assert draws.hue is not None
    seen = pictures(pixels, draws, spec, size=(4, 4)).permute(0, 2, 3, 1)
    for picture, before, hue in zip(seen, pixels.double() / 255, draws.hue.tolist(), strict=True):
        assert abs(hue) <= 0.1
        for colour, old in zip(picture.reshape(-1, 3).tolist(), before.reshape(-1, 3).tolist(), strict=True):
            luma, i, q = colorsys.rgb_to_yiq(*old)
            turned = complex(i, q) * np.exp(-2j * np.pi * hue)
            expected = colorsys.yiq_to_rgb(luma, turned.real, turned.imag)
            assert colour == pytest.approx(expected, abs=0.03)
    grey = _noisy(4, channels=1)
    assert torch.equal(_see(grey.expand(-1, -1, -1, 3), hue=0.5), grey.expand(-1, -1, -1, 3))
    assert _draw(spec, grey).hue is None
    red = torch.tensor([[[[200, 20, 20]]]], dtype=torch.uint8).expand(30, 1, 1, 3)
    towards_green = _draw(_spec(hue=0.1), red).hue
    assert towards_green is not None
    more = _see(red, hue=0.1)[:, 0, 0].int()
    assert (more[towards_green > 0.02, 1] > more[towards_green > 0.02, 2]).all()
    assert (more[towards_green < -0.02, 1] < more[towards_green < -0.02, 2]).all()


def test_noise_is_gaussian_and_its_own_for_each_picture() -> None:
    grey = torch.full((8, 64, 64, 3), 128, dtype=torch.uint8)
    spec = _spec(noise=0.05)
    seen = pictures(grey, _draw(spec, grey), spec, size=(64, 64)).flatten(1).double()
    noise = (seen - 128 / 255) / 0.05
    assert float(noise.mean(1).abs().max()) < 0.04
    assert float((noise.std(1) - 1).abs().max()) < 0.03
    assert float((noise**4).mean() - 3) == pytest.approx(0, abs=0.1)
    between = torch.corrcoef(noise) - torch.eye(8)
    assert float(between.abs().max()) < 0.05
    assert float(torch.corrcoef(torch.stack([noise[0, 1:], noise[0, :-1]]))[0, 1].abs()) < 0.05
    for lag in (3, 64, 192):
        assert float((noise[:, lag:] * noise[:, :-lag]).mean().abs()) < 0.02


def test_a_rectangle_of_some_pictures_is_filled_with_their_mean() -> None:
    pixels = _noisy(400, 24, 32)
    boxes = _draw(_spec(erase=0.25), pixels).erased
    assert boxes is not None
    seen = _see(pixels, erase=0.25)
    some = boxes[:, 2] > 0
    assert 60 < int(some.sum()) < 140
    assert torch.equal(seen[~some], pixels[~some])
    shares = []
    for picture, before, (top, left, bottom, right) in zip(seen[some], pixels[some], boxes[some].tolist(), strict=True):
        inside = torch.zeros(24, 32, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert torch.equal(picture[~inside], before[~inside])
        mean = before.double().mean((0, 1))
        assert ((picture[inside].double() - mean).abs() <= 0.5).all()
        shares.append(float(inside.float().mean()))
    assert min(shares) > 0.005
    assert max(shares) < 0.4
    assert sum(shares) / len(shares) == pytest.approx((0.02 + 1 / 3) / 2, abs=0.04)


def test_mixup_blends_neighbours_by_the_weight_of_their_labels() -> None:
    seen, targets = torch.rand(7, 3, 6, 8), torch.eye(7)
    draws = _draw(_spec(mixup=0.8), torch.zeros(7, 6, 8, 3, dtype=torch.uint8))
    mixed, labels = mix(seen, targets, draws)
    for first in (0, 2, 4):
        own = float(labels[first, first])
        assert float(labels[first, first + 1]) == pytest.approx(1 - own)
        assert float(labels[first + 1, first + 1]) == pytest.approx(own)
        assert torch.allclose(mixed[first], own * seen[first] + (1 - own) * seen[first + 1])
        assert torch.allclose(mixed[first + 1], own * seen[first + 1] + (1 - own) * seen[first])
    assert torch.equal(mixed[6], seen[6])
    assert labels[6].tolist() == targets[6].tolist()


def test_cutmix_weighs_labels_by_the_exact_area() -> None:
    num = 200
    seen = torch.arange(num).view(-1, 1, 1, 1).expand(num, 1, 12, 20).float()
    mixed, labels = mix(seen, torch.eye(num), _draw(_spec(cutmix=1.0), torch.zeros(num, 12, 20, 1, dtype=torch.uint8)))
    own = (mixed == seen).float().mean((1, 2, 3))
    assert torch.allclose(labels.diagonal(), own, atol=1e-6)
    assert torch.equal(own[::2], own[1::2])
    assert set(mixed[10].unique().tolist()) <= {10.0, 11.0}
    assert 0.5 < float(own.mean()) < 0.75  # about a third is pasted, for some boxes are cut at the edge


def test_with_both_on_each_pair_uses_one_of_the_two() -> None:
    draws = _draw(_spec(mixup=0.4, cutmix=1.0), torch.zeros(400, 16, 16, 1, dtype=torch.uint8))
    assert draws.pasted is not None
    cut = draws.pasted[:, 2] > 0
    assert torch.equal(cut[::2], cut[1::2])
    assert 140 < int(cut.sum()) < 260


def test_mixing_keeps_half_precision_and_leaves_a_single_picture_alone() -> None:
    draws = _draw(_spec(mixup=1.0), torch.zeros(1, 4, 4, 1, dtype=torch.uint8))
    assert draws.weight is None
    draws = _draw(_spec(cutmix=1.0), torch.zeros(2, 4, 4, 1, dtype=torch.uint8))
    assert mix(torch.rand(2, 1, 4, 4).half(), torch.eye(2), draws)[0].dtype == torch.float16
    assert draws.rows(1, 2).weight is None
    with pytest.raises(AssertionError, match="pairs"):
        _draw(_spec(cutmix=1.0), torch.zeros(6, 4, 4, 1, dtype=torch.uint8)).rows(1, 3)
