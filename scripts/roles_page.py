"""Prints docs/roles.md: what each role may ask of a server, found out by asking one.

Usage: python scripts/roles_page.py > docs/roles.md
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.roles import page, table

with tempfile.TemporaryDirectory() as folder:
    print(page(table(Path(folder) / "workspace")), end="")
