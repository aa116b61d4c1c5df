"""The console that everything is printed on."""

from __future__ import annotations

import sys

from rich.console import Console


def open_console() -> Console:
    """Standard output: as wide as the terminal; without one, wide enough that few lines of a table are broken.

    Markup is off: names of classes and texts of errors are printed as they are.
    """
    terminal = sys.stdout.isatty()
    return Console(width=None if terminal else 160, soft_wrap=not terminal, markup=False, highlight=False)
