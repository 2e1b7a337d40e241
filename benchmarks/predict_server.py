"""How long a picture takes by REST, on a quiet machine and while it trains, against the same predictor in process.

Usage: python benchmarks/predict_server.py PICTURES [--num 200] [--out FILE]

PICTURES is a folder with one sub-folder a class. A network is tuned for an epoch, exported and served; then one client
asks for one picture after the other. In process is the limit: bytes to classes by `Predictor` in one thread, as the
server's processes have.
"""

from __future__ import annotations

import argparse
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import common
import httpx

import vizsla
from vizsla.api import datasets, jobs, models, runs
from vizsla.models.predictor import Predictor
from vizsla.store.workspace import Workspace

NET = "tf_efficientnet_lite0"
SIZE = 224
# Without what is tried and compiled before the first step, which takes minutes on a processor.
LONG = vizsla.TrainingSpec(
    net=NET, tune="full", epochs=1000, batch_size=32, precision="fp32", compile="off", device="cpu"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--num", type=int, default=200, help="requests in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", default="", help="what else the machine does meanwhile, for the result")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server ends too
    facts = common.machine()
    with tempfile.TemporaryDirectory() as folder, vizsla.open(Path(folder) / "workspace") as ws:
        common.copy_some(args.data, Path(folder) / "pictures", 200)
        spec = vizsla.DatasetSpec(source=Path(folder) / "pictures", width=SIZE, height=SIZE, val_percent=20)
        datasets.create(ws, "some", spec)
        runs.start(ws, "some", vizsla.TrainingSpec(net=NET, tune="head", epochs=1), name="first")
        models.export(ws, "first", name="served")
        pictures = [path.read_bytes() for path in sorted((Path(folder) / "pictures").rglob("*")) if path.is_file()]
        result = {"machine": facts, "net": NET, "size": SIZE, "requests": args.num, "beside": args.beside}
        result |= _measure(ws, pictures, args.num, args.rounds)
    print(common.table(("round", "what", "p50 ms", "p95 ms", "p50 by limit"), _rows(result)))
    common.save(result, args.out, "predict_server")


def _measure(ws: Workspace, pictures: Sequence[bytes], num: int, rounds: int) -> dict[str, Any]:
    predictor = Predictor(ws.folder("model", models.get(ws, "served").id), threads=1)
    server = subprocess.Popen(
        [sys.executable, "-m", "vizsla", "serve", "--port", "0", "--workspace", ws.root],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        while not (found := re.search(r"(https?://[^/]+)/api/v1\.", server.stderr.readline())):
            pass
        with httpx.Client(base_url=found[1], timeout=60) as client:

            def by_rest(picture: bytes) -> None:
                answer = client.post("/api/v1/models/served/predict", files={"pictures": ("a.jpg", picture)})
                assert answer.json()["predictions"][0]["scores"], answer.text

            def in_process(picture: bytes) -> None:
                assert next(predictor.predict([picture])).scores

            measured: dict[str, Any] = {"quiet": [], "while training": []}
            for _ in range(rounds):  # in turn, since the load of others changes
                measured["quiet"].append(_round(by_rest, in_process, pictures, num))
                job = runs.submit(ws, "some", LONG)
                while not (ws.folder("run", job.thing) / "events.jsonl").exists() or not _trains(ws, job.thing):
                    time.sleep(0.2)
                measured["while training"].append(_round(by_rest, in_process, pictures, num))
                jobs.stop(ws, job.id)
                while ws.store.jobs.get(job.id).live:
                    time.sleep(0.2)
            return measured
    finally:
        for job in ws.store.jobs.live():  # also where something went wrong: work outlives its server
            jobs.stop(ws, job.id, at_once=True)
        server.terminate()
        server.wait()


def _trains(ws: Workspace, run: str) -> bool:
    return '"event": "step"' in (ws.folder("run", run) / "events.jsonl").read_text()


def _round(
    by_rest: Callable[[bytes], None], in_process: Callable[[bytes], None], pictures: Sequence[bytes], num: int
) -> dict[str, Any]:
    timed: dict[str, list[float]] = {"rest": [], "in process": []}
    for number in range(-10, num):  # the first ones warm up; in turn, so that both meet the same load
        picture = pictures[number % len(pictures)]
        for name, ask in (("rest", by_rest), ("in process", in_process)):
            began = time.perf_counter()
            ask(picture)
            if number >= 0:
                timed[name].append(1000 * (time.perf_counter() - began))
    cuts = {name: statistics.quantiles(values, n=20) for name, values in timed.items()}
    found: dict[str, Any] = {
        name: {"p50_ms": round(cut[9], 2), "p95_ms": round(cut[18], 2)} for name, cut in cuts.items()
    }
    found["ratio_of_p50"] = round(cuts["rest"][9] / cuts["in process"][9], 3)
    found["ratio_of_p95"] = round(cuts["rest"][18] / cuts["in process"][18], 3)
    return found


def _rows(result: dict[str, Any]) -> list[list[object]]:
    return [
        [
            number,
            f"{state}, {how}",
            one[how]["p50_ms"],
            one[how]["p95_ms"],
            one["ratio_of_p50"] if how == "rest" else None,
        ]
        for state in ("quiet", "while training")
        for number, one in enumerate(result[state], 1)
        for how in ("rest", "in process")
    ]


if __name__ == "__main__":
    main()
