"""A model as an archive: there and back again equal, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from tests.support import Cli, Server

import vizsla
from vizsla.api import datasets, evaluations, models, runs
from vizsla.errors import Conflict, InvalidInput, NotFound
from vizsla.models import archive
from vizsla.models.archive import FORMATS, Format
from vizsla.models.card import CARD, GRAPH, LABELS, WEIGHTS
from vizsla.store.workspace import Workspace

pytestmark = pytest.mark.slow

PARTS = (CARD, GRAPH, WEIGHTS, LABELS)


@pytest.fixture(scope="module", autouse=True)
def model(ws: Workspace) -> Path:
    """The folder of a model."""
    spec = vizsla.TrainingSpec(net="lenet", tune="scratch", epochs=2, learning_rate=0.003)
    run = runs.start(ws, "shapes", spec, name="first").run.id
    return ws.folder("model", models.export(ws, run, name="first").id)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Workspace]:
    """Another workspace, with nothing in it."""
    with vizsla.open(tmp_path / "elsewhere") as opened:
        yield opened


@pytest.mark.parametrize("format", FORMATS)
def test_there_and_back_again(ws: Workspace, elsewhere: Workspace, tmp_path: Path, format: Format) -> None:
    packed = models.pack(ws, "first", tmp_path / f"model.{format}")
    assert packed.read_bytes() == b"".join(models.pieces(ws, "first", format)), "equal models, equal archives"
    card, original = models.bring(elsewhere, packed), models.get(ws, "first")
    assert card.imported
    assert (card.imported.id, card.imported.name) == (original.id, "first")
    assert card.imported.sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()
    same = {"id", "created_at", "imported"}
    assert card.model_dump(exclude=same) == original.model_dump(exclude=same)
    pictures = sorted(datasets.get(ws, "shapes").spec.source.rglob("*.png"))[::10]
    here, there = (list(models.predict(opened, "first", pictures)) for opened in (ws, elsewhere))
    assert here == there
    # Known tools read it too.
    assert _names(packed) == [f"{original.id}/{name}" for name in PARTS]


def _names(path: Path) -> list[str]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as zipped:
            return zipped.namelist()
    with tarfile.open(path) as tarred:
        return tarred.getnames()


def test_it_is_evaluated_where_its_pictures_are(ws: Workspace, elsewhere: Workspace, tmp_path: Path) -> None:
    packed = models.pack(ws, "first", tmp_path / "model.zip")
    models.bring(elsewhere, packed, name="guest")
    with pytest.raises(NotFound, match="on which the model 'guest' was trained, is not here"):
        evaluations.submit(elsewhere, "guest", split="val")
    datasets.create(elsewhere, "again", datasets.get(ws, "shapes").spec)
    there = evaluations.create(elsewhere, "guest", split="val")
    here = evaluations.create(ws, models.get(ws, "first").id, split="val")
    assert (there.headline, there.confusion) == (here.headline, here.confusion)
    assert there.dataset.name == "again"


def test_the_command_line(ws: Workspace, tmp_path: Path) -> None:
    here, there = Cli(ws.root), Cli(tmp_path / "other")
    out = tmp_path / "model.tar.gz"
    assert here("model", "pack", "first", "--out", out, "--json").json["bytes"] == out.stat().st_size
    assert "There is such a file" in here("model", "pack", "first", "--out", out, status=1).err
    assert "says no format" in here("model", "pack", "first", "--out", tmp_path / "model.rar", status=1).err
    assert "no such folder" in here("model", "pack", "first", "--out", tmp_path / "none" / "a.zip", status=1).err
    shown = there("model", "import", out, "--name", "guest").out
    assert "an archive of model first" in shown
    assert "vizsla predict guest PHOTO" in shown
    assert "There is a model named 'guest'" in there("model", "import", out, "--name", "guest", status=1).err
    assert "no such file" in there("model", "import", tmp_path / "none.zip", status=1).err


def _files(model: Path) -> dict[str, bytes]:
    return {name: (model / name).read_bytes() for name in PARTS}


def _sealed(parts: dict[str, bytes], **card: Any) -> dict[str, bytes]:
    """The parts with a card whose hashes are right."""
    facts = json.loads(parts[CARD]) | card
    facts["files"] = {name: hashlib.sha256(parts[name]).hexdigest() for name in (GRAPH, WEIGHTS, LABELS)}
    return parts | {CARD: json.dumps(facts).encode()}


def _zip(path: Path, entries: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as made:
        for name, content in entries.items():
            made.writestr(name, content)
    return path


def _tar(path: Path, entries: Mapping[str, bytes | tarfile.TarInfo], **more: bytes) -> Path:
    with tarfile.open(path, "w:gz") as made:
        for name, content in [*entries.items(), *more.items()]:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(content, tarfile.TarInfo) else content
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return path


def _link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def _external(content: bytes) -> bytes:
    graph = onnx.load_from_string(content)
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    made: bytes = graph.SerializeToString()
    return made


def _other_operation(content: bytes) -> bytes:
    graph = onnx.load_from_string(content)
    graph.graph.node[0].domain = "evil.example"
    made: bytes = graph.SerializeToString()
    return made


Make = Callable[[Path, dict[str, bytes]], Path]
HOSTILE: dict[str, tuple[Make, str]] = {
    "pickle": (lambda p, f: _zip(p, f | {"model.pth": pickle.dumps({})}), "no part of a model"),
    "traversal": (lambda p, f: _zip(p, {f"../{name}": data for name, data in f.items()}), "no part of a model"),
    "deep": (lambda p, f: _zip(p, {f"a/b/{name}": data for name, data in f.items()}), "no part of a model"),
    "absolute": (lambda p, f: _zip(p, {f"/tmp/{name}": data for name, data in f.items()}), "no part of a model"),
    "two folders": (lambda p, f: _zip(p, {f"{n}/{name}": d for n, (name, d) in enumerate(f.items())}), "no part of"),
    "link": (lambda p, f: _tar(p, f | {LABELS: _link(LABELS, "/etc/passwd")}), "no part of a model"),
    "missing": (lambda p, f: _zip(p, {n: d for n, d in f.items() if n != GRAPH}), f"lacks {GRAPH}"),
    "twice": (lambda p, f: _tar(p, f, **{LABELS: b"x"}), "twice"),
    "changed": (lambda p, f: _zip(p, f | {WEIGHTS: f[WEIGHTS] + b"x"}), "missing or damaged"),
    "bomb": (lambda p, f: _zip(p, f | {WEIGHTS: bytes(200_000_000)}, zipfile.ZIP_DEFLATED), "grows to more than"),
    "large card": (lambda p, f: _tar(p, f | {CARD: bytes(60_000_000)}), "grows to more than"),
    "no archive": (lambda p, f: p.write_bytes(b"hello") and p, "is no archive"),  # type: ignore[dict-item]
    "cut": (lambda p, f: _cut(_zip(p, f)), "cannot be read"),
    "no card": (lambda p, f: _zip(p, f | {CARD: b"[]"}), "format"),
    "weights": (lambda p, f: _zip(p, _sealed(f | {WEIGHTS: pickle.dumps({})})), "not in the safetensors format"),
    "graph": (lambda p, f: _zip(p, _sealed(f | {GRAPH: b"x"})), "cannot be computed"),
    "external": (lambda p, f: _zip(p, _sealed(f | {GRAPH: _external(f[GRAPH])})), "reads other files"),
    "operation": (lambda p, f: _zip(p, _sealed(f | {GRAPH: _other_operation(f[GRAPH])})), "operations of 'evil"),
    "classes": (lambda p, f: _zip(p, _sealed(f, labels=["a", "b"])), "a probability for each class"),
    "name": (lambda p, f: _zip(p, _sealed(f, name="../x")), "cannot be a name"),
    "figures": (lambda p, f: _zip(p, _sealed(f, figures=[{"split": 1}])), "figures of the card are damaged"),
    "header": (lambda p, f: _long_header(p), "cannot be read"),
}


def _cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-100])
    return path


def _long_header(path: Path) -> Path:
    """A tar that says that its next name has 8 GB."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8_000_000_000
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"a" * 10_000)
    return path


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_else_is_taken_for_a_model(elsewhere: Workspace, model: Path, tmp_path: Path, kind: str) -> None:
    make, reason = HOSTILE[kind]
    path = make(tmp_path / "archive", _files(model))
    before = sorted(tmp_path.iterdir())
    with pytest.raises((InvalidInput, Conflict), match=reason):
        models.bring(elsewhere, path)
    assert models.list_all(elsewhere) == []
    assert list((elsewhere.root / "models").iterdir()) == []
    assert list((elsewhere.root / "cache").glob("import-*")) == []
    assert sorted(tmp_path.iterdir()) == before


