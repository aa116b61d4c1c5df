"""Numbers of bytes as people write them, in decimal units as disks are sold."""

from __future__ import annotations

import re

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_bytes(text: str) -> int:
    """A number of bytes from "500MB", "1.5GB" or "20 GB", in decimal units.

    Raises: ValueError, which says what was expected, on anything else, and on nothing at all.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)", text.strip().upper())
    size = round(float(match[1]) * _UNITS[match[2]]) if match is not None else 0
    if size <= 0:
        raise ValueError(f"'{text}' is no size with a unit; write 500MB, 20GB, 1.5GB or 1TB")
    return size


def format_bytes(size: float) -> str:
    """A number of bytes in the unit that leaves few digits: "13.2 MB"."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.95 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"
