"""The console that everything is printed on."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.text import Text


class _Console(Console):
    """Leaves the breaking of sentences to the terminal, which keeps a command or an address in one piece."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; what is more than text, as a table, is fitted to the terminal."""
        if all(isinstance(each, str | Text) for each in objects):
            options = {"soft_wrap": True, **options}
        super().print(*objects, **options)


def open_console(progress: str = "auto") -> Console:
    """Standard output, or standard error where that is for machines.

    As wide as the terminal; without one, wide enough that few lines of a table are broken. Markup is off: names of
    classes and texts of errors are printed as they are.

    Args:
        progress: how a running search shows itself, one of ``flags.PROGRESS``.
    """
    aside = progress == "json"
    terminal = (sys.stderr if aside else sys.stdout).isatty()
    return _Console(
        stderr=aside, width=None if terminal else 160, soft_wrap=not terminal, markup=False, highlight=False
    )
