import pytest
import torch

from vizsla.training.augment import colour, geometry


def _random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _numbered(num: int = 64, height: int = 6, width: int = 8) -> torch.Tensor:
    """Pictures in which each pixel tells its row and column."""
    rows = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.uint8)[None].expand(height, width)
    return torch.stack([rows, columns, rows], dim=2).expand(num, height, width, 3).contiguous()


def test_nothing_asked_changes_nothing() -> None:
    pixels = _numbered()
    assert geometry(pixels, size=(6, 8), shift=0, flip=False, random=_random()) is pixels
    pictures = torch.rand(2, 3, 4, 4)
    assert colour(pictures, strength=0, random=_random()) is pictures


def test_windows_are_cut_everywhere_and_stay_inside() -> None:
    cut = geometry(_numbered(500), size=(4, 5), shift=0, flip=False, random=_random())
    assert cut.shape == (500, 4, 5, 3)
    assert set(cut[:, 0, 0, 0].tolist()) == {0, 1, 2}
    assert set(cut[:, 0, 0, 1].tolist()) == {0, 1, 2, 3}
    steps = cut[:, 1:, :, 0].int() - cut[:, :-1, :, 0].int()
    assert steps.unique().tolist() == [1]  # a window, not a shuffle


def test_half_of_the_pictures_are_mirrored_whole() -> None:
    pixels = _numbered(400)
    seen = geometry(pixels, size=(6, 8), shift=0, flip=True, random=_random())
    mirrored = (seen == pixels.flip(2)).flatten(1).all(1)
    plain = (seen == pixels).flatten(1).all(1)
    assert (mirrored ^ plain).all()
    assert 150 < int(mirrored.sum()) < 250


def test_shift_repeats_the_edge() -> None:
    pixels = _numbered(300)
    seen = geometry(pixels, size=(6, 8), shift=2, flip=False, random=_random())
    assert seen.shape == pixels.shape
    offsets = seen[:, 3, 4, 0].int() - 3
    assert set(offsets.tolist()) == {-2, -1, 0, 1, 2}
    up = seen[offsets == -2][0]
    assert up[:, 0, 0].tolist() == [0, 0, 0, 1, 2, 3]


def test_colour_changes_each_picture_differently_and_stays_in_range() -> None:
    pictures = torch.rand(16, 3, 8, 8, generator=_random(1))
    seen = colour(pictures, strength=0.5, random=_random())
    assert seen.shape == pictures.shape
    assert float(seen.min()) >= 0
    assert float(seen.max()) <= 1
    factors = seen.mean(dim=(1, 2, 3)) / pictures.mean(dim=(1, 2, 3))
    assert float(factors.std()) > 0.05


def test_grey_pictures_have_no_saturation_to_change() -> None:
    pictures = torch.rand(4, 1, 8, 8, generator=_random(1))
    assert colour(pictures, strength=0.5, random=_random()).shape == pictures.shape


@pytest.mark.parametrize("flip", [True, False])
def test_the_same_seed_gives_the_same_pictures(flip: bool) -> None:
    def once() -> torch.Tensor:
        random = _random(7)
        cut = geometry(_numbered(), size=(5, 5), shift=1, flip=flip, random=random)
        return colour(cut.permute(0, 3, 1, 2).float() / 255, strength=0.3, random=random)

    assert torch.equal(once(), once())
