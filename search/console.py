"""The console that everything is printed on."""

from __future__ import annotations

import sys

from rich.console import Console


def open_console(progress: str = "auto") -> Console:
    """Standard output, or standard error where that is for machines.

    As wide as the terminal; without one, wide enough that few lines of a table are broken. Markup is off: names of
    classes and texts of errors are printed as they are.

    Args:
        progress: how a running search shows itself, one of ``flags.PROGRESS``.
    """
    aside = progress == "json"
    terminal = (sys.stderr if aside else sys.stdout).isatty()
    return Console(stderr=aside, width=None if terminal else 160, soft_wrap=not terminal, markup=False, highlight=False)
