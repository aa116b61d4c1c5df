"""How much time and memory a file may take to be read, and what is said of one that takes more."""

from __future__ import annotations

import os
from pathlib import Path

from trainables.data.sandbox import MB, Failure

SECONDS = 10.0
SECONDS_PER_BYTE = 1 / (10 * MB)
"""Added for large files: decompression is slow."""

MEMORY = 4096 * MB
MEMORY_PER_BYTE = 16
"""Added for large files: 8 bit pixels become 32 bit ones, and stages of this exist side by side."""


def limits(path: Path) -> tuple[float, int]:
    """Seconds of the processor, and bytes of memory, that reading a file may take."""
    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        size = 0
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return SECONDS + size * SECONDS_PER_BYTE, min(MEMORY + size * MEMORY_PER_BYTE, machine)


def in_words(failure: Failure) -> str:
    """Why a file could not be decoded, in words that follow its name."""
    if failure.kind in ("time", "wait"):
        return f"took longer than {failure.detail} to decode; copy it again or convert it."
    if failure.kind == "memory":
        return f"needed more than {failure.detail} of memory to decode; make it smaller or convert it."
    if failure.kind == "crash":
        return f"crashed its decoder ({failure.detail}); copy it again or convert it."
    return f"cannot be decoded ({failure.detail}); copy it again or convert it."
