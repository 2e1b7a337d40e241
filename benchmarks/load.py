"""Fifty clients watch twenty runs of 50,000 steps each, among 10,000 runs, while a training takes all cores: how long
do they wait?

    python benchmarks/load.py --data PICTURES

PICTURES has one sub-folder a class. A workspace is filled with the folders of real runs (copies of one short training,
each with its own id and name; twenty with a million points between them), and `vizsla serve` is started on it. The
twenty go on: a process holds their locks, as a worker does, and adds a step to each every second. Each client keeps a
socket open on which it watches the twenty runs and the jobs, and once a second asks in turn for a page of the list of
runs (the newest, those further back, by name, by state), for the curves of a run, and for what was added to them; and
for a route that does nothing, which is the limit of this server, client and machine.

Measured cold, from the first request to a server that was just started and has read nothing (the files may be in the
memory of the system); then with nothing else at work; then while a job of the same server trains on all cores.
Reported: for each kind of request how many, the time at which 50, 95, 99 and 100 % were answered, and the ratio to the
empty route; of the sockets how many events came, which were missed or came twice, and how old they were; the speed of
the training with and without the clients; the processor time of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, NamedTuple

import common
import psutil
import uvloop
from sqlalchemy import insert
from websockets.asyncio.client import connect

import vizsla
from vizsla import events, files
from vizsla.api import datasets, runs
from vizsla.datasets.spec import DatasetSpec
from vizsla.ids import ALPHABET
from vizsla.store.tables import entry, link
from vizsla.store.workspace import Workspace
from vizsla.training.spec import TrainingSpec

SHORT = TrainingSpec(net="lenet", tune="scratch", epochs=2, batch_size=16, device="cpu")
LONG = TrainingSpec(
    net="resnet18", tune="scratch", epochs=10_000, batch_size=16, precision="fp32", compile="off", device="cpu"
)
EVERY_S = 1.0
SETTLE_S = 5.0
KINDS = ("empty", "list", "history", "added")
SHARES = (50, 95, 99, 100)
PHASES = ("cold", "alone", "while_training")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one sub-folder of pictures a class")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--watched", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50_000, help="of each of the runs that are watched")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--beside", default="", help="what else the machine does meanwhile, for the result")
    parser.add_argument("--out", type=Path, help="default: results/load-MACHINE.json")
    return parser.parse_args()


def fill(ws: Workspace, data: Path, options: argparse.Namespace) -> list[str]:
    """Put the runs into the workspace; returns the ids of those that are to be watched."""
    datasets.create(ws, "pictures", DatasetSpec(source=data, width=64, height=64, val_percent=20, max_per_class=100))
    first = runs.start(ws, "pictures", SHORT, name="first")
    template = json.loads((first.folder / "run.json").read_text())
    told = (first.folder / "events.jsonl").read_text()
    long = "".join(steps(options.steps, template["steps_per_epoch"]))
    chance = random.Random(0)
    watched: list[str] = []
    rows: list[dict[str, str]] = []
    began = datetime.now(UTC) - timedelta(days=300)
    for number in range(options.runs - 1):
        id = "1" + "".join(chance.choices(ALPHABET, k=9))
        at = (began + timedelta(minutes=30 * number)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        folder = ws.folder("run", id)
        folder.mkdir()
        name = f"run {chance.choice(('dogs', 'cats', 'birds'))} {number:05d}"
        if number % (options.runs // options.watched) == 0 and len(watched) < options.watched:
            watched.append(id)
            (folder / "events.jsonl").write_text(long)
        else:
            (folder / "events.jsonl").write_text(told)
        (folder / ".lock").touch()
        (folder / "run.json").write_text(json.dumps(template | {"id": id, "name": name, "created_at": at}, indent=2))
        rows.append({"id": id, "kind": "run", "name": name, "created_at": at, "owner": "somebody"})
    with ws.store.engine.execution_options(writes=True).begin() as connection:
        connection.execute(insert(entry), rows)
        parents = [{"child_id": row["id"], "parent_id": template["dataset"]["id"]} for row in rows]
        connection.execute(insert(link), parents)
    return watched


def steps(num: int, per_epoch: int) -> Iterator[str]:
    """The lines of a long training, with the fields of a real one."""
    chance = random.Random(1)
    yield json.dumps({"event": "started", "at": events.now(), "total_steps": num * 2, "epochs": 1}) + "\n"
    for step in range(1, num + 1):
        yield step_line(step, per_epoch, chance)


def step_line(step: int, per_epoch: int, chance: random.Random) -> str:
    fields = {
        "event": "step",
        "at": events.now(),
        "step": step,
        "epoch": step // per_epoch,
        "loss": round(2 * 0.9999**step + chance.random() * 0.1, 6),
        "learning_rate": 0.001,
        "pictures_per_s": round(500 + 10 * chance.random(), 1),
        "data_wait": round(chance.random() * 0.01, 4),
        "elapsed_s": round(step * 0.1, 3),
        "eta_s": 100.0,
        "memory_mb": 700.5,
        "device_use": round(0.9 + 0.1 * chance.random(), 3),
    }
    return json.dumps(fields) + "\n"


def go_on(folders: list[Path], first: int, per_epoch: int, stop: Event) -> None:
    """What the workers of the watched runs do: hold their locks, and add a step to each every second."""
    chance = random.Random(2)
    with contextlib.ExitStack() as stack:
        logs = []
        for folder in folders:
            stack.enter_context(files.Lock(folder))
            logs.append(stack.enter_context((folder / "events.jsonl").open("a", buffering=1)))
        step = first
        while not stop.wait(EVERY_S / len(folders)):
            log = logs[step % len(logs)]
            log.write(step_line(first + (step - first) // len(logs), per_epoch, chance))
            step += 1


class Http:
    """A connection that stays, for requests without a body: as little beside the server as can be."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**24)

    async def get(self, path: str) -> bytes:
        """The body of an answer."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: (\d+)", head)
        assert head.startswith("http/1.1 200"), head
        assert length is not None, head
        return await self._reader.readexactly(int(length[1]))


class Client:
    """One who watches: a socket that tells, and a question after the other."""

    def __init__(self, port: int, watched: list[str], seed: int) -> None:
        self._port, self._watched, self._chance = port, watched, random.Random(seed)
        self.took: dict[str, list[float]] = defaultdict(list)
        self.ages: list[float] = []
        self.steps: dict[str, list[int]] = defaultdict(list)
        self._after: str | None = None
        self._places: dict[str, str] = {}

    async def run(self, until: float, measured_from: float) -> None:
        telling = asyncio.create_task(self._listen())
        http = Http(self._port)
        await http.open()
        await asyncio.sleep(self._chance.random() * EVERY_S)
        while time.monotonic() < until:
            began = time.monotonic()
            for kind, path in self._questions():
                asked = time.perf_counter()
                body = await http.get(path)
                if began > measured_from:
                    self.took[kind].append(time.perf_counter() - asked)
                self._heed(kind, path, body)
            await asyncio.sleep(max(0.0, began + EVERY_S - time.monotonic()))
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await telling

    def _questions(self) -> list[tuple[str, str]]:
        run, further = self._chance.choice(self._watched), self._chance.random() < 0.5
        lists = ["limit=50", "limit=50&sort=name&order=desc", "limit=50&state=running", "limit=50&name=dogs"]
        wanted = f"limit=50&after={self._after}" if self._after and further else self._chance.choice(lists)
        found = [
            ("empty", "/healthz"),
            ("list", f"/api/v1/runs?{wanted}"),
            ("history", f"/api/v1/runs/{run}/history?points=500"),
        ]
        if run in self._places:
            found.append(("added", f"/api/v1/runs/{run}/history?since={self._places[run]}"))
        return found

    def _heed(self, kind: str, path: str, body: bytes) -> None:
        following = re.search(rb'"next":"?([^",}]+)', body[-300:])
        if following is None:
            return
        if kind == "list":
            newest = "sort" not in path and "state" not in path and "name" not in path
            self._after = following[1].decode() if newest and following[1] != b"null" else None
        elif kind in ("history", "added"):
            self._places[path.split("/")[4]] = following[1].decode()

    async def _listen(self) -> None:
        async with connect(f"ws://127.0.0.1:{self._port}/api/v1/live", compression=None, max_size=2**24) as socket:
            for run in self._watched:
                await socket.send(json.dumps({"do": "watch", "what": "run", "id": run}))
            await socket.send(json.dumps({"do": "watch", "what": "jobs"}))
            async for text in socket:
                for at, step in re.findall(r'"at":"([^"]+)","step":(\d+)', str(text)):
                    self.ages.append(time.time() - datetime.fromisoformat(at).timestamp())
                    self.steps[json.loads(text)["id"]].append(int(step))


def clients(port: int, watched: list[str], num: int, begin_and_end_s: tuple[float, float], out: Path) -> None:
    """All clients, in a process of their own, until the end; writes what they have seen from the beginning on."""
    begin_s, end_s = begin_and_end_s

    async def all_of_them() -> list[Client]:
        now = time.monotonic()
        made = [Client(port, watched, seed) for seed in range(num)]
        await asyncio.gather(*(one.run(now + end_s, now + begin_s) for one in made))
        return made

    made = uvloop.run(all_of_them())
    told = [steps for one in made for steps in one.steps.values()]
    out.write_text(
        json.dumps(
            {
                "took": {kind: [t for one in made for t in one.took[kind]] for kind in KINDS},
                "ages": [age for one in made for age in one.ages],
                "missed": sum(b - a > 1 for steps in told for a, b in pairwise(steps)),
                "doubled": sum(b <= a for steps in told for a, b in pairwise(steps)),
                "watching": sum(len(one.steps) == len(watched) for one in made),
            }
        )
    )


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def times(took: list[float]) -> dict[str, float]:
    """In milliseconds."""
    return {f"p{share}_ms": round(1000 * percentile(took, share / 100), 2) for share in SHARES}


class Serving(NamedTuple):
    """A server on the workspace."""

    port: int
    process: psutil.Process


@contextlib.contextmanager
def served(root: Path) -> Iterator[Serving]:
    """A server that has just been started."""
    command = [sys.executable, "-m", "vizsla", "serve", "--port", "0", "--workspace", str(root)]
    # Not what torch or the benchmark may have set for this process.
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "500"})
    try:
        assert server.stderr is not None
        said = server.stderr.readline()
        found = re.search(r":(\d+)/api", said)
        assert found is not None, said
        yield Serving(int(found[1]), psutil.Process(server.pid))
    finally:
        server.terminate()
        server.wait()


def measure(
    serving: Serving, watched: list[str], options: argparse.Namespace, settle_s: float = SETTLE_S
) -> dict[str, Any]:
    """The clients for some time."""
    port, server = serving
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "seen.json"
        before = server.cpu_times()
        process = multiprocessing.get_context("spawn").Process(
            target=clients, args=(port, watched, options.clients, (settle_s, settle_s + options.seconds), out)
        )
        process.start()
        process.join()
        after = server.cpu_times()
        seen = json.loads(out.read_text())
    found: dict[str, Any] = {kind: {"requests": len(seen["took"][kind]), **times(seen["took"][kind])} for kind in KINDS}
    for kind in KINDS[1:]:
        found[kind]["p95_to_empty"] = common.ratio(found[kind]["p95_ms"], found["empty"]["p95_ms"])
    found["socket"] = {
        "events": len(seen["ages"]),
        "age": times(seen["ages"]),
        **{name: seen[name] for name in ("missed", "doubled", "watching")},
    }
    print({kind: found[kind]["p95_ms"] for kind in KINDS}, found["socket"], flush=True)
    used = after.user + after.system - before.user - before.system
    found["server_cores"] = round(used / (options.seconds + settle_s), 3)
    found["server_memory_mb"] = round(server.memory_info().rss / 1e6)
    return found


def speed(folder: Path, since: float) -> float | None:
    """Pictures a second of the training since a time; None where it came to no ten steps."""
    told = events.read(folder / "events.jsonl")[0]
    recent = [e for e in told if e["event"] == "step" and datetime.fromisoformat(e["at"]).timestamp() > since]
    return common.middle([e["pictures_per_s"] for e in recent])


def train(ws: Workspace) -> Path:
    """Put a long training into the queue, and wait until it is under way."""
    job = runs.submit(ws, "pictures", LONG, name="training")
    log = ws.folder("run", job.thing) / "events.jsonl"
    while not any(event["event"] == "step" for event in events.read(log)[0]):
        time.sleep(0.5)
    return log.parent


def rounds(ws: Workspace, watched: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Each server cold; the last one then with and without a training."""
    found: dict[str, Any] = {phase: [] for phase in PHASES}
    for _ in range(options.rounds - 1):
        with served(ws.root) as serving:
            found["cold"].append(measure(serving, watched, options, settle_s=0.0))
    with served(ws.root) as serving:
        found["cold"].append(measure(serving, watched, options, settle_s=0.0))
        for _ in range(options.rounds):
            found["alone"].append(measure(serving, watched, options))
        try:
            folder = train(ws)
            time.sleep(10)
            began = time.time()
            time.sleep(20)
            unwatched = speed(folder, began)
            for _ in range(options.rounds):
                began = time.time()
                one = measure(serving, watched, options)
                one["training_pictures_per_s"] = watched_speed = speed(folder, began)
                one["training_to_unwatched"] = common.ratio(watched_speed, unwatched)
                found["while_training"].append(one)
        finally:
            for job in ws.store.jobs.live():
                runs.stop(ws, job.thing)
            while ws.store.jobs.live():
                time.sleep(0.5)
    return found


def main() -> None:
    options = arguments()
    machine = common.machine()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "workspace"
        with vizsla.open(root) as ws:
            watched = fill(ws, options.data.absolute(), options)
            print(f"{options.runs:,} runs are there.", flush=True)
            stop = multiprocessing.Event()
            per_epoch = runs.get(ws, "first").run.steps_per_epoch
            folders = [ws.folder("run", id) for id in watched]
            worker = multiprocessing.Process(target=go_on, args=(folders, options.steps + 1, per_epoch, stop))
            worker.start()
            try:
                found = rounds(ws, watched, options)
            finally:
                stop.set()
                worker.join()
    settings = {name: getattr(options, name) for name in ("runs", "watched", "steps", "clients", "seconds", "beside")}
    result = {"benchmark": "load", "machine": machine, **settings, **found}
    rows = [
        [phase, number, kind, one[kind]["requests"], *(one[kind][f"p{share}_ms"] for share in SHARES)]
        for phase in PHASES
        for number, one in enumerate(found[phase], 1)
        for kind in KINDS
    ]
    print(common.table(["phase", "round", "request", "number", *(f"p{share} ms" for share in SHARES)], rows))
    common.save(result, options.out, "load")


if __name__ == "__main__":
    main()
