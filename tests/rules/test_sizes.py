"""House limits: a function over 60 lines or a module over 500 needs a reason here."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "vizsla"
MAX_FUNCTION_LINES = 60
MAX_MODULE_LINES = 500

ALLOWED: dict[str, str] = {}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_functions_and_modules_are_short(path: Path) -> None:
    text = path.read_text()
    name = str(path.relative_to(SOURCE))
    long = [
        f"{name}:{node.name}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert [item for item in long if item not in ALLOWED] == []
    assert len(text.splitlines()) <= MAX_MODULE_LINES or name in ALLOWED


def test_no_allowance_is_stale() -> None:
    for item in ALLOWED:
        path, _, function = item.partition(":")
        tree = ast.parse((SOURCE / path).read_text())
        sizes = {
            node.name: (node.end_lineno or 0) - node.lineno + 1
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
        }
        assert sizes.get(function, 0) > MAX_FUNCTION_LINES, f"{item} is short enough now"


def test_each_room_says_what_it_is() -> None:
    for init in SOURCE.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(init.read_text())), f"{init} has no docstring"
