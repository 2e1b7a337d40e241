"""A packaged service in real containers: its answers are those of `vizsla predict`, whatever dies around it.

All in one module, so that they share an engine where tests are shared among processes.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from tests.browser.conftest import chromium, new_page
from tests.containers.conftest import Container, Engine, free_port, is_ready, wait_until
from tests.support import Cli, Once, kill_process, with_models

import vizsla
from vizsla.api import datasets, models, runs
from vizsla.models.card import Card
from vizsla.store.workspace import Workspace

pytestmark = pytest.mark.slow
__all__ = ["chromium", "new_page"]

TITLE = 'Which "shape" is $this \\ `id` <b>?'
KEY = "a key that is long enough"
WITH_KEY = {"X-API-Key": KEY}
ACCOUNT = 10001
# What its libraries may take on the image that it is built upon; torch alone would be more.
MOST_ADDED_MB = 280
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RESOURCES = ("server", "service", "network")
NO_TORCH = ("torch", "torchvision", "timm", "sqlalchemy", "alembic", "pyarrow", "cyclopts", "rich", "onnx")


class Built(NamedTuple):
    """An image, and the folder that it was built from."""

    image: str
    folder: Path


@pytest.fixture(scope="module")
def ws(once: Once) -> Iterator[Workspace]:
    """A workspace with two models."""
    with vizsla.open(once(with_models) / "workspace") as opened:
        yield opened


@pytest.fixture(scope="module")
def cards(ws: Workspace) -> list[Card]:
    """The models, the older one first."""
    return [models.get(ws, name) for name in ("first", "the second")]


@pytest.fixture(scope="module")
def pictures(ws: Workspace, cards: list[Card]) -> list[Path]:
    return sorted((ws.root.parent / "pictures").rglob("*.png"))[::7]


@pytest.fixture(scope="module")
def built(engine: Engine, ws: Workspace, cards: list[Card], tmp_path_factory: pytest.TempPathFactory) -> list[Built]:
    """An image of each of the models, under the same name."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "keys").write_text(KEY)
    options = ("--title", TITLE, "--keys", folder / "keys")
    return [
        _build(engine, ws, folder / "first", "shapes=first", *options, "--capture-below", 1),
        _build(engine, ws, folder / "second", "shapes=the second", *options),
    ]


def _build(engine: Engine, ws: Workspace, out: Path, *options: object) -> Built:
    said = Cli(ws.root)("service", "package", *options, "--out", out, "--json").json
    engine("build", "--quiet", "--build-arg", f"BASE={engine.base}", "--tag", said["image"], said["folder"])
    return Built(said["image"], out)


