"""Writes a package: a folder with all that a service needs, whole or absent."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from string import Template

from vizsla import files
from vizsla.errors import Conflict, InvalidInput
from vizsla.models.card import CARD, GRAPH, check_file, open_model
from vizsla.packaging import needed, texts
from vizsla.packaging.spec import PackageSpec
from vizsla.packaging.texts import Version
from vizsla.serving.spec import SERVICE, ModelSpec, ServiceSpec, VersionSpec

TEMPLATES = Path(__file__).parent / "templates"
LOCKS = Path(__file__).parent / "locks"
# The package itself, of which a service needs no function.
INIT = '''"""Those modules of Vizsla that a service needs."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
'''
# Where templates go by another name.
RENAMED = {"dockerignore": ".dockerignore"}


def write(spec: PackageSpec, out: Path) -> str:
    """Make the folder `out` of a service and its models; returns the name of the image.

    Raises:
        Conflict: there is something in that folder.
        InvalidInput: a model is not whole, or there is no folder to make it in.
        DiskFull: there is no room; nothing is left.
    """
    out = out.absolute()
    _require_free(out)
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        with files.disk_errors(out):
            temporary.mkdir()
            image = _fill(spec, temporary)
            for path in (temporary, *temporary.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
                files.fsync(path)
            try:
                temporary.rename(out)
            except OSError:
                _require_free(out)
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return image


def _require_free(out: Path) -> None:
    if not out.parent.is_dir():
        raise InvalidInput("There is no such folder.", where=str(out.parent), remedy="Make it first.")
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise Conflict("There is something already.", where=str(out), remedy="Choose another folder, or remove it.")


def _fill(spec: PackageSpec, out: Path) -> str:
    versions = list(_versions(spec.service))
    service = _copied(spec.service, out)
    files.write_json(out / SERVICE, service.model_dump(mode="json"))
    _app(out / "app")
    lock = LOCKS / f"{'cuda' if spec.cuda else 'cpu'}.txt"
    shutil.copyfile(lock, out / "requirements.txt")
    newest = spec.service.models[0].versions[-1].version
    tag = f"{newest[:40]}-{_digest(out, spec)[:8]}"
    given = texts.words(spec, versions, tag)
    for template in sorted(path for path in TEMPLATES.rglob("*") if path.is_file()):
        place = template.relative_to(TEMPLATES)
        name = RENAMED.get(place.name, f"{spec.name}.service" if place.suffix == ".service" else place.name)
        (out / place.parent).mkdir(exist_ok=True)
        (out / place.parent / name).write_text(filled(template, given | _by_kind(place.stem, spec)), encoding="utf-8")
    return given["image"]


def filled(template: Path, given: dict[str, str]) -> str:
    """A template with its placeholders filled. A line with nothing but one that stands for nothing is left out."""
    lines = template.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if given.get(line.strip().removeprefix("$"), "x") or not line.strip()]
    return re.sub(r"\n{3,}", "\n\n", Template("".join(kept)).substitute(given))


def _by_kind(kind: str, spec: PackageSpec) -> dict[str, str]:
    """How a kind of manifest asks for a GPU, and for room to keep pictures in."""
    asked = {"compose": texts.GPU_COMPOSE, "stack": texts.GPU_STACK, "deployment": texts.GPU_KUBERNETES}
    return {"gpu": asked.get(kind, "") if spec.cuda else "", **texts.mounted(spec, kind)}


def _versions(service: ServiceSpec) -> Iterator[Version]:
    for model in service.models:
        for one in model.versions:
            graph = check_file(one.folder, open_model(one.folder), GRAPH)
            yield Version(model.name, open_model(one.folder), graph.stat().st_size)


def _copied(service: ServiceSpec, out: Path) -> ServiceSpec:
    """The same service with copies of its models, of which it reads the card and the graph."""
    return service.model_copy(update={"models": tuple(_copied_model(model, out) for model in service.models)})


def _copied_model(model: ModelSpec, out: Path) -> ModelSpec:
    versions = []
    for one in model.versions:
        place = Path("models", model.name, one.version)
        (out / place).mkdir(parents=True)
        for name in (CARD, GRAPH):
            shutil.copyfile(one.folder / name, out / place / name)
        check_file(out / place, open_model(out / place), GRAPH)
        versions.append(VersionSpec(version=one.version, folder=place, share=one.share))
    return model.model_copy(update={"versions": tuple(versions)})


def _app(out: Path) -> None:
    """The modules, with what they ask of their own installation: its version."""
    for path in (*needed.needed().modules.values(), *needed.data()):
        place = out / "vizsla" / path.relative_to(needed.SOURCE)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    (out / "vizsla" / "__init__.py").write_text(INIT, encoding="utf-8")
    installed = out / f"vizsla-{version('vizsla')}.dist-info"
    installed.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: vizsla\nVersion: {version('vizsla')}\nLicense: Apache-2.0\n"
    (installed / "METADATA").write_text(metadata, encoding="utf-8")


def _digest(out: Path, spec: PackageSpec) -> str:
    """Of all that the image is made of. A model's graph is in it by the digest on its card."""
    digest = hashlib.sha256(json.dumps([spec.service.name, spec.workers, spec.drain, spec.public]).encode())
    digest.update((TEMPLATES / "Dockerfile").read_bytes())
    for path in sorted(path for path in out.rglob("*") if path.is_file() and path.name != GRAPH):
        digest.update(f"\0{path.relative_to(out)}\0{files.sha256(path)}".encode())
    return digest.hexdigest()
