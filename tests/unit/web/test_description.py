"""The OpenAPI document says with examples what requests and answers look like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

import vizsla
from vizsla import files
from vizsla.web.app import create_app


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root: Path = tmp_path_factory.mktemp("described") / "workspace"
    with vizsla.open(root) as ws, files.Lock(ws.root / "queue") as lock:
        return create_app(ws, lock).openapi()


def _named(part: Any) -> set[str]:
    """The schemas that a part of the document refers to by itself."""
    if isinstance(part, list):
        return {name for one in part for name in _named(one)}
    if not isinstance(part, dict):
        return set()
    found = {part["$ref"].rpartition("/")[2]} if "$ref" in part else set()
    return found.union(*(_named(one) for one in part.values()))


def test_every_body_and_answer_has_an_example(described: dict[str, Any]) -> None:
    operations = [operation for methods in described["paths"].values() for operation in methods.values()]
    named = _named([[operation.get("requestBody"), operation["responses"]] for operation in operations])
    assert len(named) > 25
    schemas = described["components"]["schemas"]
    assert {name for name in named if not schemas[name].get("examples")} == set()


def test_every_example_is_one(described: dict[str, Any]) -> None:
    examples = {
        name: schema["examples"] for name, schema in described["components"]["schemas"].items() if "examples" in schema
    }
    assert len(examples) > 25
    for name, (example,) in examples.items():
        whole = {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
        jsonschema.Draft202012Validator(whole).validate(example)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(whole).validate("anything")
