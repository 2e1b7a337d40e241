"""A service at saturation for minutes, with clients that send rubbish, too much or nothing, go away, or are slow.

Usage: python benchmarks/soak.py PICTURES [--seconds 600] [--clients 32] [--out FILE]

PICTURES is a folder with one sub-folder a class. Of the requests one in twenty is no picture, one in twenty is larger
than the service takes, and one in twenty is given up before its answer; beside them four clients send a few bytes now
and then. Each good answer is held against what the model says of that picture alone. Reported: how many of each kind
were answered how, how many answers were wrong, how long the probes of health took, and the service's memory over time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import multiprocessing
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import common
import httpx
import numpy as np
import psutil

import vizsla
from vizsla.api import datasets, models, runs
from vizsla.models.predictor import Predictor

SIZE = 224
SLOW_CLIENTS = 4
LARGEST_MB = 4
SHARE = 0.05
TOLERANCE = 1e-5
JPEG = {"Content-Type": "image/jpeg"}
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 100000\r\n\r\n"


class Soak:
    """What is asked of a service, and what came of it."""

    def __init__(self, url: str, pictures: list[bytes], wanted: list[dict[str, float]], seconds: float) -> None:
        self.url, self.pictures, self.wanted = url, pictures, wanted
        self.until = time.monotonic() + seconds
        self.told: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.memory: list[tuple[float, float]] = []

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.until

    async def ask(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        """One client: a request after the other."""
        while not self.over:
            drawn = chance.random()
            if drawn < SHARE:
                await self._corrupt(client, chance)
            elif drawn < 2 * SHARE:
                answer = await client.post(
                    "/predict", content=b"\xff\xd8" + bytes(LARGEST_MB * 1_100_000), headers=JPEG
                )
                self.told[f"oversized {answer.status_code}"] += 1
            elif drawn < 3 * SHARE:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.003):
                        await client.post("/predict", content=chance.choice(self.pictures), headers=JPEG)
                self.told["cancelled"] += 1
            else:
                await self._good(client, chance.randrange(len(self.pictures)))

    async def _corrupt(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        picture = chance.choice(self.pictures)
        cut = picture[: chance.randrange(20, len(picture) // 2)] if chance.random() < 0.5 else chance.randbytes(5000)
        answer = await client.post("/predict", content=cut, headers=JPEG)
        self.told[f"corrupt {answer.status_code}"] += 1
        if answer.status_code == httpx.codes.OK and not answer.json()["predictions"][0]["error"]:
            self.wrong.append("a corrupt picture was classified")

    async def _good(self, client: httpx.AsyncClient, number: int) -> None:
        answer = await client.post("/predict?top=100", content=self.pictures[number], headers=JPEG)
        self.told[f"good {answer.status_code}"] += 1
        if answer.status_code != httpx.codes.OK:
            return
        (one,) = answer.json()["predictions"]
        found = {score["label"]: score["probability"] for score in one["scores"]}
        far = max((abs(found.get(label, 9.0) - p) for label, p in self.wanted[number].items()), default=9.0)
        if far > TOLERANCE:
            self.wrong.append(f"picture {number} is {far:.2g} off")

    async def dawdle(self, chance: random.Random) -> None:
        """A client that sends a few bytes a second, and goes away after a while."""
        place = urlsplit(self.url)
        while not self.over:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(place.hostname, place.port)
                writer.write(HEAD)
                for _ in range(chance.randrange(3, 20)):
                    writer.write(b"x" * 10)
                    await writer.drain()
                    await asyncio.sleep(0.5)
                writer.close()
            self.told["slow"] += 1

    async def weigh(self, server: psutil.Process) -> None:
        """The memory of all processes of the service, every second."""
        began = time.monotonic()
        while not self.over:
            every = [server, *server.children(recursive=True)]
            self.memory.append((time.monotonic() - began, sum(one.memory_info().rss for one in every) / 1e6))
            await asyncio.sleep(1)

    async def run(self, num: int, server: psutil.Process) -> None:
        """Everything at once, until the time is over."""
        limits = httpx.Limits(max_connections=num)
        async with httpx.AsyncClient(base_url=self.url, timeout=60, limits=limits) as client:
            asking = [self.ask(client, random.Random(number)) for number in range(num)]
            slow = [self.dawdle(random.Random(number)) for number in range(SLOW_CLIENTS)]
            await asyncio.gather(*asking, *slow, self.weigh(server))


def probe(url: str, seconds: float, results: Any) -> None:
    """Ask twice a second whether it is well, as an orchestrator does: by a process and connections of its own."""
    found, until = [], time.monotonic() + seconds
    place = urlsplit(url)
    while time.monotonic() < until:
        for path in ("live", "ready"):
            began = time.perf_counter()
            asking = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)
            asking.request("GET", f"/v2/health/{path}")
            status = asking.getresponse().status
            asking.close()
            found.append((status, time.perf_counter() - began))
        time.sleep(0.5)
    results.put(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--net", default="tf_efficientnet_lite0")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result: dict[str, Any] = {"machine": common.machine(), "net": args.net, "seconds": args.seconds}
    with tempfile.TemporaryDirectory() as scratch, vizsla.open(Path(scratch) / "workspace") as ws:
        common.copy_some(args.data, Path(scratch) / "pictures", 64)
        spec = vizsla.DatasetSpec(source=Path(scratch) / "pictures", width=SIZE, height=SIZE, resize="crop")
        datasets.create(ws, "some", spec)
        training = vizsla.TrainingSpec(net=args.net, tune="head", epochs=1, compile="off", batch_size=16)
        runs.start(ws, "some", training, name="soaked")
        folder = ws.folder("model", models.export(ws, "soaked", name="soaked").id)
        pictures = [path.read_bytes() for path in sorted((Path(scratch) / "pictures").rglob("*.*"))]
        result |= _soaked(folder, pictures, args.clients, args.seconds)
    print(common.table(("what", "figure"), [[name, str(value)] for name, value in result.items() if name != "machine"]))
    common.save({"benchmark": "soak", **result}, args.out, "soak")


def _soaked(folder: Path, pictures: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    wanted = _alone(folder, pictures)
    asked = ["service", "run", folder, "--port", 0, "--max-request-mb", LARGEST_MB, "--max-json-mb", LARGEST_MB]
    server = subprocess.Popen([sys.executable, "-m", "vizsla", *map(str, asked)], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    found = re.search(r"http://\S+:\d+", server.stderr.readline())
    assert found is not None
    soak = Soak(found[0], pictures, wanted, seconds)
    results: Any = multiprocessing.get_context("spawn").SimpleQueue()
    probing = multiprocessing.get_context("spawn").Process(target=probe, args=(found[0], seconds, results))
    probing.start()
    try:
        asyncio.run(soak.run(clients, psutil.Process(server.pid)))
        told = results.get()
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait()
    good = soak.told["good 200"]
    probes = sorted(1000 * took for _, took in told)
    soak.told.update(f"probe {status}" for status, _ in told)
    memory = [weight for _, weight in soak.memory]
    tenth = max(1, len(memory) // 10)
    return {
        "clients": clients,
        "answers": dict(sorted(soak.told.items())),
        "pictures_per_s": round(good / seconds, 1),
        "wrong": len(soak.wrong),
        "wrong_first": soak.wrong[:5],
        "probes": len(probes),
        "probe_p50_ms": round(probes[len(probes) // 2], 1),
        "probe_p99_ms": round(probes[int(0.99 * len(probes))], 1),
        "probe_longest_ms": round(probes[-1], 1),
        "memory_mb_by_tenth": [round(float(np.median(memory[i : i + tenth]))) for i in range(0, tenth * 10, tenth)],
        "exit_status": status,
    }


def _alone(folder: Path, pictures: list[bytes]) -> list[dict[str, float]]:
    """What the model says of each picture by itself."""
    predictor = Predictor(folder)
    decode, labels = predictor.card.preprocess.to_array, predictor.card.labels
    every = [predictor.probabilities(decode(picture)[None])[0] for picture in pictures]
    return [dict(zip(labels, map(float, one), strict=True)) for one in every]


if __name__ == "__main__":
    main()
