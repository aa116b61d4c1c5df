"""The subcommand ``show``: a search's leaderboard, rebuilt from its ledger."""

from __future__ import annotations

from pathlib import Path

from search.display import open_console
from search.outcome import print_outcome
from search.storage import find_search


def show(storage: Path, name: str | None) -> int:
    """Print a search's leaderboard. Raises: SettingsError if it is not there."""
    ledger = find_search(storage, name)
    print_outcome(open_console(), ledger)
    return 0
