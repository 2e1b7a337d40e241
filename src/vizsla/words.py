"""Figures as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def percent(figure: Mapping[str, Any]) -> str:
    """A figure with its interval: `97.3 % (96.2 to 98.1)`."""
    return f"{100 * figure['value']:.1f} % ({100 * figure['low']:.1f} to {100 * figure['high']:.1f})"


def seconds(value: float) -> str:
    """A length of time for people: `8.4 s`, `3 min 20 s`, `2 h 05 min`."""
    if value < 99.5:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def large(value: float) -> str:
    """A count of which the size is what matters: `327 k`, `385 M`, `4.09 G`."""
    for factor, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:
            return f"{value / factor:.3g} {sign}"
    return f"{value:.0f}"


def num_bytes(value: float) -> str:
    """An amount of memory for people: `12 MB`, `1.85 GB`."""
    if value >= 0.9995e9:
        return f"{value / 1e9:.2f} GB"
    return f"{value / 1e6:.{0 if value >= 1e7 else 1}f} MB"
