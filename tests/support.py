"""What the tests share, beside the fixtures: the command line as a user has it, and drawn pictures."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import psutil
import pytest
import uvicorn
from PIL import Image, ImageDraw

import vizsla
from vizsla import events
from vizsla.api import datasets, keeper, models, runs
from vizsla.images import links
from vizsla.images.preprocess import Preprocess
from vizsla.training.run import Arithmetic, DatasetRef, Input, Run
from vizsla.training.spec import TrainingSpec
from vizsla.web.app import create_app

# In the stash of tests that failed.
FAILED = pytest.StashKey[bool]()
# Gives a copy of the folder that a function makes.
Once = Callable[[Callable[[Path], None]], Path]
TINY = TrainingSpec(net="lenet", tune="scratch", epochs=1, batch_size=32)


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Cli:
    """Runs `vizsla ARGS` on a workspace, in a process of its own, and checks the exit status."""

    workspace: Path

    def __call__(self, *args: object, status: int = 0) -> Done:
        done = subprocess.run(
            command(*args), env=environment(self.workspace), capture_output=True, text=True, check=False
        )
        assert done.returncode == status, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Done(done.returncode, done.stdout, done.stderr)


class Server:
    """`vizsla serve` in a process of its own."""

    def __init__(self, root: Path, *options: object, port: int = 0, verify: ssl.SSLContext | bool = True) -> None:
        self.process = subprocess.Popen(
            command("serve", "--port", port, *options), env=environment(root), stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        said = ""
        while not (found := re.search(r"(https?://[^/]+)/api/v1\.", said)):
            line = self.process.stderr.readline()
            assert line, said
            said += line
        self.url = found[1] + "/api/v1"
        self.client = httpx.Client(base_url=self.url, timeout=60, verify=verify)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """End it; returns its exit status. What it wrote since it began is in `said`."""
        self.client.close()
        self.process.send_signal(number)
        _, self.said = self.process.communicate(timeout=120)
        return self.process.returncode


class Service:
    """`vizsla service run` in a process of its own."""

    def __init__(self, root: Path, *options: object, **variables: str) -> None:
        env = environment(root) | variables
        asked = command("service", "run", "--port", 0, *options)
        self.process = subprocess.Popen(asked, env=env, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        said = ""
        while not (found := re.search(r"(https?://\S+:\d+)/", said)):
            line = self.process.stderr.readline()
            assert line, said
            said += line
        self.url = found[1]
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def workers(self) -> list[psutil.Process]:
        """The processes that answer."""
        return psutil.Process(self.process.pid).children()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; returns its exit status. What it wrote since it began is in `said`."""
        self.client.close()
        self.process.send_signal(number)
        _, self.said = self.process.communicate(timeout=60)
        return self.process.returncode


@contextlib.contextmanager
def serving_here(root: Path, **options: Any) -> Iterator[str]:
    """A server on a workspace in a thread of this process, with what no command line can say; yields its address."""
    with vizsla.open(root) as ws, socket.create_server(("127.0.0.1", 0)) as listening:
        held = keeper.take(ws)
        app = create_app(ws, held, **options)
        config = uvicorn.Config(app, log_config=None, access_log=False, ws="websockets-sansio")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
            held.release()


@contextlib.contextmanager
def sharing(folder: Path) -> Iterator[str]:
    """The files of a folder on a web server of this machine; yields its address."""

    class Files(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args: Any) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


async def fetch_here(link: str, write: links.Write, *, max_bytes: int) -> None:
    """Fetches as a server does, but from this machine alone."""
    await links.fetch(
        link, write, max_bytes=max_bytes, reachable=lambda address: str(address) == "127.0.0.1", ports=range(65536)
    )


def kill_process(pid: int | None) -> None:
    """Kill a process, which has to be there: 0 would mean this one and those around it."""
    assert pid, "there is nobody to be killed"
    os.kill(pid, signal.SIGKILL)


def command(*args: object) -> list[str]:
    """The command line `vizsla ARGS`."""
    return [sys.executable, "-m", "vizsla", *map(str, args)]


def environment(workspace: Path) -> dict[str, str]:
    """The environment of a user with this workspace and no way to the network's hubs."""
    return {**os.environ, "VIZSLA_WORKSPACE": str(workspace), "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}


def draw_shapes(folder: Path, *, labels: Sequence[str] = ("disc", "ring", "square"), num: int = 40) -> Path:
    """Draw `num` pictures a class, 32 px, of shapes at random places in random colours; returns `folder`."""
    for label in labels:
        (folder / label).mkdir(parents=True)
        random = np.random.default_rng(list(label.encode()))
        for i in range(num):
            _shape(label, random).save(folder / label / f"{i:03d}.png")
    return folder


def with_shapes(folder: Path) -> None:
    """Make `pictures` and the workspace `workspace` with `shapes`: 96 train and 24 val pictures in three classes."""
    pictures = draw_shapes(folder / "pictures")
    with vizsla.open(folder / "workspace") as ws:
        datasets.create(ws, "shapes", vizsla.DatasetSpec(source=pictures, width=32, height=32, val_percent=20))


def with_models(folder: Path) -> None:
    """The same with two models of two runs: `first` and `the second`."""
    with_shapes(folder)
    with vizsla.open(folder / "workspace") as ws:
        for seed, name in enumerate(("first", "the second")):
            run = runs.start(ws, "shapes", TINY.model_copy(update={"seed": seed})).run
            models.export(ws, run.id, name=name)


def _shape(label: str, random: np.random.Generator) -> Image.Image:
    back, ink = random.integers(0, 90, 3), random.integers(150, 255, 3)
    image = Image.new("RGB", (32, 32), tuple(int(c) for c in back))
    x, y = (int(v) for v in random.integers(3, 13, 2))
    box, colour = (x, y, x + 15, y + 15), tuple(int(c) for c in ink)
    draw = ImageDraw.Draw(image)
    match label:
        case "disc":
            draw.ellipse(box, fill=colour)
        case "ring":
            draw.ellipse(box, outline=colour, width=2)
        case _:
            draw.rectangle(box, fill=colour)
    return image


def fake_run() -> Run:
    """What `run.json` says of a run, for who only reads it."""
    return Run(
        id="1rsrmwp0",
        name="dogs-1",
        created_at=events.now(),
        asked=TrainingSpec(),
        spec=TrainingSpec(epochs=3, learning_rate=0.1),
        dataset=DatasetRef(id="1rsrmwp1", name="dogs", fingerprint="f00d"),
        labels=("a", "b"),
        preprocess=Preprocess(width=32, height=32, channels=3, resize="crop"),
        input=Input(width=32, height=32, mean=(0.5,), std=(0.2,)),
        weights=None,
        num_parameters=1,
        devices=("cpu",),
        arithmetic=Arithmetic(precision="fp32"),
        num_train=10,
        num_val=5,
        num_test=0,
        threads=1,
        steps_per_epoch=10,
        vizsla_version="0",
    )


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine that vouches for itself, by Debian's openssl."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,IP:0.0.0.0,DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key