def test_a_packed_folder_in_flat_form_is_taken_too(elsewhere: Workspace, model: Path, tmp_path: Path) -> None:
    assert models.bring(elsewhere, _zip(tmp_path / "flat.zip", _sealed(_files(model)))).name == "first"


def test_what_was_changed_is_not_packed(ws: Workspace, elsewhere: Workspace, tmp_path: Path) -> None:
    card = models.bring(elsewhere, models.pack(ws, "first", tmp_path / "m.zip"))
    (elsewhere.folder("model", card.id) / LABELS).write_text("x")
    with pytest.raises(InvalidInput, match="missing or damaged"):
        models.pieces(elsewhere, "first", "tar")


@pytest.mark.parametrize("format", FORMATS)
def test_large_models_are_packed_in_little_memory(model: Path, tmp_path: Path, format: Format) -> None:
    large = tmp_path / "large"
    large.mkdir()
    for name, content in _sealed(_files(model) | {WEIGHTS: bytes(64_000_000)}).items():
        (large / name).write_bytes(content)
    written = archive.pieces(large, format)
    tracemalloc.start()
    total = sum(len(piece) for piece in written)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total > (64_000_000 if format in ("zip", "tar") else 10_000)
    assert peak < 16_000_000


def test_archives_by_rest(ws: Workspace, tmp_path: Path) -> None:
    there = tmp_path / "allowed"
    there.mkdir()
    server = Server(ws.root, "--allow", there)
    for format in FORMATS:
        answer = server.client.get("/models/first/archive", params={"format": format})
        assert answer.status_code == 200
        assert answer.content == b"".join(models.pieces(ws, "first", format))
        assert answer.headers["content-disposition"].endswith(f'.{format}"')
    assert server.client.get("/models/first/archive", params={"format": "rar"}).status_code == 422
    assert server.client.get("/models/none/archive").status_code == 404
    (there / "m.tar.bz2").write_bytes(answer.content)
    made = server.client.post("/models/import", json={"archive": str(there / "m.tar.bz2"), "name": "guest"})
    assert made.status_code == 201, made.text
    assert made.json() == server.client.get("/models/guest").json()
    again = server.client.post("/models/import", json={"archive": str(there / "m.tar.bz2"), "name": "guest"})
    assert again.status_code == 409
    (tmp_path / "out.zip").write_bytes(b"x")
    refused = server.client.post("/models/import", json={"archive": str(tmp_path / "out.zip")})
    assert (refused.status_code, refused.json()["where"]) == (422, "archive")
    assert server.stop() == 0
