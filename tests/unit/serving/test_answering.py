"""A picture that nobody thought of fails alone, and is waited for by nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from vizsla.errors import InvalidInput
from vizsla.serving.answering import Seen, Service
from vizsla.serving.batcher import Batcher
from vizsla.serving.bodies import Picture
from vizsla.serving.spec import ModelSpec, ServiceSpec, VersionSpec


def to_array(data: bytes) -> np.ndarray:
    """As a decoder: some pictures are refused, and one meets a defect."""
    if data == b"bad":
        raise InvalidInput("not a picture")
    if data == b"defect":
        raise ZeroDivisionError
    return np.full((2, 2, 1), data[0], np.uint8)


def test_the_others_are_answered(tmp_path: Path) -> None:
    model = ModelSpec(name="m", versions=(VersionSpec(version="1", folder=tmp_path),))

    async def main() -> tuple[list[Seen], int]:
        service = Service(ServiceSpec(models=(model,)), tmp_path)
        batcher = Batcher(lambda pixels: pixels[:, 0, 0].astype(np.float32), max_batch=8, max_wait_s=20, max_queue=9)
        served: Any = SimpleNamespace(
            batcher=batcher, card=SimpleNamespace(preprocess=SimpleNamespace(to_array=to_array))
        )
        pictures = [Picture("", data) for data in (b"a", b"bad", b"defect", b"b")]
        found = await asyncio.wait_for(service.look(served, pictures), 10)
        waiting = batcher.num_waiting
        await batcher.close()
        await service.close()
        return found, waiting

    found, waiting = asyncio.run(main())
    assert [one.row.tolist() if one.row is not None else None for one in found] == [[97.0], None, None, [98.0]]
    assert [one.error.what for one in found if one.error] == ["not a picture", "a defect of Vizsla: ZeroDivisionError"]
    assert waiting == 0
