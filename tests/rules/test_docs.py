"""The documents say what there is: every command, every file that is written, every module."""

import ast
import re
from pathlib import Path

from vizsla.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "vizsla"


def _commands_and_options(page: str) -> set[tuple[str, str]]:
    """Pairs of a command and one of its options; a command without any is paired with ""."""
    found, command = set(), ""
    for line in page.splitlines():
        if heading := re.match(r"#+ (vizsla.*)", line):
            command = heading[1]
            found.add((command, ""))
        if option := re.match(r"\* `(--[\w-]+)", line):
            found.add((command, option[1]))
    return found


def test_the_page_of_commands_names_every_command_and_option() -> None:
    real = _commands_and_options(app.generate_docs())
    page = _commands_and_options((ROOT / "docs" / "commands.md").read_text())
    assert len(real) > 80
    assert page == real, "run: python scripts/commands_page.py > docs/commands.md"


def test_every_option_is_explained() -> None:
    options = [line for line in app.generate_docs().splitlines() if re.match(r"\* `", line)]
    assert [line for line in options if not re.search(r"`: \w", line)] == []


def test_the_readme_has_a_line_for_every_module() -> None:
    readme = (ROOT / "README.md").read_text()
    tree = readme.split("```text", 1)[1].split("```", 1)[0]
    lines: list[str] = []
    folders: list[str] = []
    for line in tree.splitlines():
        found = re.match(r"^( *)([\w./]+?/?)(\s+\S|$)", line)
        if not found or not found[2]:
            continue
        depth = len(found[1]) // 2
        folders = folders[:depth]
        if found[2].endswith("/"):
            folders.append(found[2])
        else:
            lines.append("".join(folders) + found[2])
    listed = set(lines)
    assert sorted(lines) == sorted(listed), "twice in the README's tree"
    modules = {
        f"src/vizsla/{path.relative_to(SOURCE)}"
        for path in SOURCE.rglob("*.py")
        if path.name != "__init__.py" and "versions" not in path.parts
    }
    assert modules - listed == set(), "missing in the README's tree"
    assert {m for m in listed if m.startswith("src/") and m.endswith(".py")} - modules <= {"src/vizsla/__init__.py"}


def test_every_format_is_described() -> None:
    page = (ROOT / "docs" / "formats.md").read_text()
    formats = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                formats |= set(re.findall(r"^vizsla\.[a-z-]+/\d+$", node.value))
    assert len(formats) >= 6
    assert {name for name in formats if f"`{name}`" not in page} == set()


def test_every_test_that_the_docs_name_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (ROOT / "docs" / "digits.md").read_text())
    assert len(named) > 20
    missing = [f"{path}::{test}" for path, test in named if f"def {test}(" not in (ROOT / path).read_text()]
    assert missing == []
