"""What the benchmarks share: facts about the machine, results as table and JSON, pictures, and the peers' programs."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain, islice, zip_longest
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
LIBRARIES = ("vizsla", "torch", "torchvision", "timm", "numpy", "pillow")


def machine(device: str = "cpu") -> dict[str, Any]:
    """What a figure depends on beside the code. Read it before the work: the load is that of others."""
    import torch

    facts: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_average_before": [round(load, 2) for load in os.getloadavg()],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
    }
    if device.startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows as aligned text: words to the left, figures to the right, `None` as a dash."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(columns, *cells, strict=True)]
    numeric = [all(not isinstance(row[i], str) for row in rows) for i in range(len(columns))]
    lines = [
        "  ".join(
            c.rjust(w) if right else c.ljust(w) for c, w, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in [list(columns), ["-" * width for width in widths], *cells]
    ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 10 else str(value)


def middle(values: Sequence[float | None]) -> float | None:
    """The median of those that are there."""
    found = [value for value in values if value is not None]
    return round(median(found), 3) if found else None


def ratio(a: float | None, b: float | None) -> float | None:
    """a / b, where both are there."""
    return round(a / b, 3) if a and b else None


def save(result: dict[str, Any], out: Path | None, name: str) -> None:
    """Write the result as JSON: to `out`, or to results/ under a name that says on what machine."""
    facts = result["machine"]
    kind = f"{facts['cores']}-cores" if "gpu" not in facts else facts["gpu"].replace(" ", "-").lower()
    path = out or HERE / "results" / f"{name}-{kind}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"\nWritten to {os.path.relpath(path)}.")


def class_folders(data: Path) -> list[Path]:
    """The folders of the classes, in the order that everybody gives them."""
    found = sorted(path for path in data.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not found:
        raise SystemExit(f"{data} has no folder of a class.")
    return found


def copy_some(data: Path, target: Path, num_pictures: int) -> int:
    """Copy pictures of all classes in turn; those there are, over again, when there are too few. Returns how many."""
    classes = class_folders(data)
    in_turn = zip_longest(*(sorted(path for path in folder.iterdir() if path.is_file()) for folder in classes))
    pictures = [path for path in chain.from_iterable(in_turn) if path is not None]
    for number, path in enumerate(islice((p for _ in range(num_pictures) for p in pictures), num_pictures)):
        folder = target / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / f"{number:05d}{path.suffix}")
    return num_pictures


def default_venvs() -> Path:
    """Where the peers' environments are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "vizsla-benchmarks"


def peer_python(folder: Path, requirements: Sequence[str]) -> Path:
    """The interpreter of a peer's own environment, which is made when it is missing.

    It sees this environment's packages behind its own, so a peer runs with the same torch unless it refuses that one.
    """
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        print(f"Installing {', '.join(requirements)} into {folder} ...", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=False, symlinks=True)
        own = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        )
        parent = sysconfig.get_path("purelib")
        (Path(own.stdout.strip()) / "parent.pth").write_text(parent + "\n", encoding="utf-8")
        subprocess.run([python, "-m", "pip", "install", "-qq", *requirements], check=True)
        ready.touch()
    return python


def ask(script: str, settings: dict[str, Any], *, python: Path | None = None, timeout_s: float = 3600) -> Any:
    """Run a program of peers/ with these settings; returns the JSON document that it prints last.

    An answer with the one field `error` stands for a program that failed: the other candidates are measured anyway.
    """
    with tempfile.TemporaryDirectory() as scratch:
        # A peer writes checkpoints and settings into its working folder or home, and fetches nothing.
        environment = {**os.environ, "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": scratch}
        command = [str(python or sys.executable), str(HERE / "peers" / script), json.dumps(settings)]
        try:
            done = subprocess.run(
                command, cwd=scratch, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            return {"error": f"{script} took more than {timeout_s:.0f} s"}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"{script} failed: {done.stderr[-3000:]}", file=sys.stderr)
        return {"error": f"status {done.returncode}: {last}"}