def _ask(url: str, picture: Path, **options: Any) -> Any:
    answer = httpx.post(f"{url}/predict", content=picture.read_bytes(), headers=WITH_KEY, timeout=60, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_what_is_written_is_valid(engine: Engine, ws: Workspace, cards: list[Card], tmp_path: Path) -> None:
    if not engine.hadolint or not engine.kubernetes_validate:
        pytest.skip("needs hadolint and kubernetes-validate")
    for device, capture in (("cpu", ()), ("cuda", ("--capture-sample", 0.1))):
        out = tmp_path / device
        options = ("first", "--public", "--device", device, "--title", TITLE, "--allow-links", "--out", out)
        Cli(ws.root)("service", "package", *options, *capture)
        engine.run((engine.hadolint, out / "Dockerfile"))
        manifests = sorted((out / "kubernetes").glob("*.yaml"))
        checked = [path for path in manifests if path.name != "kustomization.yaml"]  # which is no resource
        assert len(checked) == 5
        engine.run((engine.kubernetes_validate, "--strict", *checked))
        told = engine.run((*engine.compose, "--file", out / "compose.yaml", "config", "--format", "json"))
        (service,) = json.loads(told)["services"].values()
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["ports"][0]["host_ip"] == "127.0.0.1"
        if verify := shutil.which("systemd-analyze"):
            # All but that its program is not installed here.
            done = subprocess.run(
                [verify, "verify", out / "first.service"], capture_output=True, text=True, check=False
            )
            told_of = [line for line in done.stderr.splitlines() if "first.service" in line]
            assert [line for line in told_of if "is not executable" not in line] == []


def test_what_deploys_the_console_is_valid(engine: Engine, tmp_path: Path) -> None:
    if not engine.hadolint or not engine.kubernetes_validate:
        pytest.skip("needs hadolint and kubernetes-validate")
    deploy = tmp_path / "deploy"
    shutil.copytree(DEPLOY, deploy, ignore=shutil.ignore_patterns("secrets.env"))
    shutil.copy(deploy / "secrets.env.example", deploy / "secrets.env")
    engine.run((engine.hadolint, deploy / "Dockerfile"))
    engine.run(
        (engine.kubernetes_validate, "--strict", *(deploy / "kubernetes" / f"{name}.yaml" for name in RESOURCES))
    )
    compose = (*engine.compose, "--file", deploy / "compose.yaml")
    for files in ((), ("--file", deploy / "compose.gpu.yaml")):
        services = json.loads(engine.run((*compose, *files, "config", "--format", "json")))["services"]
        assert services["server"]["read_only"]
        assert services["server"]["ports"][0]["host_ip"] == "127.0.0.1"
        assert "ports" not in services["database"]
        given = services["server"].get("deploy", {})["resources"].get("reservations", {}).get("devices")
        assert bool(given) == bool(files)
    for path in [path for path in deploy.rglob("*.yaml") if path.parent.name in ("deploy", "kubernetes")]:
        assert "PASSWORD:" not in path.read_text().replace("PASSWORD_FILE", "")


def test_the_image_holds_what_it_needs_and_no_more(
    engine: Engine, built: list[Built], contain: Callable[..., Container]
) -> None:
    image = built[0].image
    size, base = (engine.inspect(one, ".Size") / 1e6 for one in (image, engine.base))
    print(f"\nimage: {size:.0f} MB, of which {size - base:.0f} MB on {engine.base} ({base:.0f} MB)")
    assert size - base < MOST_ADDED_MB
    config = engine.inspect(image, ".Config")
    assert config["User"] == f"{ACCOUNT}:{ACCOUNT}"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.title"] == TITLE
    assert config["Labels"]["org.opencontainers.image.version"] == image.partition(":")[2]
    container = contain(image)
    container.ready()
    found = container.python(
        "import importlib.util, os\n"
        f"print([name for name in {NO_TORCH} if importlib.util.find_spec(name)], os.getuid(), "
        "os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    assert found == f"[] {ACCOUNT} 1"
    assert KEY not in engine("history", "--no-trunc", image) + json.dumps(engine.inspect(image, ".Config"))


def test_answers_are_those_of_the_command(
    built: list[Built], ws: Workspace, cards: list[Card], pictures: list[Path], contain: Callable[..., Container]
) -> None:
    container = contain(built[0].image)
    print(f"\nfrom `docker run` to ready: {container.ready():.1f} s")
    files = [("pictures", (path.name, path.read_bytes())) for path in pictures]
    answer = httpx.post(f"{container.url}/predict", files=files, headers=WITH_KEY, timeout=60).json()
    assert answer["version"] == cards[0].id
    wanted = Cli(ws.root)("predict", "first", *pictures, "--json").json
    for one, known in zip(answer["predictions"], wanted, strict=True):
        assert [s["label"] for s in one["scores"]] == [s["label"] for s in known["scores"]]
        told, right = ([s["probability"] for s in each["scores"]] for each in (one, known))
        np.testing.assert_allclose(told, right, atol=1e-5)
    assert httpx.post(f"{container.url}/predict", files=files).status_code == 401
    about = httpx.get(f"{container.url}/about", headers=WITH_KEY).json()
    assert about["title"] == TITLE
    nowhere = (
        "import os; print([f for f in ('/', '/srv', '/opt/vizsla', '/root', '/var/tmp') if os.access(f, os.W_OK)])"
    )
    assert container.python(nowhere) == "[]"


def test_a_worker_that_is_killed_is_replaced(
    built: list[Built], pictures: list[Path], contain: Callable[..., Container]
) -> None:
    container = contain(built[0].image)
    container.ready()
    before = _ask(container.url, pictures[0])["predictions"]
    killed = container.python(
        "import os, pathlib, signal\n"
        "for one in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
        "    if one.read_bytes().split(b'\\0')[2:4] == [b'-m', b'vizsla.serving.worker']:\n"
        "        os.kill(int(one.parent.name), signal.SIGKILL); print(one.parent.name)"
    )
    assert len(killed.splitlines()) == 1
    wait_until(lambda: is_ready(container.url), 60)
    assert _ask(container.url, pictures[0])["predictions"] == before
    assert "Another one takes its place" in container.engine.run(
        ("sh", "-c", f"{container.engine.docker} logs {container.id} 2>&1")
    )


def test_what_is_under_way_is_answered_before_the_end(
    engine: Engine, built: list[Built], pictures: list[Path], contain: Callable[..., Container]
) -> None:
    """A picture whose second half comes after SIGTERM, and after others have been told to go elsewhere."""
    container = contain(built[0].image, command=("--host", "0.0.0.0", "--drain", "2"))
    container.ready()
    data = pictures[0].read_bytes()
    head = (
        f"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: {KEY}\r\nContent-Type: image/png\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection((container.host, container.port)) as asking:
        asking.sendall(head.encode() + data[:100])
        time.sleep(0.2)
        engine("kill", "--signal", "TERM", container.id)
        wait_until(lambda: not is_ready(container.url), 10)
        assert _ask(container.url, pictures[0])["predictions"], "while it drains, it answers still"
        time.sleep(2.5)
        asking.sendall(data[100:])
        asking.settimeout(30)
        told = b""
        while piece := asking.recv(65536):
            told += piece
    assert told.startswith(b"HTTP/1.1 200"), told
    assert json.loads(told.partition(b"\r\n\r\n")[2])["predictions"][0]["scores"]
    assert container.exit_code() == 0


def test_compose_starts_it_again(engine: Engine, built: list[Built], pictures: list[Path]) -> None:
    port = free_port()
    compose = (*engine.compose, "--file", built[0].folder / "compose.yaml")
    env = {"PORT": str(port)}
    url = f"http://127.0.0.1:{port}"
    try:
        engine.run((*compose, "up", "--no-build", "--detach", "--wait", "--wait-timeout", "60"), env=env)
        assert is_ready(url)
        container = engine.run((*compose, "ps", "--quiet"), env=env)
        assert engine.inspect(container, ".State.Health.Status") == "healthy"
        before = _ask(url, pictures[0])["predictions"]
        wait_until(lambda: len(_captured(engine, container)) == 1, 30)
        process = engine.inspect(container, ".State.Pid")
        command = Path(f"/proc/{process}/cmdline")
        # The engine itself would take a kill through it for the wish that the container stays down.
        if os.geteuid() == 0 and command.exists() and b"vizsla.serving" in command.read_bytes():
            kill_process(process)
            wait_until(lambda: engine.inspect(container, ".RestartCount") == 1, 30)
            wait_until(lambda: is_ready(url), 60)
            assert _ask(url, pictures[0])["predictions"] == before
        _ask(url, pictures[1])
        wait_until(lambda: len(_captured(engine, container)) == 2, 30)
        began = time.monotonic()
        engine.run((*compose, "stop"), env=env)
        assert time.monotonic() - began < 30
        assert engine.inspect(container, ".State.ExitCode") == 0
    finally:
        engine.run((*compose, "down", "--volumes"), env=env)


def _captured(engine: Engine, container: str) -> list[str]:
    """The pictures that a container has kept."""
    program = "from pathlib import Path\nfor one in Path('/srv/captured').glob('shapes/pictures/*/*.png'): print(one)"
    return engine("exec", container, "python3", "-c", program).splitlines()


CLIENT = """
import base64, http.client, os, signal, sys, time
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
picture = base64.b64decode(os.environ["PICTURE"])
while not ended:
    try:
        to = http.client.HTTPConnection("service", 8000, timeout=30)
        to.request("POST", "/predict", picture, {"X-API-Key": os.environ["KEY"], "Content-Type": "image/png"})
        answer = to.getresponse()
        print(answer.status, answer.read().decode(), flush=True)
        to.close()
    except Exception as error:
        print(0, repr(error), flush=True)
    time.sleep(0.05)
"""


@pytest.fixture
def swarm(engine: Engine) -> Iterator[None]:
    """A swarm of one node."""
    if engine("info", "--format", "{{.Swarm.LocalNodeState}}") != "inactive":
        pytest.skip("needs an engine that is in no swarm")
    engine("swarm", "init", "--advertise-addr", "127.0.0.1")
    yield
    engine("swarm", "leave", "--force")


def _for_one_node(stack: str) -> str:
    """A stack as it can run on one node without IPVS: asked from within its network, with shorter pauses."""
    ports = "    ports:\n      - target: 8000\n        published: 8000\n        mode: ingress\n"
    for old, new in {
        ports: "", "    deploy:\n": "    deploy:\n      endpoint_mode: dnsrr\n", "monitor: 30s": "monitor: 5s",
        "delay: 5s": "delay: 1s", "interval: 5s": "interval: 1s",
        # Two of them share two cores with the tests.
        'cpus: "2"': 'cpus: "1"',
    }.items():  # fmt: skip
        assert old in stack
        stack = stack.replace(old, new)
    return stack + "networks:\n  default:\n    driver: overlay\n    attachable: true\n"


@pytest.mark.usefixtures("swarm")
def test_a_swarm_goes_over_to_another_version_and_back_without_a_failed_request(
    engine: Engine, built: list[Built], cards: list[Card], pictures: list[Path], tmp_path: Path
) -> None:
    def deploy(one: Built) -> None:
        place = tmp_path / "stack.yaml"
        place.write_text(_for_one_node((one.folder / "stack.yaml").read_text()))
        engine("stack", "deploy", "--compose-file", place, "shapes")

    def state() -> str:
        return str((engine.inspect("shapes_service", ".UpdateStatus") or {}).get("State"))

    def told() -> list[str]:
        return engine("logs", client).splitlines()

    deploy(built[0])
    listed = ("service", "ls", "--filter", "name=shapes_service", "--format", "{{.Replicas}}")
    wait_until(lambda: engine(*listed) == "2/2", 90, lambda: engine("service", "ps", "--no-trunc", "shapes_service"))
    picture = base64.b64encode(pictures[0].read_bytes()).decode()
    asked = ("--network", "shapes_default", "--env", f"PICTURE={picture}", "--env", f"KEY={KEY}")
    client = engine("run", "--detach", *asked, "--entrypoint", "python3", built[0].image, "-c", CLIENT)
    engine.started.append(client)
    try:
        wait_until(lambda: len(told()) > 5, 30)
        deploy(built[1])
        wait_until(lambda: state() == "completed", 120, lambda: engine("service", "ps", "shapes_service"))
        engine("service", "rollback", "--detach", "shapes_service")
        wait_until(lambda: state() == "rollback_completed", 120, lambda: engine("service", "ps", "shapes_service"))
        so_far = len(told())
        wait_until(lambda: len(told()) > so_far + 10, 30)
    finally:
        engine("stop", client)
    lines = told()
    assert [line for line in lines if not line.startswith("200 ")] == []
    versions = [json.loads(line.partition(" ")[2])["version"] for line in lines]
    runs_of = [one for number, one in enumerate(versions) if number == 0 or versions[number - 1] != one]
    assert runs_of[0] == runs_of[-1] == cards[0].id
    assert set(versions) == {card.id for card in cards}
    print(f"\n{len(lines)} requests while it went over and back, all answered")


def test_a_lite0_is_small_and_soon_there(
    engine: Engine, shared_data: Callable[[str], Path], tmp_path: Path, contain: Callable[..., Container]
) -> None:
    source = tmp_path / "dogs"
    for folder in sorted(path for path in (shared_data("dogs10") / "train").iterdir() if path.is_dir()):
        (source / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:6]:
            shutil.copy(path, source / folder.name)
    with vizsla.open(tmp_path / "workspace") as ws:
        datasets.create(ws, "dogs", vizsla.DatasetSpec(source=source, width=224, height=224, val_percent=20))
        spec = vizsla.TrainingSpec(net="tf_efficientnet_lite0", tune="head", epochs=1, batch_size=16)
        models.export(ws, runs.start(ws, "dogs", spec, name="dogs").run.id, name="dogs-1")
        made = _build(engine, ws, tmp_path / "out", "dogs-1", "--public")
        pictures = sorted(source.rglob("*.jpg"))[::13]
        wanted = Cli(ws.root)("predict", "dogs-1", *pictures, "--json").json
    seconds = [contain(made.image).ready() for _ in range(3)]
    size, base = (engine.inspect(one, ".Size") / 1e6 for one in (made.image, engine.base))
    print(f"\nLite0: {size - base:.0f} MB on {base:.0f} MB; from `docker run` to ready: {sorted(seconds)[1]:.1f} s")
    container = contain(made.image, "--cpus", "1", "--memory", "1280m")
    container.ready()
    for path, known in zip(pictures, wanted, strict=True):
        (one,) = _ask(container.url, path)["predictions"]
        assert [s["label"] for s in one["scores"]] == [s["label"] for s in known["scores"]]
        told, right = ([s["probability"] for s in each["scores"]] for each in (one, known))
        np.testing.assert_allclose(told, right, atol=1e-5)


def test_the_page_is_for_people(
    built: list[Built], pictures: list[Path], contain: Callable[..., Container], new_page: Callable[..., Any]
) -> None:
    expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
    container = contain(built[0].image)
    container.ready()
    page = new_page(container, expects=("Failed to load resource",))  # what it has before it has the key
    page.goto("/")
    page.get_by_label("This service asks for a key").fill(KEY)
    page.get_by_role("button", name="Go on").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(TITLE)
    page.set_input_files("#files", pictures[0])
    best = _ask(container.url, pictures[0])["predictions"][0]["scores"][0]
    expect(page.locator("#answers .bars li").first.locator("bdi")).to_have_text(best["label"])
