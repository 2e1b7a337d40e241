"""Prints docs/commands.md: every command with its options, from the commands themselves.

Usage: python scripts/commands_page.py > docs/commands.md
"""

from vizsla.cli.main import app

print(app.generate_docs(), end="")
