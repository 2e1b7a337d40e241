"""Tensors of the inference protocol: what they say is checked before anything is made of it."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vizsla.errors import InvalidInput, TooLarge, VizslaError
from vizsla.serving import protocol
from vizsla.serving.spec import Limits

SERVED: Any = SimpleNamespace(card=SimpleNamespace(preprocess=SimpleNamespace(height=2, width=3, channels=1)))
LIMITS = Limits()
PIXELS: dict[str, Any] = {"name": "pixels", "shape": [2, 2, 3, 1], "datatype": "UINT8", "data": list(range(12))}
FILES: dict[str, Any] = {"name": "pictures", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}


def asked(tensor: dict[str, Any], raw: bytes = b"") -> protocol.Asked:
    head = json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()
    return protocol._asked(head + raw, len(head), SERVED, LIMITS)


def binary(tensor: dict[str, Any], raw: bytes, num_bytes: object = None) -> protocol.Asked:
    size = len(raw) if num_bytes is None else num_bytes
    return asked(
        {key: tensor[key] for key in tensor if key != "data"} | {"parameters": {"binary_data_size": size}}, raw
    )


def test_pixels_come_flat_nested_and_as_bytes() -> None:
    wanted = np.arange(12, dtype=np.uint8).reshape(2, 2, 3, 1)
    for found in (asked(PIXELS), asked(PIXELS | {"data": wanted.tolist()}), binary(PIXELS, wanted.tobytes())):
        np.testing.assert_array_equal(found.pixels, wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": [2**31] * 100_000}, {"shape": [1] * 65}, {"shape": [1] * 9}, {"shape": [-1] * 5000}, {"shape": 7},
        {"shape": [2**31, 2, 3, 1]}, {"shape": [2, 2, 3]}, {"data": ["a" * 1000] + ["b"] * 200_000}, {"data": {}},
        {"data": [[]] * 400_000}, {"data": [0] * 900_000}, {"data": [[0] * 6, [0] * 7]}, {"data": [True] * 12},
        {"data": [0.0] * 12}, {"data": [10**30] * 12}, {"data": [256] * 12}, {"data": [[0] * 6, "abcdef"]},
        {"data": [[[[[[[[[[0]]]]]]]]]]}, {"data": [0] * 11}, {"data": []}, {"data": "a"}, {"data": [None] * 12},
        {"parameters": {str(n): 0 for n in range(10_000)}}, {"parameters": {"a": [0] * 90_000}},
        {str(n): 0 for n in range(10_000)},
    ],
)  # fmt: skip
def test_wrong_tensors_are_refused_at_once_and_in_few_words(wrong: dict[str, Any]) -> None:
    body = json.dumps({"inputs": [PIXELS | wrong]}, separators=(",", ":")).encode()
    began = time.process_time()
    with pytest.raises(VizslaError) as caught:
        protocol._asked(body, None, SERVED, LIMITS)
    assert time.process_time() - began < 1
    tracemalloc.start()
    try:
        with pytest.raises(VizslaError):
            protocol._asked(body, None, SERVED, LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert isinstance(caught.value, InvalidInput | TooLarge)
    assert len(str(caught.value)) < 1000


def test_more_pictures_than_a_request_may_bring_are_not_looked_at() -> None:
    began = time.process_time()
    for wrong in ({"data": ["AAAA"] * 65, "shape": [65]}, {"data": [7] * 300_000}, {"data": [""] * 300_000}):
        with pytest.raises(TooLarge, match="64 pictures"):
            asked(FILES | wrong)
    with pytest.raises(TooLarge, match="64 pictures"):
        binary(FILES, bytes(30_000_000))
    with pytest.raises(TooLarge, match="64 pictures"):
        asked(PIXELS | {"shape": [65, 2, 3, 1], "data": [0]})
    with pytest.raises(TooLarge, match="1,000,000 parts"):
        asked(PIXELS | {"data": [0] * 1_000_001})
    assert time.process_time() - began < 2


def test_bytes_behind_the_json_belong_to_a_tensor() -> None:
    raw = struct.pack("<I", 3) + b"abc"
    assert binary(FILES, raw).files == [b"abc"]
    for wrong in (lambda: asked(FILES, b"x"), lambda: binary(FILES, raw, 6), lambda: binary(FILES, raw, 7.0)):
        with pytest.raises(InvalidInput, match="behind the JSON"):
            wrong()
    for cut in (raw[:2], raw[:5]):
        with pytest.raises(InvalidInput, match="end within"):
            binary(FILES, cut)


def test_no_pictures_and_no_base64_are_told() -> None:
    for wrong in ({"data": [], "shape": [0]}, {"data": None}, {"data": ["ä"]}, {"data": [[]]}, {"data": {}}):
        with pytest.raises(InvalidInput):
            asked(FILES | wrong)
