"""From the bytes of a file to an upright 8-bit picture, grey or RGB; anything else is refused with a short reason."""

from __future__ import annotations

import contextlib
import errno
import io
import re
import stat
import threading
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

# The plug-ins are imported by name, so that Pillow does not load all of its others while it looks for these.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from vizsla.errors import InvalidInput

ENDINGS = {
    "JPEG": "jpg",
    "MPO": "jpg",
    "PNG": "png",
    "BMP": "bmp",
    "PPM": "ppm",
    "GIF": "gif",
    "TIFF": "tif",
    "WEBP": "webp",
}
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "GIF", "TIFF", "WEBP")
MAX_PIXELS = 200_000_000
MAX_BYTES = 512 * 2**20
LARGE_PIXELS = 30_000_000

_ONE_LARGE = threading.Lock()

# Pillow refuses at twice its limit and warns from the limit on. At our own limit its warning says nothing that our
# refusal does not, and its other warnings (corrupt EXIF and the like) are about pictures that can still be used.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.filterwarnings("ignore", module=r"PIL\.")

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_READ_REASONS = {
    errno.ENOENT: "no such file",
    errno.EACCES: "no permission to read it",
    errno.EPERM: "no permission to read it",
    errno.ELOOP: "symbolic links in a circle",
}
# The first bytes of a file say what it was meant to be, even where the rest of its header is gone.
_SIGNATURES = (
    (re.compile(rb"\xff\xd8\xff"), "JPEG"),
    (re.compile(rb"\x89PNG"), "PNG"),
    (re.compile(rb"GIF8"), "GIF"),
    (re.compile(rb"II\*\x00|MM\x00\*"), "TIFF"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "WEBP"),
)
_NEAREST_OF_256 = np.round(np.arange(65536) / 257).astype(np.uint8)
_TRUNCATED = re.compile(r"truncated|unexpected end|end of file|not enough|incomplete|read \d+ bytes|eof", re.I)


class Size(NamedTuple):
    """Width and height in px."""

    width: int
    height: int


def read(path: Path) -> bytes:
    """The content of a file that may be a picture.

    Raises:
        InvalidInput: not a regular file (a FIFO would block), larger than `MAX_BYTES`, or not to be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput("not a regular file", where=str(path))
        if status.st_size > MAX_BYTES:
            size, limit = status.st_size // 2**20, MAX_BYTES // 2**20
            raise InvalidInput(f"{size:,} MB, more than the limit of {limit}", where=str(path))
        return path.read_bytes()
    except OSError as error:
        reason = _READ_REASONS.get(error.errno or 0, f"cannot be read: {error.strerror}")
        raise InvalidInput(reason, where=str(path)) from None


def decode(source: bytes | Path, *, target: Size | None = None) -> Image.Image:
    """Decode a picture to mode L or RGB, upright, transparency over white; of an animation, the first frame.

    With `target`, a large JPEG is decoded at a fraction of its size, which stays at least twice `target` each way.

    Raises:
        InvalidInput: it is not a whole picture of an allowed format and size; `what` is a short reason for a table.
    """
    with _open(source) as image, _room_for(image):
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        try:
            if target is not None:
                turned = _orientation(image) >= 5
                width, height = (target.height, target.width) if turned else target
                image.draft(None, (2 * width, 2 * height))
            image.load()
            method = _UPRIGHT.get(_orientation(image))
            return _to_8_bits(image if method is None else image.transpose(method))
        except InvalidInput as error:
            raise InvalidInput(error.what, where=_where(source)) from None
        except MemoryError:
            raise InvalidInput(f"{kind} that needs more memory than there is", where=_where(source)) from None
        except Exception as error:
            raise InvalidInput(_reason(error, kind), where=_where(source)) from error


def _room_for(image: Image.Image) -> contextlib.AbstractContextManager[object]:
    """Large pictures are decoded one at a time: some take ten bytes a pixel, and every core may have one."""
    return _ONE_LARGE if image.width * image.height > LARGE_PIXELS else contextlib.nullcontext()


def measure(source: bytes | Path) -> Size:
    """The size of the upright picture, from its header alone.

    Raises:
        InvalidInput: as `decode`, as far as the header shows it.
    """
    with _open(source) as image:
        # Pillow has turned the size of a TIFF already.
        turned = image.format != "TIFF" and _orientation(image) >= 5
        return Size(image.height, image.width) if turned else Size(image.width, image.height)


def num_pixels(source: bytes | Path) -> int:
    """Width times height, from the header alone: unlike for `measure`, nothing behind it is looked for.

    Raises:
        InvalidInput: as `measure`.
    """
    with _open(source) as image:
        return image.width * image.height


def ending(source: bytes | Path) -> str:
    """What the name of a picture's file ends with, by its header: `jpg` and the like.

    Raises:
        InvalidInput: as `measure`.
    """
    with _open(source) as image:
        return ENDINGS[str(image.format)]


def _where(source: bytes | Path) -> str:
    return "" if isinstance(source, bytes) else str(source)


def _open(source: bytes | Path) -> Image.Image:
    data = source if isinstance(source, bytes) else read(source)
    if not data:
        raise InvalidInput("empty file", where=_where(source))
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = re.search(r"(\d+) pixels", str(error))
        raise InvalidInput(_too_large(int(pixels[1]) if pixels else MAX_PIXELS), where=_where(source)) from None
    except Exception:
        # Pillow's plug-ins raise whatever their parsers trip over: SyntaxError, struct.error, ValueError and more.
        kind = next((kind for signature, kind in _SIGNATURES if signature.match(data)), None)
        reason = f"truncated or broken {kind}" if kind else "not a picture"
        raise InvalidInput(reason, where=_where(source)) from None
    if image.width * image.height > MAX_PIXELS:
        raise InvalidInput(_too_large(image.width * image.height), where=_where(source))
    return image


def _too_large(pixels: int) -> str:
    return f"{pixels / 1e6:,.0f} megapixels, more than the limit of {MAX_PIXELS // 1_000_000}"


def _reason(error: Exception, kind: str) -> str:
    cut_off = isinstance(error, EOFError) or _TRUNCATED.search(str(error))
    return f"truncated {kind}" if cut_off else f"broken {kind}"


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # EXIF that cannot be read says nothing about the orientation, and the picture itself may be whole.
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise InvalidInput("floating-point pixels")
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        image = _over_white(image.convert("RGBA"))
    return image.convert("L" if grey else "RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.size and not 0 <= int(values.min()) <= int(values.max()) <= 65535:
        raise InvalidInput("pixel values beyond 16 bits")
    return Image.fromarray(_NEAREST_OF_256[values])


def _over_white(image: Image.Image) -> Image.Image:
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image.getchannel("A"))
    return page
