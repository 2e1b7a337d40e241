"""A model whose answer anybody can work out: how much red, green and blue there is in a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from tests.support import fake_run

from vizsla import files
from vizsla.models.card import CARD, GRAPH, Card, Parity, RunRef
from vizsla.packaging.spec import PackageSpec
from vizsla.serving.spec import CaptureSpec, ModelSpec, ServiceSpec, VersionSpec
from vizsla.training.run import WeightsRef

SIDE = 8
FIGURE = {"value": 0.9, "low": 0.85, "high": 0.94, "level": 0.95, "num_pictures": 200, "method": "Wilson"}


def _graph(path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("GlobalAveragePool", ["planes"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
        helper.make_node("Softmax", ["means"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that model."""
    folder = tmp_path_factory.mktemp("colours")
    _graph(folder / GRAPH)
    (folder / "model.safetensors").write_bytes(b"weights that no service needs")
    run = fake_run()
    card = Card(
        id="1rsrmwp2",
        name="colours | <b>",
        created_at=run.created_at,
        network="means",
        num_parameters=0,
        labels=("red", "green", "blue"),
        preprocess=run.preprocess.model_copy(update={"width": SIDE, "height": SIDE}),
        input=run.input,
        run=RunRef(id=run.id, name=run.name, checkpoint=30),
        dataset=run.dataset,
        weights=WeightsRef(source='a "file"', licence="CC BY-NC $4", sha256="0" * 64),
        figures=({"split": "test", "role": "test", "accuracy": FIGURE, "precision": "fp32", "evaluation": None},),
        parity=Parity(largest_difference=0, num_pictures=1, split="val"),
        files={GRAPH: files.sha256(folder / GRAPH)},
        vizsla_version="0",
    )
    files.write_json(folder / CARD, card.model_dump(mode="json"))
    return folder


@pytest.fixture
def package(colours: Path) -> Callable[..., PackageSpec]:
    """What is asked for of a package of it; settings of the service and of the package by their names."""

    def make(title: str = "What is this?", device: str = "cpu", links: bool = False, keys: tuple[str, ...] = (),
             capture: CaptureSpec | None = None, **settings: Any) -> PackageSpec:  # fmt: skip
        model = ModelSpec(name="colours", versions=(VersionSpec(version="1rsrmwp2", folder=colours),))
        service = ServiceSpec(
            name=title, models=(model,), device=device, links=links, keys=keys, capture=capture or CaptureSpec()
        )
        return PackageSpec(service=service, **{"name": "colours"} | settings)

    return make
