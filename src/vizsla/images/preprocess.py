"""The one definition of how the bytes of a picture become the array that a network is fed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from vizsla.errors import InvalidInput
from vizsla.images.decode import Size, decode

MAX_SIDE = 4096

Resize = Literal["squash", "crop", "fill", "half-crop"]
Interpolation = Literal["bilinear", "bicubic", "lanczos"]


class Preprocess(BaseModel):
    """How a picture becomes an array: training, evaluation and serving all use this with the same stored settings.

    Normalisation (mean and deviation) is not part of it: that is in the network's graph.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(ge=1, le=MAX_SIDE, description="Width in px.")
    height: int = Field(ge=1, le=MAX_SIDE, description="Height in px.")
    channels: Literal[1, 3] = Field(description="1 for grey, 3 for red, green and blue.")
    resize: Resize = Field(
        description="How a picture of another shape is fitted: stretched (squash), cut at the centre (crop), "
        "padded with black (fill), or half of each (half-crop)."
    )
    interpolation: Interpolation = Field("bicubic", description="How pixels are interpolated when resizing.")

    def to_array(self, source: bytes | Path) -> npt.NDArray[np.uint8]:
        """The picture as uint8 of shape (height, width, channels), C-contiguous.

        Raises:
            InvalidInput: it is not a whole picture of an allowed format and size; `what` is a short reason.
        """
        image = decode(source, target=Size(self.width, self.height))
        mode = "L" if self.channels == 1 else "RGB"
        image = image if image.mode == mode else image.convert(mode)
        return np.array(self._fit(image), dtype=np.uint8, order="C").reshape(self.height, self.width, self.channels)

    def _fit(self, image: Image.Image) -> Image.Image:
        resample = Image.Resampling[self.interpolation.upper()]
        if self.resize == "squash":
            return image.resize((self.width, self.height), resample)
        scale = _scale(self.resize, self.width / image.width, self.height / image.height)
        across = _overlap(image.width, self.width, scale)
        down = _overlap(image.height, self.height, scale)
        # A box of the original, so that a picture of 1 x 1000 px is never blown up before it is cut.
        box = (across.start, down.start, across.stop, down.stop)
        inner = image.resize((across.length, down.length), resample, box=box)
        if inner.size == (self.width, self.height):
            return inner
        # DIGITS pads with random noise; black gives the same picture the same prediction each time.
        page = Image.new(image.mode, (self.width, self.height))
        page.paste(inner, ((self.width - across.length) // 2, (self.height - down.length) // 2))
        return page


def _scale(resize: Resize, horizontal: float, vertical: float) -> float:
    if resize == "crop":
        return max(horizontal, vertical)
    if resize == "fill":
        return min(horizontal, vertical)
    # As DIGITS: the mean of the two reductions, which for long strips keeps far more of the picture than the
    # mean of the two enlargements would.
    return 2 / (1 / horizontal + 1 / vertical)


class _Overlap(NamedTuple):
    """Along one axis: which stretch of the original is seen, and how many px of the result it takes."""

    start: float
    stop: float
    length: int


def _overlap(side: int, target: int, scale: float) -> _Overlap:
    seen = min(float(side), target / scale)
    start = (side - seen) / 2
    return _Overlap(start, min(start + seen, float(side)), max(1, min(target, round(side * scale))))


def parse_size(text: str) -> Size:
    """The size that "224" (a square) or "320x240" (width x height, px) means.

    Raises:
        InvalidInput: it is neither, or a side is not within 1 to 4096 px.
    """
    match = re.fullmatch(r"\s*(\d{1,9})(?:\s*[xX×]\s*(\d{1,9}))?\s*", text)
    if match is None:
        raise InvalidInput(
            f"{text!r} is not a size.",
            remedy="Give one number for a square, as 224, or width x height in px, as 320x240.",
        )
    size = Size(int(match[1]), int(match[2] or match[1]))
    if not all(1 <= side <= MAX_SIDE for side in size):
        raise InvalidInput(
            f"The size {size.width}x{size.height} is out of range.", remedy=f"Each side is 1 to {MAX_SIDE} px."
        )
    return size
