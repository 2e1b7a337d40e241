"""What must start fast, does: heavy libraries are loaded only where they are used."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch", "torchvision", "timm", "onnx", "onnxruntime", "sqlalchemy", "alembic", "pyarrow", "pandas", "PIL", "httpx",
)  # fmt: skip


@pytest.mark.parametrize(
    "code",
    [
        "import vizsla",
        "import sys; sys.argv = ['vizsla', '--help']; from vizsla.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass",
    ],
    ids=["import", "help"],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    check = f"\nimport sys; print('LOADED', sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize("module", ["api.runs", "api.models", "api.evaluations", "api.quickstart", "cli.quickstart"])
def test_faces_and_verbs_never_load_torch(module: str) -> None:
    code = f"import sys, vizsla.{module}; print(sorted(set(sys.modules) & {{'torch', 'timm', 'torchvision'}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
