"""The process that keeps models loaded and classifies pictures for a server: `python -m vizsla.models.warm`.

Its standard input is a socket. A request is a frame of JSON with `folder` (of the model), `top`, `thumbnails`, and
`sizes`, followed by that many bytes for each picture; the answer is a frame with `predictions` in that order, or with
`failed`. A frame is its length, 4 bytes, and then the JSON. The process ends with the socket, also in the middle of its
work.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import select
import socket
import struct
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from vizsla import work
from vizsla.errors import InvalidInput, VizslaError
from vizsla.images.decode import Size, decode
from vizsla.models.card import GRAPH
from vizsla.models.predictor import BATCH, Prediction, Predictor

LENGTH = struct.Struct(">I")
MAX_FRAME = 2**24
# What stays loaded: the models that were used last.
MAX_MODELS = 4
MAX_GRAPH_BYTES = 10**9
# The cores are for trainings: a request is computed on one of them.
THREADS = 1
THUMBNAIL = Size(256, 256)
# All thumbnails of a request, in base64; the rest of a frame is for what is seen in the pictures.
THUMBNAILS_LENGTH = MAX_FRAME // 2
# Noise takes many times more than a photo: it is told as well by less of it.
QUALITIES = (90, 60, 30)


class Models:
    """The models that were used last, loaded."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[Path, Predictor] = OrderedDict()

    def get(self, folder: Path) -> Predictor:
        """The model in a folder, loaded if it is not.

        Raises:
            InvalidInput: it is not a whole, unchanged model.
        """
        if folder not in self._loaded:
            self._make_room(folder)
            self._loaded[folder] = Predictor(folder, threads=THREADS)
        self._loaded.move_to_end(folder)
        return self._loaded[folder]

    def _make_room(self, folder: Path) -> None:
        while self._loaded and (
            len(self._loaded) >= MAX_MODELS or sum(map(_graph_bytes, (folder, *self._loaded))) > MAX_GRAPH_BYTES
        ):
            self._loaded.popitem(last=False)


def _graph_bytes(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return (folder / GRAPH).stat().st_size
    return 0  # deleted, or damaged, which opening it says


def frame(value: dict[str, Any]) -> bytes:
    """A value as a frame."""
    data = json.dumps(value, allow_nan=False).encode()
    return LENGTH.pack(len(data)) + data


def main() -> int:
    """Classify until the socket is closed."""
    models = Models()
    return serve(lambda request, source: _answer(models, request, source))


def serve(answer: Callable[[dict[str, Any], IO[bytes]], dict[str, Any]]) -> int:
    """Answer requests until the socket is closed, each from its frame and the pictures that follow it."""
    link = socket.socket(fileno=0)
    threading.Thread(target=_end_with, args=(link,), daemon=True).start()
    with contextlib.suppress(OSError):  # short of memory, the kernel is to end this process before a training
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    source = link.makefile("rb")
    while True:
        request = json.loads(exactly(source, *LENGTH.unpack(exactly(source, LENGTH.size))))
        link.sendall(frame(answer(request, source)))


def _end_with(link: socket.socket) -> None:
    """End this process when the other end of its socket is closed, as the kernel does when the server is killed."""
    ended = select.poll()
    ended.register(link, 0)
    ended.poll()
    os._exit(0)


def exactly(source: IO[bytes], num_bytes: int) -> bytes:
    """So many bytes of what was sent; without them the server has gone, and this process goes too."""
    data = source.read(num_bytes)
    if len(data) < num_bytes:
        os._exit(0)
    return data


def _answer(models: Models, request: dict[str, Any], source: IO[bytes]) -> dict[str, Any]:
    """Classify the pictures that follow; all of them are read whatever happens, so that the next request is found."""
    sizes = list(request["sizes"])
    room = THUMBNAILS_LENGTH // max(1, len(sizes))
    try:
        predictor = models.get(Path(request["folder"]))
        found: list[dict[str, Any]] = []
        while sizes:
            group = [exactly(source, sizes.pop(0)) for _ in sizes[:BATCH]]
            made = [thumbnail(data, room) for data in group] if request.get("thumbnails") else [None] * len(group)
            answers = predictor.predict(group, top=request["top"])
            found += [_told(one) | {"thumbnail": small} for one, small in zip(answers, made, strict=True)]
    except Exception as error:
        for size in sizes:
            exactly(source, size)
        return failed(error, Path(request["folder"]))
    return {"predictions": found}


def _told(one: Prediction) -> dict[str, Any]:
    return {"scores": one.scores, "error": {"kind": one.error.kind, "what": one.error.what} if one.error else None}


def thumbnail(data: bytes, room: int) -> str | None:
    """A small JPEG of a picture, of at most `room` letters of base64; None where it is no picture, or none fits.

    It is made of pixels only. What else a file says may be private, and longer than the picture.
    """
    try:
        return _small(decode(data, target=THUMBNAIL), room)
    except InvalidInput:
        return None
    except Exception:  # what is seen in the picture, and in others, is told without it
        with contextlib.suppress(OSError):  # nobody listens
            traceback.print_exc()
        return None


def _small(image: Image.Image, room: int) -> str | None:
    image.thumbnail(THUMBNAIL)
    pixels = Image.fromarray(np.asarray(image))
    for quality in QUALITIES:
        held = io.BytesIO()
        pixels.save(held, "JPEG", quality=quality, subsampling=0)
        text = base64.b64encode(held.getvalue()).decode("ascii")
        if len(text) <= room:
            return text
    return None


def failed(error: Exception, folder: Path) -> dict[str, Any]:
    """The answer to a request at which something went wrong."""
    known = error if isinstance(error, VizslaError) else work.expected(error, folder)
    if known.trace:
        with contextlib.suppress(OSError):  # nobody listens
            print(known.trace, file=sys.stderr)
    return {"failed": known.as_dict()}


if __name__ == "__main__":
    sys.exit(main())
