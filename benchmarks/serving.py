"""A service under load against the same model without one, and against LitServe.

Usage: python benchmarks/serving.py PICTURES [--nets tf_efficientnet_lite0 resnet50] [--seconds 10] [--out FILE]

PICTURES is a folder with one sub-folder a class. A network is trained for an epoch, exported and served; JPEG files are
posted by 1, 8 and 64 clients, each of which asks again when it has its answer. What is compared, in turns:

  limit     ONNX Runtime in a loop with the same decoding: as many pictures as there are clients, 4 or 16 at most,
            whichever is faster, are decoded on all cores, while the ones before are computed
  vizsla    `vizsla service run` with batches of 16
  litserve  LitServe with the same graph, decoding, batches and longest wait, in an environment of its own

The clients are one process on the same cores, so both servers give the same share to it; the limit has no clients.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
import httpx
import numpy as np

import vizsla
from vizsla.api import datasets, models, runs
from vizsla.models.predictor import Predictor

NETS = ("tf_efficientnet_lite0", "resnet50")
SIZE = 224
CLIENTS = (1, 8, 64)
MAX_BATCH, MAX_WAIT_MS = 16, 5
LOOPS = (4, MAX_BATCH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--nets", nargs="+", default=NETS)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--venvs", type=Path, default=common.default_venvs(), help="the peer's environment")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    litserve = common.peer_python(args.venvs / "litserve", ("litserve>=0.2.10",))
    result: dict[str, Any] = {"machine": common.machine(), "size": SIZE, "max_batch": MAX_BATCH, "nets": {}}
    with tempfile.TemporaryDirectory() as scratch, vizsla.open(Path(scratch) / "workspace") as ws:
        common.copy_some(args.data, Path(scratch) / "pictures", 64)
        pictures = [path.read_bytes() for path in sorted((Path(scratch) / "pictures").rglob("*.*"))]
        spec = vizsla.DatasetSpec(source=Path(scratch) / "pictures", width=SIZE, height=SIZE, resize="crop")
        datasets.create(ws, "some", spec)
        for net in args.nets:
            tune = "head" if net == NETS[0] else "scratch"
            runs.start(
                ws, "some", vizsla.TrainingSpec(net=net, tune=tune, epochs=1, compile="off", batch_size=16), name=net
            )
            folder = ws.folder("model", models.export(ws, net, name=net).id)
            result["nets"][net] = _compared(folder, pictures, litserve, args.seconds, args.rounds)
            print(
                common.table(
                    ("clients", "what", "pictures/s", "p50 ms", "p99 ms", "of limit"), _rows(result["nets"][net])
                )
            )
    common.save(result, args.out, "serving")


def _compared(folder: Path, pictures: Sequence[bytes], litserve: Path, seconds: float, rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {str(num): {} for num in CLIENTS}
    predictor = Predictor(folder)
    for _ in range(rounds):  # in turns, since the load of others changes
        for num in CLIENTS:
            loops = [_limit(predictor, pictures, size, seconds) for size in sorted({min(num, most) for most in LOOPS})]
            found[str(num)].setdefault("limit", []).append(max(loops, key=lambda one: one["pictures_per_s"]))
        with _vizsla(folder) as (url, began):
            found.setdefault("vizsla_start_s", []).append(round(began, 2))
            for num in CLIENTS:
                found[str(num)].setdefault("vizsla", []).append(_asked(url, "/predict", pictures, num, seconds))
        with _litserve(folder, litserve) as url:
            for num in CLIENTS:
                found[str(num)].setdefault("litserve", []).append(_asked(url, "/predict", pictures, num, seconds))
    return found


def _limit(predictor: Predictor, pictures: Sequence[bytes], batch: int, seconds: float) -> dict[str, float]:
    """Pictures a second without a server, and how long a batch takes from its first byte to its classes."""
    decode = predictor.card.preprocess.to_array
    latencies: list[float] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def decoded(number: int) -> Any:
            chosen = (pictures[(number * batch + i) % len(pictures)] for i in range(batch))
            return [pool.submit(decode, picture) for picture in chosen]

        ahead, number, done = decoded(0), 1, 0
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            started = time.perf_counter()
            if batch == 1:  # nothing to do meanwhile
                predictor.probabilities(decode(pictures[number % len(pictures)])[None])
            else:
                pixels = np.stack([one.result() for one in ahead])
                ahead = decoded(number)
                predictor.probabilities(pixels)
            latencies.append(time.perf_counter() - started)
            number += 1
            done += batch
        return _figures(latencies, done / (time.perf_counter() - began))


def _figures(latencies: list[float], rate: float) -> dict[str, float]:
    cuts = statistics.quantiles(latencies, n=100)
    return {"pictures_per_s": round(rate, 1), "p50_ms": round(1000 * cuts[49], 2), "p99_ms": round(1000 * cuts[98], 2)}


def _asked(url: str, path: str, pictures: Sequence[bytes], clients: int, seconds: float) -> dict[str, float]:
    """As many clients at once, in a process of their own, each asking as soon as it has its answer."""
    settings = {"url": url, "path": path, "clients": clients, "seconds": seconds}
    with tempfile.TemporaryDirectory() as folder:
        for number, picture in enumerate(pictures):
            (Path(folder) / f"{number:04d}").write_bytes(picture)
        done = subprocess.run(
            [sys.executable, Path(__file__).parent / "peers" / "clients.py", json.dumps(settings | {"folder": folder})],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    told: dict[str, Any] = json.loads(done.stdout)
    return _figures(told["latencies"], told["rate"])


@contextmanager
def _vizsla(folder: Path) -> Iterator[tuple[str, float]]:
    """A service; yields its address, and how long it took to be ready."""
    began = time.perf_counter()
    asked = ["service", "run", folder, "--port", 0, "--max-batch", MAX_BATCH, "--max-wait-ms", MAX_WAIT_MS]
    server = subprocess.Popen([sys.executable, "-m", "vizsla", *map(str, asked)], stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        found = re.search(r"http://\S+:\d+", server.stderr.readline())
        assert found is not None
        yield found[0], time.perf_counter() - began
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


@contextmanager
def _litserve(folder: Path, python: Path) -> Iterator[str]:
    settings = {"folder": str(folder), "max_batch": MAX_BATCH, "max_wait_s": MAX_WAIT_MS / 1000, "port": 8765}
    program = Path(__file__).parent / "peers" / "litserve_serve.py"
    server = subprocess.Popen(
        [python, program, json.dumps(settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(vizsla.__file__).parents[1])}, start_new_session=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{settings['port']}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{url}/health").status_code == httpx.codes.OK:
                    break
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError("LitServe did not start")
            time.sleep(0.2)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _rows(found: dict[str, Any]) -> list[list[object]]:
    rows = []
    for num in CLIENTS:
        every = found[str(num)]
        limit = statistics.median(one["pictures_per_s"] for one in every["limit"])
        for what, measured in every.items():
            rate, p50, p99 = (
                statistics.median(one[name] for one in measured) for name in ("pictures_per_s", "p50_ms", "p99_ms")
            )
            rows.append([num, what, rate, p50, p99, round(rate / limit, 2)])
    return rows


if __name__ == "__main__":
    main()
