"""A package is whole or absent, and what people called things breaks none of its files."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image

from vizsla.errors import Conflict, InvalidInput
from vizsla.packaging import folder, quoting
from vizsla.packaging.spec import PackageSpec
from vizsla.serving.spec import CaptureSpec, ServiceSpec

HOSTILE = 'a "title" `of` $HOME ${x} %h \\ <script>|*_[x](y)\n\nRUN false\n- evil: true # 🐕‍🦺 \u202e\ud800 \\'
Make = Callable[..., PackageSpec]


def test_all_is_there_and_can_be_read_by_others(package: Make, colours: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        image = folder.write(package(public=True), tmp_path / "out")
    finally:
        os.umask(before)
    out = tmp_path / "out"
    assert re.fullmatch(r"colours:1rsrmwp2-[0-9a-f]{8}", image)
    assert {path.name for path in out.iterdir()} == {
        ".dockerignore", "Dockerfile", "README.md", "app", "colours.service", "compose.yaml", "kubernetes", "models",
        "requirements.txt", "service.json", "stack.yaml",
    }  # fmt: skip
    assert {path.name for path in (out / "models").rglob("*") if path.is_file()} == {"model.json", "model.onnx"}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in out.rglob("*"))
    spec = ServiceSpec.model_validate_json((out / "service.json").read_text())
    assert str(spec.models[0].versions[0].folder) == "models/colours/1rsrmwp2"
    assert list(tmp_path.iterdir()) == [out], "nothing is left beside it"


def test_the_tag_tells_what_is_inside(package: Make, tmp_path: Path) -> None:
    asked = [package(public=True), package(public=True), package(public=True, title="x"), package(keys=("0" * 64,))]
    tags = [folder.write(one, tmp_path / str(number)) for number, one in enumerate(asked)]
    assert tags[0] == tags[1]
    assert len(set(tags)) == 3


def test_what_is_there_is_not_overwritten(package: Make, colours: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folder.write(package(), tmp_path / "empty")
    with pytest.raises(Conflict, match="something already"):
        folder.write(package(), tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    with pytest.raises(Conflict):
        folder.write(package(), tmp_path / "file")
    with pytest.raises(InvalidInput, match="no such folder"):
        folder.write(package(), tmp_path / "none" / "out")


def test_a_model_that_is_not_whole_leaves_nothing(package: Make, colours: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(colours, broken)
    with (broken / "model.onnx").open("ab") as file:
        file.write(b"x")
    spec = package()
    version = spec.service.models[0].versions[0].model_copy(update={"folder": broken})
    model = spec.service.models[0].model_copy(update={"versions": (version,)})
    spec = spec.model_copy(update={"service": spec.service.model_copy(update={"models": (model,)})})
    with pytest.raises(InvalidInput, match="missing or damaged"):
        folder.write(spec, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_hostile_title_is_only_a_title(package: Make, tmp_path: Path, device: str) -> None:
    out = tmp_path / "out"
    title = quoting.line(HOSTILE)
    image = folder.write(package(title=title, device=device, links=True, keys=("0" * 64,)), out)
    found = {path.stem: yaml.safe_load(path.read_text()) for path in out.rglob("*.yaml")}
    assert set(found) == {
        "compose", "stack", "deployment", "service", "autoscaler", "disruption", "network", "kustomization",
    }  # fmt: skip
    assert found["deployment"]["metadata"]["annotations"]["vizsla/title"] == title
    assert set(found["compose"]) == {"name", "services"}
    assert found["compose"]["services"]["service"]["image"] == found["stack"]["services"]["service"]["image"] == image
    labels = _labels((out / "Dockerfile").read_text())
    assert labels["org.opencontainers.image.title"] == title
    assert labels["io.vizsla.weights.licences"] == "CC BY-NC $4"
    steps = re.findall(r"^([A-Z]+) ", (out / "Dockerfile").read_text(), re.MULTILINE)
    assert steps.count("RUN") == 2
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((out / "colours.service").read_text())
    assert unit["Unit"]["Description"].replace("%%", "%") == title.replace("\\", "/")
    readme = (out / "README.md").read_text()
    assert readme.startswith("# a ")
    assert "<script>" not in readme
    assert "RUN false" in readme.splitlines()[0]
    assert "| colours | 1rsrmwp2 | test | 200 | 90.0 % (85.0 to 94.0), 95 % interval |" in readme
    assert not re.search(r"^\s*\$\w+", readme, re.MULTILINE), "no placeholder is left"


def _labels(dockerfile: str) -> dict[str, str]:
    """The labels, as Docker reads them."""
    told = re.search(r"^LABEL (.*?[^\\])$", dockerfile, re.MULTILINE | re.DOTALL)
    assert told
    pairs = re.findall(r'([\w.]+)="((?:\\.|[^"\\$])*)"(?: \\\n)?', told[1])
    assert "".join(f'{name}="{value}"' for name, value in pairs) == re.sub(r" \\\n +", "", told[1])
    return {name: re.sub(r"\\(.)", r"\1", value) for name, value in pairs}


def test_a_gpu_is_asked_for_where_it_computes_on_one(package: Make, tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        folder.write(package(device=device), tmp_path / device)
        text = "".join(path.read_text() for path in (tmp_path / device).rglob("*.yaml"))
        text += (tmp_path / device / "Dockerfile").read_text() + (tmp_path / device / "requirements.txt").read_text()
        wanted = ("nvidia.com/gpu", "driver: nvidia", "NVIDIA-GPU", "LD_LIBRARY_PATH", "onnxruntime-gpu==")
        assert [word for word in wanted if (word in text) != (device == "cuda")] == []
    deployment = yaml.safe_load((tmp_path / "cuda" / "kubernetes" / "deployment.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_nobody_is_asked_but_for_links(package: Make, tmp_path: Path) -> None:
    for links in (False, True):
        folder.write(package(links=links), tmp_path / str(links))
        policy = yaml.safe_load((tmp_path / str(links) / "kubernetes" / "network.yaml").read_text())["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert bool(policy["egress"]) == links


def test_memory_grows_with_what_may_be_held(package: Make) -> None:
    one, two = package(), package(workers=2)
    assert one.memory_mb(14_000_000) == 1280
    assert two.memory_mb(14_000_000) > 1.5 * one.memory_mb(14_000_000)


def test_the_app_answers_with_nothing_but_its_folder(package: Make, tmp_path: Path) -> None:
    """As in a container: another folder, no command line, no installation of Vizsla that it could find."""
    keys = ("8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4",)  # of "hi"
    folder.write(package(keys=keys, workers=2), tmp_path / "out")
    out = tmp_path / "out"
    env = {"PYTHONPATH": str(out / "app"), "PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")}
    asked = (sys.executable, "-P", "-m", "vizsla.serving", "--port", "0", "--host", "0.0.0.0", "--workers", "2")
    with subprocess.Popen(asked, cwd=out, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            port = re.search(r"colours at 0\.0\.0\.0, port (\d+)", said)
            assert port, said + process.stderr.read()
            _ask(f"http://127.0.0.1:{port[1]}")
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert not (tmp_path / "home").exists()


def _ask(url: str) -> None:
    data = BytesIO()
    Image.new("RGB", (8, 8), (10, 12, 11)).save(data, "png")
    assert httpx.get(f"{url}/about").status_code == 401
    answer = httpx.post(f"{url}/predict", content=data.getvalue(), headers={"X-API-Key": "hi"})
    scores = answer.json()["predictions"][0]["scores"]
    assert [one["label"] for one in scores] == ["green", "blue", "red"]
    wanted = np.exp([2, 1, 0]) / np.exp([2, 1, 0]).sum()
    np.testing.assert_allclose([one["probability"] for one in scores], wanted, atol=1e-5)
    assert httpx.get(f"{url}/").status_code == 200
    assert httpx.get(f"{url}/v2", headers={"X-API-Key": "hi"}).json()["version"]


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        (["--host", "0.0.0.0"], 1, "everybody could ask"),
        (["--workers", "0"], 2, "not within 1 and 64"),
        (["--port", "x"], 2, "invalid number value"),
        (["nowhere.json"], 1, "nowhere.json"),
    ],
)
def test_what_cannot_be_is_refused(package: Make, tmp_path: Path, options: list[str], status: int, told: str) -> None:
    folder.write(package(public=True), tmp_path / "out")
    asked = [sys.executable, "-m", "vizsla.serving", *options]
    done = subprocess.run(asked, cwd=tmp_path / "out", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_told(package: Make, tmp_path: Path) -> None:
    folder.write(package(), tmp_path / "out")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        asked = [sys.executable, "-m", "vizsla.serving", "--port", str(taken.getsockname()[1])]
        done = subprocess.run(asked, cwd=tmp_path / "out", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "cannot be had" in done.stderr


def test_there_is_room_for_what_is_kept_for_labelling(package: Make, tmp_path: Path) -> None:
    none, some = tmp_path / "none", tmp_path / "some"
    folder.write(package(public=True), none)
    written = [path for path in none.rglob("*") if path.is_file() and "app" not in path.parts]
    assert [path.name for path in written if b"captured" in path.read_bytes()] == ["service.json"]
    folder.write(package(public=True, capture=CaptureSpec(below=0.5, max_mb=500)), some)
    assert "RUN install -d -o 10001 -g 10001 /srv/captured\n" in (some / "Dockerfile").read_text()
    compose, stack = (yaml.safe_load((some / name).read_text()) for name in ("compose.yaml", "stack.yaml"))
    assert compose["services"]["service"]["volumes"] == ["captured:/srv/captured"]
    assert stack["services"]["service"]["volumes"][1] == {
        "type": "volume",
        "source": "captured",
        "target": "/srv/captured",
    }
    assert compose["volumes"] == stack["volumes"] == {"captured": None}
    pod = yaml.safe_load((some / "kubernetes" / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    assert pod["securityContext"]["fsGroup"] == 10001
    assert pod["containers"][0]["volumeMounts"][1] == {"name": "captured", "mountPath": "/srv/captured"}
    assert pod["volumes"][1] == {"name": "captured", "emptyDir": {"sizeLimit": "689Mi"}}
    unit = (some / "colours.service").read_text()
    assert "StateDirectory=vizsla-colours\n" in unit
    assert "BindPaths" not in unit
    readme = (some / "README.md").read_text()
    assert "sudo ln -s /var/lib/vizsla-colours /opt/colours/captured\n" in readme
    assert "--volume colours-captured:/srv/captured --publish" in readme
    assert "a probability below 0.5, for 30 days and up to 500 MB" in readme
