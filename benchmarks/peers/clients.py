"""Clients that post pictures, each again when it has its answer, at little cost: servers share the cores with them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BOUNDARY = "a-boundary-of-the-benchmark"
WARM_S = 2.0


def requests(settings: dict[str, Any]) -> list[bytes]:
    """Whole requests, as their bytes: a form with one file, which both servers take."""
    found = []
    for path in sorted(Path(settings["folder"]).iterdir()):
        part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="request"; filename="a.jpg"\r\n'
        body = (
            f"{part}Content-Type: image/jpeg\r\n\r\n".encode() + path.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()
        )
        head = (
            f"POST {settings['path']} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
        )
        found.append(head.encode() + body)
    return found


async def client(settings: dict[str, Any], asked: list[bytes], numbers: Any, until: float, took: list[float]) -> None:
    """Ask until the time is over; answers that are no success end everything."""
    place = urlsplit(settings["url"])
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    while time.perf_counter() < until:
        began = time.perf_counter()
        writer.write(asked[next(numbers) % len(asked)])
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(head.decode())
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        took.append(time.perf_counter() - began)
    writer.close()


async def main(settings: dict[str, Any]) -> None:
    """Warm up, then measure."""
    asked, numbers = requests(settings), count()
    for seconds in (WARM_S, settings["seconds"]):
        took: list[float] = []
        began = time.perf_counter()
        clients = (client(settings, asked, numbers, began + seconds, took) for _ in range(settings["clients"]))
        await asyncio.gather(*clients)
        rate = len(took) / (time.perf_counter() - began)
    print(json.dumps({"latencies": took, "rate": rate}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
