"""What a package carries is what a service imports: nothing is missing, nothing is too much."""

from __future__ import annotations

import re
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

from vizsla.packaging import needed
from vizsla.packaging.folder import LOCKS

# Imported by the libraries themselves where they are there; what for, service.in says.
UNSEEN = {"httptools", "uvloop"}
RUNTIMES = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu"}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _asked(path: Path) -> set[str]:
    """The libraries that a file of requirements names, with those of the files that it names."""
    found = set()
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            found |= _asked(path.parent / line[3:])
        elif line and not line.startswith("#"):
            found.add(_normal(re.split(r"[\[<>=~! ]", line)[0]))
    return found


def _locked(path: Path) -> dict[str, str]:
    """What a lock names, each with the lines about it."""
    blocks = re.split(r"\n(?=[a-z0-9])", path.read_text())
    return {_normal(name[1]): block for block in blocks if (name := re.match(r"([A-Za-z0-9_.-]+)==", block))}


def test_no_torch_and_no_database() -> None:
    found = needed.needed()
    assert not found.libraries & {"torch", "torchvision", "timm", "safetensors", "sqlalchemy", "alembic", "pyarrow"}
    assert not found.libraries & {"cyclopts", "rich", "jinja2", "onnx"}
    rooms = {name.split(".")[1] for name in found.modules if name.count(".") > 1}
    assert rooms == {"images", "machine", "models", "networks", "serving", "training"}
    assert {"vizsla.serving.__main__", "vizsla.serving.worker"} <= set(found.modules)
    assert len(found.modules) < 50


def test_imports_are_found_within_functions_but_not_those_of_checkers() -> None:
    assert "onnxruntime" in needed.needed(("vizsla.models.predictor",)).libraries
    assert not needed.needed(("vizsla.api.accounts",)).libraries & {"torch", "timm"}
    assert "vizsla.store.workspace" not in needed.needed(("vizsla.errors",)).modules


@pytest.mark.parametrize("device", list(RUNTIMES))
def test_what_is_imported_is_asked_for_and_nothing_else(device: str) -> None:
    installed = packages_distributions()
    imported = {_normal(installed[name][0]) for name in needed.needed().libraries}
    assert imported & {"onnxruntime", "onnxruntime-gpu"}
    imported = imported - set(RUNTIMES.values()) | {RUNTIMES[device]}
    asked = _asked(LOCKS / f"{device}.in")
    assert asked - imported == UNSEEN
    assert imported - asked == set()


@pytest.mark.parametrize("device", list(RUNTIMES))
def test_the_lock_is_of_what_is_asked_for(device: str) -> None:
    locked = _locked(LOCKS / f"{device}.txt")
    asked = _asked(LOCKS / f"{device}.in")
    assert asked <= set(locked)
    # What nobody asked for is there for something that is there.
    for name, block in locked.items():
        via = re.findall(r"# +(?:via )?([\w.-]+)$", block, re.MULTILINE)
        assert name in asked or {_normal(one) for one in via} & set(locked), name
    assert all("--hash=sha256:" in block for block in locked.values())
    assert "colorama" not in locked
    assert "://" not in (LOCKS / f"{device}.txt").read_text()


def test_the_libraries_of_cuda_lie_where_the_image_looks_for_them() -> None:
    assert "nvidia-cudnn-cu13" in _locked(LOCKS / "cuda.txt"), "see CUDA_PATH in vizsla.packaging.texts"


def test_the_locked_versions_are_those_that_vizsla_takes() -> None:
    bounds = {}
    for line in requires("vizsla") or []:
        if found := re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)$", line):
            bounds[_normal(found[1])] = found[2]
    assert len(bounds) > 15
    for name, block in _locked(LOCKS / "cpu.txt").items():
        for version in re.findall(rf"^{name}==([\d.]+)", block, re.MULTILINE):
            assert _numbers(version) >= _numbers(bounds.get(name, "0")), name


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.strip(".").split(".")]
