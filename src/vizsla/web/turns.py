"""Reading in turns: who reads hundreds of rows and files, each in a moment, does so alone."""

from __future__ import annotations

import threading

READING = threading.Lock()
"""Held while a part of a list, or the curves of a run, are put together.

Each row and each file lets go of the interpreter's lock for a moment. Forty threads that do so at a time hand it round
thousands of times a second: they keep a core busy with that alone, and each other waiting ten times as long as one
after the other.
"""
