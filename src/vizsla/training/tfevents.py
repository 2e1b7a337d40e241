"""TensorBoard's files of scalars, written without its libraries: those are heavy, and the queue before their writer
blocks a training when the writer fails.

A file is a sequence of records, each framed by its length and by checksums (TFRecord); a record is a protocol buffer of
type Event (tensorflow/core/util/event.proto). Each record is written at once, so that a kill loses none.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path

VERSION = b"brain.Event:2"
START = b"\x08\x01"  # SessionLog with status START
VARINT, DOUBLE, BYTES, FLOAT = 0, 1, 2, 5


class Writer:
    """Appends scalars to a new file in a folder."""

    def __init__(self, folder: Path, *, undone_from: int) -> None:
        """`undone_from` makes a reader forget what earlier files in the folder say of this step and those after it."""
        folder.mkdir(exist_ok=True)
        # Readers take the files in the order of their names.
        path = folder / f"events.out.tfevents.{time.time():017.6f}.{os.getpid()}"
        self._file = path.open("xb", buffering=0)
        self._write(_field(3, BYTES, VERSION), time.time(), 0)
        self._write(_field(7, BYTES, START), time.time(), undone_from)

    def scalars(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        """Write values by their tags.

        Raises:
            OSError: there was no room for them.
        """
        summary = b"".join(
            _field(1, BYTES, _field(1, BYTES, tag.encode()) + _field(2, FLOAT, struct.pack("<f", value)))
            for tag, value in values.items()
        )
        self._write(_field(5, BYTES, summary), wall_time, step)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, content: bytes, wall_time: float, step: int) -> None:
        record = _field(1, DOUBLE, struct.pack("<d", wall_time)) + _field(2, VARINT, _varint(step)) + content
        length = struct.pack("<Q", len(record))
        self._file.write(length + _checksum(length) + record + _checksum(record))


def _varint(number: int) -> bytes:
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)


def _field(number: int, kind: int, payload: bytes) -> bytes:
    length = _varint(len(payload)) if kind == BYTES else b""
    return _varint(number << 3 | kind) + length + payload


def _table() -> list[int]:
    rows = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # noqa: PLW2901 - shifted through
        rows.append(byte)
    return rows


_TABLE = _table()


def _checksum(data: bytes) -> bytes:
    """CRC-32C (Castagnoli), masked as TFRecord has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
